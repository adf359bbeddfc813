"""A hostile data set goes through generation, analysis and printing without harm.

What a browser does with it is tested in ``tests/report/test_plan_page_browser.py``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from hbd3lm import cli
from hbd3lm.commands.export import read_run
from hbd3lm.data.records import read_examples, write_examples
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError, printable
from hbd3lm.evaluate.trajectories import read_trajectories
from hbd3lm.hub.directory import read_sampling
from hbd3lm.model.families.reading import read_config
from hbd3lm.plans.details import read_details
from hbd3lm.plans.manifest import read_manifest
from hbd3lm.plans.provenance import plan_provenance
from hbd3lm.plans.review import read_review
from tests.hostile import MEGABYTE, QUESTIONS, rows, write_problems

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """Problems through the ``rules`` planner, then analysis; (folder, what the two printed)."""
    folder = tmp_path_factory.mktemp("hostile")
    write_problems(folder)
    run = [sys.executable, "-m", "hbd3lm.cli"]
    generate = [*run, "plans", "--data_dir", folder, "--output_path", folder / "plans.json"]
    analyse = [*run, "analyze", "--data_path", folder / "plans.json", "--num_samples", "99",
               "--output_plot", folder / "plot.png"]  # fmt: skip
    printed = ""
    for command in (generate, analyse):
        done = subprocess.run(command, capture_output=True, timeout=600, check=True)
        printed += done.stdout.decode() + done.stderr.decode()
    return folder, printed


def test_generation_keeps_every_question_and_writes_plans_without_numbers(analysed):
    folder, _ = analysed
    examples = read_examples(folder / "plans.json")
    assert [example.question for example in examples] == list(QUESTIONS)
    assert all(example.plan and not re.search(r"\d", example.plan) for example in examples)


def test_analysis_writes_figure_metrics_and_page(analysed):
    folder, _ = analysed
    assert (folder / "plot.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((folder / "plot.json").read_text())["examples"] == len(QUESTIONS)
    assert (folder / "plot.html").stat().st_size > len(MEGABYTE)


def test_nothing_that_steers_a_terminal_is_printed(analysed):
    _, printed = analysed
    assert not STEERING.search(printed)
    assert "\\x1b[2J\\x1b]0;owned\\x07" in printed.replace("\n", "")
    assert "[bold red]9[/bold red] [/]" in printed.replace("\n", " ")


def test_the_look_at_tokens_prints_them_harmlessly(analysed, capsys):
    folder, _ = analysed
    assert cli.main(["lengths", "--data_path", str(folder / "plans.json")]) == 0
    printed = capsys.readouterr().out
    assert "\\x1b[31mRed" in printed and not STEERING.search(printed)


def test_hostile_ids_plans_and_executions_are_printed_harmlessly(tmp_path, capsys):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(rows()), encoding="utf-8")
    assert cli.main(["analyze", "--data_path", str(path), "--output_plot",
                     str(tmp_path / "plot.svg"), "--num_samples", "99"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert not STEERING.search(printed)
    assert len(printed) < 200_000 and "more characters)" in printed  # the megabyte is cut


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_hostile_examples_survive_writing_and_reading(tmp_path, name):
    source = tmp_path / "source.json"
    source.write_text(json.dumps(rows()), encoding="utf-8")
    examples = read_examples(source)
    write_examples(tmp_path / name, examples)
    assert read_examples(tmp_path / name) == examples


def test_half_a_character_is_refused_by_record_and_field(tmp_path):
    """``"\\ud800"`` is JSON, but no text: writing it failed late, with a traceback."""
    path = tmp_path / "data.json"
    bad = rows()[:2]
    bad[1] |= {"id": "b", "plan": "Add \ud800 them."}
    path.write_text(json.dumps(bad))
    with pytest.raises(UserError, match=r"record 1 \(id 'b'\): field 'plan' holds \\ud800, half"):
        read_examples(path)
    (tmp_path / "gsm8k_train.jsonl").write_text(
        json.dumps({"question": "Half \udc00?", "answer": "1+1 = <<1+1=2>>2\n#### 2"})
    )
    with pytest.raises(UserError, match=r"line 1: field 'question' holds \\udc00, half"):
        load_problems("gsm8k", "train", tmp_path)


def test_error_messages_cannot_steer_the_terminal(tmp_path, capsys):
    assert cli.main(["analyze", "--data_path", str(tmp_path / "no\x1b[31m.json")]) == 1
    assert "no\\x1b[31m.json" in capsys.readouterr().err


def test_printable_spells_out_what_steers_and_leaves_the_rest():
    assert printable("a\tb\nç \U0001f34e שלום") == "a\tb\nç \U0001f34e שלום"
    assert printable("\x1b[0m\r\x00\x9b\u202e") == "\\x1b[0m\\r\\x00\\x9b\\u202e"


READERS = {
    "x.json": read_examples,
    "x.jsonl": read_examples,
    "review.json": read_review,
    "x.json.details.jsonl": lambda path: read_details(path.with_name("x.json")),
    "x.json.manifest.json": lambda path: read_manifest(path.with_name("x.json")),
    "x.json.review.json": lambda path: plan_provenance(path.with_name("x.json")),
    "gsm8k_train.jsonl": lambda path: load_problems("gsm8k", "train", path.parent),
    "svamp.json": lambda path: load_problems("svamp", "train", path.parent),
    "trajectories.jsonl": read_trajectories,
    "config.json": lambda path: read_config(path.parent, "checkpoint"),
    "generation_config.json": lambda path: read_sampling(path.parent),
    "train_summary.json": lambda path: read_run(path.parent / "checkpoints" / "best.ckpt", None),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": %s}' % ("9" * 5000), "a number of thousands of digits"),
        ("[" * 100_000, "nests its values too deeply"),
        ('{"a": [' * 50_000, "nests its values too deeply"),
        ('{"a": ', "Expecting value"),
    ],
)
def test_json_that_python_cannot_hold_is_one_message_in_every_reader(tmp_path, name, text, reason):
    """Such numbers are a ValueError, such depth a RecursionError: each reader forgot one."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=rf"{name}(, line 1)? is not valid JSON .*{reason}.*\); \w"):
        READERS[name](path)


def test_numbers_of_thousands_of_digits_are_numbers_like_others(tmp_path, capsys, monkeypatch):
    """Python reads no more than 4,300 digits at once; analysis and comparison ended there."""
    monkeypatch.chdir(tmp_path)
    big = "9" * 6000
    texts = {"plan": f"Add {big}.", "execution": f"1+1={big}\n#### {big}", "answer_numerical": big}
    good = {**rows()[0], "plan": "Add them.", "execution": "1+1=2\n#### 2", "answer_numerical": "2"}
    for name, row in (("good.json", good), ("big.json", good | texts)):
        (tmp_path / name).write_text(json.dumps([row, row | {"id": "b"}]))
    for pair in (("good.json", "big.json"), ("big.json", "good.json")):
        assert cli.main(["analyze", "--data_path", pair[0], "--compare", pair[1]]) == 0
    metrics = json.loads((tmp_path / "gsm8k_analysis.json").read_text())
    assert metrics["answer_leakage"]["share"] == 1.0
