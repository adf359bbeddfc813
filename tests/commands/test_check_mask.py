"""``test_hierarchical_mask.py``: passes on the true rule, and notices every wrong one."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from hbd3lm.commands import check_mask
from hbd3lm.commands.check_mask import brute_force, main
from hbd3lm.errors import UserError
from hbd3lm.model import mask

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = ((3, 4, 6, 2, 3), (2, 4, 4, 1, 4))  # the documented layouts are tests/model/test_mask.py's


@pytest.fixture(autouse=True)
def small_layouts(monkeypatch):
    monkeypatch.setattr(check_mask, "LAYOUTS", SMALL)


def test_brute_force_is_the_hierarchy_by_hand():
    expected = [
        # Q  Pt Pt P0 P0 Et E0
        [1, 0, 0, 0, 0, 0, 0],  # question
        [1, 1, 0, 0, 0, 0, 0],  # plan, noisy, first block
        [1, 0, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0],  # plan, clean
        [1, 0, 0, 1, 1, 0, 0],
        [1, 0, 0, 1, 1, 1, 0],  # execution, noisy
        [1, 0, 0, 1, 1, 0, 1],  # execution, clean
    ]
    assert brute_force(1, 2, 1, 1, 1).astype(int).tolist() == expected


def test_all_checks_pass_and_the_mask_is_drawn(tmp_path, capsys):
    picture = tmp_path / "mask.png"
    flags = ["--question_len", "4", "--plan_len", "8", "--exec_len", "8"]
    blocks = ["--plan_block_size", "4", "--exec_block_size", "2"]
    assert main(["--output_plot", str(picture), *flags, *blocks]) == 0
    out = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in out if line[:4] in ("PASS", "FAIL")] == ["PASS"] * 5
    assert out[-1] == "5 of 5 checks passed"
    assert picture.read_bytes().startswith(b"\x89PNG")


def _sees_own_clean_block(query, key):
    """M_OBC with <= for <: the noisy block could copy its own answer."""
    return (query.document == key.document) & (
        ((query.noisy == key.noisy) & (query.block == key.block))
        | (~key.noisy & (key.block <= query.block))
    )


def _reads_noisy_past(query, key):
    """Forgets that the past must be clean."""
    return (query.document == key.document) & (key.block <= query.block)


def _sees_the_future(query, key):
    """No order of blocks: plan sees execution."""
    return (query.document == key.document) & (
        ((query.noisy == key.noisy) & (query.block == key.block)) | ~key.noisy
    )


def _only_itself(query, key):
    """No past at all."""
    return (
        (query.document == key.document)
        & (query.noisy == key.noisy)
        & (query.block == key.block)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "noticed_by"),
    [
        (_sees_own_clean_block, {"check_rule"}),
        (_reads_noisy_past, {"check_rule", "check_nothing_clean_sees_anything_noisy"}),
        (_sees_the_future, {"check_rule", "check_plan_is_closed_with_shared_modules"}),
        (_only_itself, {"check_rule"}),
    ],
)
def test_a_wrong_rule_is_noticed(rule, noticed_by, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(mask, "may_attend", rule)
    failed = {check.__name__ for check in check_mask.CHECKS if not check().passed}
    assert noticed_by <= failed
    assert main(["--output_plot", str(tmp_path / "mask.png")]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_a_cache_that_loses_a_token_is_noticed(monkeypatch):
    """Keys and values of the past with one entry wrong: the two passes no longer equal one."""
    from hbd3lm.model.transformer import Past

    join = Past.join

    def damaged(self, layer, k, v):
        keys, values = join(self, layer, k, v)
        return keys, torch.cat([torch.zeros_like(values[:, :, :1]), values[:, :, 1:]], 2)

    monkeypatch.setattr(Past, "join", damaged)
    assert not check_mask.check_clean_then_noisy_equals_one_pass().passed


def test_an_execution_that_does_not_matter_would_not_pass_as_a_closed_plan(monkeypatch):
    """The check must have moved something: with equal batches it says so."""
    batch = check_mask._batches("shared")[0]
    monkeypatch.setattr(check_mask, "_batches", lambda modules: (batch, batch))
    assert not check_mask.check_plan_is_closed_with_shared_modules().passed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--plan_len", "10", "--plan_block_size", "4"], "--plan_len 10 is no multiple of"),
        (["--exec_len", "9"], "--exec_len 9 is no multiple of --exec_block_size 16"),
        (["--output_plot", "mask.bmp"], r"must end in \.png"),
        # torch could not count so many, or ran out of memory.
        (["--question_len", str(2**63 - 1)], "9223372036854776575 tokens .* at most 4096"),
        (["--plan_len", "1760"], r"twice --plan_len and --exec_len\), at most 4096"),
    ],
)
def test_bad_flags_are_refused_by_name(flags, message):
    with pytest.raises(UserError, match=message):
        main(flags)


def test_lengths_of_zero_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--question_len", "0"])
    assert "--question_len: '0' is no whole number of at least 1" in capsys.readouterr().err


def test_pytest_finds_nothing_to_collect_in_the_program_at_the_root():
    """Its name is documented and looks like a test file."""
    path = REPOSITORY / "test_hierarchical_mask.py"
    spec = importlib.util.spec_from_file_location("mask_program", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main is main
    assert not [name for name in vars(module) if name.lower().startswith("test")]
