"""Values as questions and solutions write them, and the marks that stand for them in a line."""

from __future__ import annotations

import re
from fractions import Fraction

# The value found stands in the marked line as one character: plain, money or percent.
PLAIN, CASH, SHARE = "\ue010", "\ue011", "\ue012"
MARK = f"[{PLAIN}{CASH}{SHARE}]"

FIGURE = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?"


def read_figure(text: str) -> Fraction | None:
    """The value of ``$1,200``, ``20%`` (20) or ``3/4``; ``None`` if it is none."""
    text = re.sub(r"[$£€,%\s]", "", text)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None
