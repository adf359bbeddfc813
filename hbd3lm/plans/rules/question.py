"""What a question asks for, and the plan of a problem of which nothing else is known."""

from __future__ import annotations

import re

from hbd3lm.plans.rules.givens import read_givens
from hbd3lm.plans.rules.operations import list_names
from hbd3lm.plans.wording import tidy, without_numbers

_ASKS = re.compile(
    r"\b(?:how (?:many|much|old|long|far|tall|fast|big|wide|high|heavy|often)|what|which|"
    r"calculate|find)\b.*",
    re.IGNORECASE,
)


def question_focus(question: str) -> str:
    """The question's own last interrogative without its numbers, or ""."""
    sentences = re.split(r"(?<=[.!?])\s+", question.strip())
    asked = [s for s in sentences if s.endswith("?")] or sentences[-1:]
    text = asked[-1] if asked else ""
    match = _ASKS.search(text)
    if not match:
        return ""
    text = without_numbers(match[0]).rstrip(" .?!")
    words = text.split()
    if not words or len(words) > 22:
        return ""
    return f"{words[0].lower()} {' '.join(words[1:])}?"


def to_answer(question: str) -> str:
    """The end of an imperative whose result is the answer."""
    focus = question_focus(question)
    return f" to answer: {focus}" if focus else " to answer the question"


def plan_from_question(question: str) -> str:
    """Without a solution only the question is left: name the givens and the goal."""
    focus = question_focus(question)
    names = list(dict.fromkeys(given.name for given in read_givens(question)))[:4]
    start = f"Start from {list_names(names)}." if names else "Start from the given amounts."
    return tidy(
        f"{start} Decide which operation links them, step by step, to answer"
        + (f": {focus}" if focus else " the question.")
    )
