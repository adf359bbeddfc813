"""Kinds of arguments that several commands take."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

LARGEST = 2**63 - 1
"""The largest whole number that torch and numpy hold: a seed, a length."""


def whole(least: int, most: int = LARGEST) -> Callable[[str], int]:
    """The kind: a whole number from ``least`` to ``most``, in ASCII digits alone."""

    def read(text: str) -> int:
        is_number = text.isascii() and text.isdigit()
        # Cut where it is too large anyway: int refuses thousands of digits in words of its own.
        number = int(text.lstrip("0")[: len(str(LARGEST)) + 1] or "0") if is_number else -1
        if number < least:
            wanted = f"at least {least}" if least else "0 or more"
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of {wanted}")
        if number > most:
            raise argparse.ArgumentTypeError(f"{text!r} is more than {most}")
        return number

    return read


positive = whole(1)
"""A whole number of at least 1."""
count = whole(0)
"""A whole number of 0 or more; a seed is one."""


def number(text: str) -> float:
    """A number that is neither infinite nor nan, in ASCII characters."""
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return value
