"""Places that cannot be written: one message that names flag and place, before work is lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hbd3lm import cli
from tests.commands.runs import evaluate

FILES = {
    "lengths": ("--data_path train.json --analyze --output_json", "--output_json"),
    "analyze": ("--data_path train.json --output_plot p.svg --output_json", "--output_json"),
    "analyze page": ("--data_path train.json --output_plot p.svg --output_page", "--output_page"),
    "mask": ("--output_plot", "--output_plot"),
    "plans": ("--dataset embedded --num_examples 2 --output_path", "--output_path"),
    "train_tokenizer": ("--limit 5 --embedded 5 --vocab_size 300 --output", "--output"),
}
FOLDERS = {
    "export": "--checkpoint run/checkpoints/best.ckpt --output_dir",
    "export data": "--plans train=train.json --output_dir",
    "experiment": "abstraction --smoke model=nano experiment.output_dir=",
}
LONG = "n" * 300


@pytest.fixture
def places(home, tmp_path, monkeypatch) -> Path:
    """A folder with data and a run, a file, a folder and a pipe."""
    for name in ("train.json", "run"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "file").touch()
    (tmp_path / "folder.svg").mkdir()
    os.mkfifo(tmp_path / "pipe.svg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refuse(words: list[str], flag: str, folder: Path, capsys) -> str:
    before = sorted(folder.rglob("*"))
    assert cli.main(words) == 1
    error = capsys.readouterr().err
    told = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(told) == 1 and told[0].startswith(f"error: {flag}: "), error
    assert "Traceback" not in error
    assert sorted(folder.rglob("*")) == before, "nothing is scattered beside"
    return told[0]


@pytest.mark.parametrize("verb", FILES)
@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file/x.svg", "Not a directory"),
        (f"{LONG}.svg", "File name too long"),
        ("/proc/x.svg", "No such file or directory"),
        ("folder.svg", "is a folder; name a file in it"),
        ("pipe.svg", "is a device, pipe or socket; name a file"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_by_its_flag(
    places, verb, place, reason, data_dir, capsys
):
    words, flag = FILES[verb]
    words = [*verb.removesuffix(" page").split(), *words.split(), place]
    if verb == "train_tokenizer":
        words += ["--data_dir", str(data_dir)]
    assert reason in refuse(words, flag, places, capsys)


@pytest.mark.parametrize("verb", FOLDERS)
@pytest.mark.parametrize("place", ["file/x", LONG, "/proc/x"])
def test_a_folder_that_cannot_be_written_is_refused_by_its_flag(places, verb, place, capsys):
    words = f"{verb} {FOLDERS[verb]}"
    words = words.split() if words.endswith("=") else [*words.split(), ""]
    words[-1] += place
    flag = "experiment.output_dir" if verb == "experiment" else "--output_dir"
    assert f"cannot write {place}" in refuse(words, flag, places, capsys)


@pytest.mark.parametrize("mode", ["ppl_eval", "sample_eval", "sample"])
@pytest.mark.parametrize("place", ["file/x", LONG, "/proc/x"])
@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_asks_for_its_folder_before_the_network_works(
    home, places, mode, place, capsys, monkeypatch
):
    def work(*args, **kwargs):
        pytest.fail("the network has worked for nothing")

    monkeypatch.setattr("hbd3lm.evaluate.perplexity.likelihoods", work)
    monkeypatch.setattr("hbd3lm.evaluate.answers.generate", work)
    more = ["sampling.question=Q", "sampling.trajectory=true"] if mode == "sample" else []
    assert evaluate(home, mode, f"eval.output_dir={places / place}", *more) == 1
    error = capsys.readouterr().err
    assert f"error: eval.output_dir: cannot write {places / place}/" in error


@pytest.mark.usefixtures("one_thread")
def test_an_evaluation_whose_disk_fills_up_ends_in_a_message(home, tmp_path, capsys, monkeypatch):
    real = os.replace

    def full(source, target):
        if str(target).endswith("perplexity.json"):
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert evaluate(home, "ppl_eval", "eval.samples=1", f"eval.output_dir={tmp_path}") == 1
    error = capsys.readouterr().err
    assert f"eval.output_dir: cannot write {tmp_path}/perplexity.json: No space left" in error
