"""What is wrong with a plan a model wrote: named faults, and which of two attempts is the better.

A plan is judged by what it says, never mended: repair is asking again (:mod:`hbd3lm.plans.ask`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.numbers import (
    cardinal_value,
    count_numbers,
    find_numbers,
    find_spelled_numbers,
    number_value,
)

FAULTS = (
    "error",  # the engine had no answer
    "empty",  # no text
    "cut_off",  # ended by the length limit
    "copied",  # the solution's own words
    "echoed",  # the request's own words
    "answer",  # holds the final answer, in digits or words
    "numbers",  # more numbers in digits than allowed
    "too_short",
    "too_long",
)

COPIED_SHARE = 0.7
"""Copied: at least this share of the plan's word 4-grams (or of the solution's) is in the other.

Numbers do not count as words, so blanking them hides nothing. Of the 7,473 plans by ``rules`` on
GSM8K train 13 reach it."""

ECHOED_SHARE = 0.1
"""Echoed: at least this share of the plan's word 4-grams is in what the request says of plans.

A small model that is told "a plan was refused because it contained numbers" writes that down, and a
judge of numbers alone is content."""

_NGRAM, _FEWEST_NGRAMS = 4, 4
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Limits:
    """What a plan may be. Defaults: no digit, as the rules say; about two to four sentences.

    Plans by ``rules`` on GSM8K train have 7 to 109 words, half of them 60 or fewer.
    """

    max_numbers: int = 0
    min_words: int = 8
    max_words: int = 120

    def __post_init__(self) -> None:
        for name in ("max_numbers", "min_words"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} {getattr(self, name)}: 0 or more is needed")
        if self.max_words < max(1, self.min_words):
            raise UserError(
                f"--max_words {self.max_words}: at least --min_words ({self.min_words}), and 1, "
                "is needed"
            )


def judge(
    plan: str,
    problem: Problem,
    limits: Limits,
    finished: bool = True,
    error: str | None = None,
    instructions: str = "",
) -> tuple[str, ...]:
    """The faults of a plan, of :data:`FAULTS` and in that order; none: it is good.

    Args:
        plan: cleaned text.
        problem: whose plan it is.
        limits: what is allowed.
        finished: False if the length limit ended it.
        error: why the engine gave no answer.
        instructions: what requests say of plans in general, rules and refusals.
    """
    if error is not None:
        return ("error",)
    words = len(plan.split())
    if not _WORD.search(plan):
        return ("empty",) if finished else ("empty", "cut_off")
    found = {
        "cut_off": not finished,
        "copied": _is_copied(plan, problem.solution),
        "echoed": _is_echoed(plan, instructions),
        "answer": _holds_answer(plan, problem.answer),
        "numbers": count_numbers(plan) > limits.max_numbers,
        "too_short": words < limits.min_words,
        "too_long": words > limits.max_words,
    }
    return tuple(fault for fault in FAULTS if found.get(fault))


def badness(plan: str, faults: tuple[str, ...]) -> tuple[int, ...]:
    """Sorts attempts at one problem, the best first: any text before none, then what leaks
    least, then what is whole."""
    return (
        int("error" in faults or "empty" in faults),
        int("answer" in faults),
        int("copied" in faults or "echoed" in faults),
        count_numbers(plan) if "numbers" in faults else 0,
        int("cut_off" in faults),
        int("too_short" in faults or "too_long" in faults),
    )


def _holds_answer(plan: str, answer: str) -> bool:
    gold = {number_value(number) for number in find_numbers(answer)[:1]}
    digits = {number_value(number) for number in find_numbers(plan)}
    words = {cardinal_value(phrase) for phrase in find_spelled_numbers(plan)}
    return bool(gold & (digits | words))


def _is_copied(plan: str, solution: str) -> bool:
    mine, theirs = _ngrams(plan), _ngrams(re.sub(r"<<.*?>>|^####.*", "", solution, flags=re.M))
    smaller = min(len(mine), len(theirs))
    return smaller >= _FEWEST_NGRAMS and len(mine & theirs) >= COPIED_SHARE * smaller


def _is_echoed(plan: str, instructions: str) -> bool:
    mine = _ngrams(plan)
    return bool(mine) and len(mine & _said(instructions)) >= ECHOED_SHARE * len(mine)


@functools.lru_cache(maxsize=8)
def _said(instructions: str) -> frozenset[tuple[str, ...]]:
    return frozenset().union(*map(_ngrams, instructions.splitlines()))


def _ngrams(text: str) -> set[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return set(zip(*(words[offset:] for offset in range(_NGRAM))))
