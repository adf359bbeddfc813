"""``mode=train``: what a run leaves, what it says, and how it fails."""

from __future__ import annotations

import json

import pytest
import torch
from omegaconf import OmegaConf

from hbd3lm.commands import build, train
from hbd3lm.lock import output_lock
from tests.commands.runs import STEPS, TINY, compose, main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_leaves_everything_a_later_reader_needs(home):
    folder = home / "run"
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "tokenizer/tokenizer.json",
                 "config.yaml", "loss.png", "logs/metrics.csv"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    summary = json.loads((folder / "train_summary.json").read_text())
    assert summary["steps"] == 5
    assert (summary["train_problems"], summary["valid_problems"]) == (18, 2)
    assert summary["best_valid_nelbo"] > 0


def test_separate_modules_are_matched_as_the_setting_says_and_training_tells():
    separate = ["model=nano", "hierarchical.modules=separate"]
    like, matched = compose(*separate), compose(*separate, "hierarchical.match=parameters")
    assert build.build_model_config(like, 4096).dim == 128
    assert build.build_model_config(matched, 4096).dim < 128
    assert train._name_model(like) == "nano with separate modules (as many operations as shared)"
    assert train._name_model(matched) == "nano with separate modules (as many parameters as shared)"
    frozen = compose(*separate, "training.freeze=plan")
    assert train._name_model(frozen).endswith(" as shared), plan frozen")


def test_the_command_it_says_comes_next_can_be_pasted_and_finds_the_same_data():
    places = {"run_dir": "out, [1]/it's", "data.dir": "my data", "data.test_path": "t=1.json"}
    cfg = compose("data=svamp")
    for key, value in places.items():
        OmegaConf.update(cfg, key, value)
    again = compose(*train._same_place(cfg))
    assert {key: OmegaConf.select(again, key) for key in places} == places
    assert again.data.name == "svamp"
    assert train._same_place(compose()) == ["run_dir=outputs/hierarchical_tiny"]


def test_a_searched_schedule_is_logged_in_the_run_folder(home, tmp_path):
    status = main(
        "mode=train", *TINY, *STEPS, "algo.schedule=searched", "training.optimizer=muon",
        f"data.train_path={home}/train.json", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0
    lines = (tmp_path / "run" / "schedule_search.jsonl").read_text().splitlines()
    assert [json.loads(line)["segment"] for line in lines] == ["plan", "execution"]
    assert json.loads(lines[0])["block_size"] == 16


def test_a_training_that_runs_out_of_memory_tells_what_to_lower(
    home, tmp_path, monkeypatch, capsys
):
    from hbd3lm.train import module

    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(module, "negative_log_likelihood", out_of_memory)
    status = main(
        "mode=train", *TINY, *STEPS, f"data.train_path={home}/train.json", f"run_dir={tmp_path}/run"
    )
    error = capsys.readouterr().err
    assert status == 1 and error.count("error:") == 1 and "Traceback" not in error
    assert "out of memory while training (CUDA out of memory. Tried to allocate 2.00 GiB)" in error
    assert "BATCH_SIZE=2, which is training.batch_size=2; training.accumulate=2 keeps" in error


def test_rerunning_with_another_shape_is_refused_and_spoils_nothing(home, capsys):
    """Once the configuration and tokenizer of the old run were overwritten before the refusal."""
    kept = {
        path: path.read_bytes()
        for path in (home / "run" / "config.yaml", home / "run" / "checkpoints" / "last.ckpt")
    }
    status = main(
        "mode=train", "model=tiny", *STEPS, f"data.train_path={home}/train.json",
        f"run_dir={home}/run",
    )  # fmt: skip
    assert status == 1
    error = capsys.readouterr().err
    assert "model.dim: 32 != 256" in error and "choose another run_dir" in error
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_two_runs_never_write_one_folder(home, tmp_path, capsys, monkeypatch):
    """The second would overwrite checkpoints and mix the logs; it waits a little, then says so."""
    monkeypatch.setattr(train, "LINGER", 0.3)
    words = ["mode=train", *TINY, *STEPS, f"data.train_path={home}/train.json"]
    with output_lock(tmp_path / "checkpoints"):
        assert main(*words, f"run_dir={tmp_path}") == 1
    error = capsys.readouterr().err
    assert f"error: run_dir: another run is writing {tmp_path}/checkpoints: process" in error
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "config.yaml").exists()
    assert main(*words, f"run_dir={tmp_path}") == 0
    assert not (tmp_path / "checkpoints.lock").exists()


def test_a_run_dir_that_cannot_be_made_is_refused_by_its_name(home, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    run_dir = tmp_path / "file" / "run"
    assert (
        main("mode=train", *TINY, f"data.train_path={home}/train.json", f"run_dir={run_dir}") == 1
    )
    assert (
        f"error: run_dir: cannot write {run_dir}/checkpoints: Not a directory"
        in capsys.readouterr().err
    )
