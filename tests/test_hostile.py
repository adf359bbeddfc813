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
from hbd3lm.data.records import read_examples, write_examples
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError, printable
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
