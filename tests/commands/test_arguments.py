"""Numbers on the command line: what is none is refused in words."""

from __future__ import annotations

import argparse

import pytest

from hbd3lm.commands.arguments import count, positive


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
