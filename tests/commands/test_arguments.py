"""Numbers on the command line: what is none is refused in words."""

from __future__ import annotations

import argparse

import pytest

from hbd3lm.commands.arguments import count, number, positive, whole


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "\u00b2", "\u0663"])
def test_what_is_no_whole_number_is_refused_as_typed(text):
    for kind, least in ((positive, "at least 1"), (count, "0 or more")):
        with pytest.raises(argparse.ArgumentTypeError) as error:
            kind(text)
        assert str(error.value) == f"{text!r} is no whole number of {least}"


def test_zero_is_a_count_but_not_positive():
    assert (count("0"), count("12"), positive("12")) == (0, 12, 12)
    with pytest.raises(argparse.ArgumentTypeError, match="'0' is no whole number of at least 1"):
        positive("0")


@pytest.mark.parametrize("text", [str(2**63), "9" * 30, "1" + "0" * 5000])
def test_what_torch_and_numpy_cannot_hold_is_refused(text):
    """30 digits were an OverflowError in the middle of the work."""
    for kind in (positive, count):
        with pytest.raises(argparse.ArgumentTypeError, match="is more than 9223372036854775807"):
            kind(text)
    assert count("0" * 40 + "7") == 7 and positive(str(2**63 - 1)) == 2**63 - 1
    with pytest.raises(argparse.ArgumentTypeError, match="'65536' is more than 65535"):
        whole(1, 65535)("65536")


@pytest.mark.parametrize("text", ["inf", "-Infinity", "nan", "1e999", "\uff11", "1_0", "x", ""])
def test_what_is_no_finite_number_is_refused_as_typed(text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        number(text)
    assert str(error.value) == f"{text!r} is no finite number"
    assert [number("0.5"), number("-1"), number("1e23")] == [0.5, -1.0, 1e23]
