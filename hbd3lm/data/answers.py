"""Final answers: found in a text the two usual ways, written in one form, compared as numbers.

Decimals only: a float would call 0.1 + 0.2 a wrong answer, and lose digits of long ones.
"""

from __future__ import annotations

import re
from decimal import Decimal

# Digits with thousands commas in the right places, or without any.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_UNSIGNED = rf"(?:{_DIGITS}(?:\.[0-9]+)?|(?<![.0-9])\.[0-9]+)"  # "...5" is no ".5"
_NUMBER = re.compile(rf"([+-]?)\s?\$?\s?([+-]?)({_UNSIGNED})\.?")  # "18."
# In running text a minus belongs to the number only where it is no subtraction ("48-24").
_IN_TEXT = re.compile(rf"(?:(?<![\w.,)%])-\$?|\$-?)?{_UNSIGNED}")
_STRICT = re.compile(r"-?[0-9.,]+")
_MARK = "#### "


def normalize_number(text: str) -> str:
    """The one way we write a number: ``"$1,234.50"`` -> ``"1234.5"``, ``".5"`` -> ``"0.5"``.

    Accepts one sign, a dollar sign and thousands commas; no exponents, percent signs or units.

    Raises:
        ValueError: ``text`` is not a number.
    """
    match = _NUMBER.fullmatch(text.strip().replace("\N{MINUS SIGN}", "-"))
    if match is None or (match[1] and match[2]):
        raise ValueError(f"not a number: {text!r}")
    digits = format(Decimal(match[3].replace(",", "")), "f")  # exact: no context is involved
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    negative = "-" in (match[1], match[2]) and digits != "0"
    return "-" + digits if negative else digits


def strict_answer(text: str) -> str | None:
    """The number right after the last ``"#### "``, normalised; None if there is none.

    The pattern of lm-eval's ``strict-match`` filter for GSM8K, applied to the last mark.
    """
    _, mark, tail = text.rpartition(_MARK)
    match = _STRICT.match(tail) if mark else None
    if match is None:
        return None
    try:
        return normalize_number(match[0].rstrip(".,"))
    except ValueError:  # e.g. "1.2.3"
        return None


def flexible_answer(text: str) -> str | None:
    """The last number anywhere in ``text``, normalised; None if there is none."""
    found = _IN_TEXT.findall(text.replace("\N{MINUS SIGN}", "-"))
    return normalize_number(found[-1]) if found else None


def same_answer(predicted: str | None, gold: str) -> bool:
    """Whether two answers are the same decimal; nothing and non-numbers equal no answer.

    Raises:
        ValueError: ``gold`` is not a number.
    """
    expected = normalize_number(gold)
    try:
        return predicted is not None and normalize_number(predicted) == expected
    except ValueError:
        return False
