"""``hbd3lm <verb>``: light help, the right program behind each verb, plain answers to mistakes."""

from __future__ import annotations

import contextlib
import importlib
import re
import subprocess
import sys

import pytest

from hbd3lm import cli
from tests.conftest import REPOSITORY

RENAMED = """
import runpy, sys
path = sys.argv[1]
sys.argv = ["something_else", "--help"]
runpy.run_path(path, run_name="__main__")
"""
LIGHT = """
import contextlib, sys
from hbd3lm.cli import VERBS, main
main(["--help"])
for name, verb in VERBS.items():
    if verb.module:
        with contextlib.suppress(SystemExit):
            main([*name.split(), "--help"])
heavy = {"torch", "lightning", "transformers", "datasets", "matplotlib", "hydra", "tokenizers"}
sys.exit(f"--help imports {heavy & set(sys.modules)}" if heavy & set(sys.modules) else 0)
"""


def test_help_of_every_verb_imports_nothing_heavy():
    subprocess.run([sys.executable, "-c", LIGHT], check=True, stdout=subprocess.DEVNULL)


def test_help_lists_every_verb_on_a_line_of_its_own(capsys):
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, verb in cli.VERBS.items():
        assert [line for line in lines if line.startswith(f"  {name} ") and verb.summary in line]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("module", [verb.module for verb in cli.VERBS.values() if verb.module])
def test_every_verb_has_a_program(module):
    assert callable(importlib.import_module(module).main)


def test_modes_of_main_py_are_verbs_and_no_others():
    from hbd3lm.commands.run import MODES

    assert [name for name, verb in cli.VERBS.items() if not verb.module] == list(MODES)


@pytest.mark.parametrize(
    ("typed", "hint"), [("trian", "did you mean train?"), ("xyz", "choose from quickstart, plans")]
)
def test_an_unknown_verb_gets_a_suggestion_and_status_2(typed, hint, capsys):
    assert cli.main([typed]) == 2
    assert hint in capsys.readouterr().err


def test_without_a_verb_the_usage_is_an_error(capsys):
    assert cli.main([]) == 2
    assert "usage: hbd3lm VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "handed_over"),
    [
        (["train", "model=nano"], ["mode=train", "model=nano"]),
        (["ppl_eval", "--cfg", "job"], ["mode=ppl_eval", "--cfg", "job"]),
        # So Lightning starts its further processes: with the arguments of the first.
        (["mode=train", "model=nano"], ["mode=train", "model=nano"]),
    ],
)
def test_modes_go_to_hydra_as_main_py_takes_them(typed, handed_over, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["hbd3lm", *typed])
    monkeypatch.setattr("hbd3lm.commands.run.main", lambda: seen.append(list(sys.argv)))
    assert cli.entry_point() == 0
    assert seen == [["hbd3lm", *handed_over]]


def test_a_verb_and_another_mode_contradict_each_other(capsys):
    assert cli.main(["train", "mode=sample"]) == 2
    assert "leave mode=... out" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, verb in cli.VERBS.items() if verb.module])
def test_help_and_errors_name_the_command_that_was_typed(name, capsys):
    """Five verbs gave the names of the scripts that do the same."""
    with contextlib.suppress(SystemExit):
        cli.main([*name.split(), "--help"])
    assert re.match(rf"usage: hbd3lm {name} ", capsys.readouterr().out)
    if name == "plans":
        with pytest.raises(SystemExit):
            cli.main(["plans", "--seed", "x"])
        assert "hbd3lm plans: error: argument --seed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "script",
    [
        "gsm8k_dataloader.py",
        "test_hierarchical_mask.py",
        "scripts/analysis/analyze_gsm8k_plans.py",
        "scripts/data_prep/generate_gsm8k_plans.py",
        "scripts/data_prep/train_tokenizer.py",
    ],
)
def test_a_script_names_itself(script):
    run = subprocess.run(
        [sys.executable, "-c", RENAMED, str(REPOSITORY / script)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    name = script.rpartition("/")[2]
    assert run.stdout.startswith(f"usage: {name} ")


def test_bad_input_is_one_message_and_status_1(capsys):
    assert cli.main(["lengths", "--data_path", "nowhere.json"]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: --data_path: no such file: nowhere.json")


@pytest.mark.parametrize("module", ["hbd3lm", "hbd3lm.cli"])
def test_module_and_console_script_are_the_same_program(module):
    run = subprocess.run(
        [sys.executable, "-m", module, "--version"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.startswith("hbd3lm ")


def test_the_longest_verb_that_fits_is_taken():
    assert cli.find_verb(["plans", "apply-review", "--bad", "keep"]) == (
        "plans apply-review", ["--bad", "keep"],
    )  # fmt: skip
    assert cli.find_verb(["plans", "--split", "test"]) == ("plans", ["--split", "test"])
    assert cli.find_verb(["plans"]) == ("plans", [])


def test_a_misspelt_second_word_is_refused_with_the_choices(capsys):
    assert cli.main(["plans", "aply-review"]) == 2
    assert "no verb 'plans aply-review'; choose from plans, plans merge, plans apply-review" in (
        capsys.readouterr().err
    )
