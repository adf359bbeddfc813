"""What is refused before a configuration is made of the overrides, and with what hint."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hbd3lm.commands import build
from tests.commands.runs import compose, main
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.max_step=5", "did you mean training.max_steps?"),
        ("trainng.max_steps=5", "did you mean training.max_steps?"),
        ("max_steps=5", "did you mean training.max_steps?"),
        ("blocksize=8", "did you mean block_size?"),
        ("mdoel=tiny", "did you mean model?"),
        ("modle=nano", "did you mean model?"),  # not mode, which is as near
        ("moel=nano", "did you mean model?"),
        ("mdoe=sample", "did you mean mode?"),
        (
            "model=huge",
            "model=huge: there is no such model; choose from medium, nano, pretrained, small, tiny",
        ),
        ("algo=gan", "choose from ar, flat, hierarchical, mdlm"),
        ("training.max_steps", "write KEY=VALUE"),
        (
            "run_dir='it's here'",
            r"""is written 'run_dir="it'"'"'s here"'""",  # as a shell takes it
        ),
        ("++run_dir=a,b]", """is written '++run_dir="a,b]"'"""),
    ],
)
def test_what_is_not_in_the_configuration_is_refused_with_a_suggestion(override, message, capsys):
    assert main(override) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_a_grammar_error_names_the_override_at_fault(capsys):
    """Hydra's own words say what it did not expect, but not where."""
    assert main("training.max_steps=5", "run_dir=a:{b", "seed=1") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: run_dir=a:{b does not fit Hydra's grammar: ")
    assert error.count("\n") == 1 and "max_steps" not in error


@pytest.mark.parametrize(
    "pair",
    [
        ["hierarchical.plan_len=64", "training.hierarchical.plan_len=32"],
        ["training.hierarchical.modules=separate", "hierarchical.modules=shared"],
        ["hierarchical.enabled=true", "training.hierarchical.enabled=false"],
        ["block_size=8", "training.block_size=4"],
        ["hierarchical.plan_len=64", "training.hierarchical={plan_len:32,exec_len:64}"],
        ["hierarchical={plan_len:64}", "++training.hierarchical.plan_len=32"],
    ],
)
def test_two_names_of_one_setting_with_two_values_are_refused_by_both(pair, capsys):
    """The short name used to win in silence."""
    assert main(*pair, "mode=sample") == 1
    error = capsys.readouterr().err
    assert all(override in error for override in pair) and "is the short name of" in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_flags_of_hydra_do_not_lead_around_that_check(tmp_path):
    pair = ["hierarchical.plan_len=64", "training.hierarchical.plan_len=32"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), "--multirun", "mode=sample", *pair],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {pair[0]} contradicts {pair[1]}")


def test_two_names_of_one_setting_with_one_value_are_no_contradiction():
    cfg = compose("hierarchical.plan_len=64", "training.hierarchical.plan_len=64")
    assert build.build_layout(cfg).segments[0].max_len == 64
    # One name each for two settings: what the specification's commands do.
    compose("training.hierarchical.enabled=true", "hierarchical.total_len=384", "block_size=4")
