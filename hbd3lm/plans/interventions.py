"""Plans changed on purpose: to see whether an execution follows the plan it is given.

Every change is checked by the code that reads plans (``plans/semantics.py``, ``plans/numbers.py``):
a plan whose operations cannot be exchanged in words, or that names no given quantity, gives None
and is left out by whoever compares, never passed on unchanged.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from hbd3lm.plans.numbers import (
    cardinal_value,
    find_numbers,
    find_spelled_numbers,
    number_value,
)
from hbd3lm.plans.rules.givens import read_givens
from hbd3lm.plans.semantics import GOAL_FIRST, GOAL_LAST, plan_key, plan_operations

EXCHANGED = {"add": "subtract", "subtract": "add", "multiply": "divide", "divide": "multiply"}
"""What :func:`swap_operations` makes of each operation; a share of something stays one."""

# --- another problem's plan ---------------------------------------------------------------------


def shuffle_plans(plans: Sequence[str], seed: int = 0) -> list[int]:
    """For every problem the index of the problem whose plan it is given instead of its own.

    A permutation without fixed points, random but for this: as few as possible are given a plan
    with the same text, then as few as possible one with the same operations (in any order).

    Raises:
        ValueError: fewer than two plans.
    """
    from scipy.optimize import linear_sum_assignment

    n = len(plans)
    if n < 2:
        raise ValueError("one plan cannot be exchanged with another problem's")
    cost = np.random.default_rng([seed, n]).random((n, n))
    keys = [(" ".join(sorted(plan_operations(plan))), plan_key(plan)) for plan in plans]
    operations, texts = (np.unique(column, return_inverse=True)[1] for column in zip(*keys))
    cost += n * (operations[:, None] == operations)
    cost += n**2 * (texts[:, None] == texts)
    np.fill_diagonal(cost, float(n) ** 4)
    return linear_sum_assignment(cost)[1].tolist()


# --- the opposite operations --------------------------------------------------------------------

_SENTENCE = re.compile(r"[^.!?;]*[.!?;]*\s*")
_GOAL_LAST = re.compile(rf",?\s+{GOAL_LAST.pattern}", GOAL_LAST.flags)
# Up to the next operation, the goal having been cut off before.
_REST = r"(?:(?!\s(?:and|then)\s(?:add|subtract|multiply|divide)\b)[^.!?;])+"
_COMMANDS = re.compile(
    rf"\b(?:(?P<plus>add|combine|sum)\s(?P<terms>{_REST})"
    rf"|(?P<minus>subtract|deduct)\s(?P<less>{_REST}?)\sfrom\s(?P<whole>{_REST}))",
    re.IGNORECASE,
)
_LIST = re.compile(r",\s+and\s+|,\s+|\s+and\s+")
_PAIRS = (
    ("multiplied by", "divided by"),
    ("multiply", "divide"),
    ("multiplies", "divides"),
    ("multiplied", "divided"),
    ("multiplying", "dividing"),
    ("multiplication", "division"),
    ("product of", "quotient of"),
    ("sum of", "difference of"),
    ("difference between", "sum of"),
    ("adding", "subtracting"),
    ("adds", "subtracts"),
    ("added to", "subtracted from"),
    ("add", "subtract"),
    ("addition", "subtraction"),
    ("plus", "minus"),
)
_OPPOSITE = {b: a for a, b in reversed(_PAIRS)} | dict(_PAIRS)
_WORDS = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, _OPPOSITE), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)


def swap_operations(plan: str) -> str | None:
    """``plan`` with its operations exchanged: add with subtract, multiply with divide.

    What a step is for ("to find how many are left") stays as it is. None if the plan names no such
    operation, or in words that cannot be exchanged: what :func:`plan_operations` reads in the
    result is exactly the exchanged sequence.

    >>> swap_operations("First, multiply the boxes by the mugs. Then add the gift and the result.")
    'First, divide the boxes by the mugs. Then subtract the result from the gift.'
    """
    swapped = "".join(_swap_sentence(match[0]) for match in _SENTENCE.finditer(plan))
    before = plan_operations(plan)
    expected = tuple(EXCHANGED.get(operation, operation) for operation in before)
    return swapped if expected != before and plan_operations(swapped) == expected else None


def without_purposes(plan: str) -> str | None:
    """``plan`` without what its steps are for, and with the same operations.

    None if no step tells its purpose, or if an operation would go with it.

    >>> without_purposes("First, add the pens and cups to find the total. Then halve it.")
    'First, add the pens and cups. Then halve it.'
    """
    bare = ""
    for match in _SENTENCE.finditer(plan):
        before, clause, after = _around_purpose(match[0])
        clause = clause.lstrip() if before else clause
        kept = clause[:1].upper() + clause[1:] if before else clause
        end = re.search(r"[.!?;]*\s*\Z", after)[0]
        end = end if end == after else end.replace("?", ".")  # it was the purpose that asked
        bare += kept + end if kept.strip() else ""
    same = plan_operations(bare) == plan_operations(plan)
    return bare if bare.strip() and bare != plan and same else None


def _around_purpose(sentence: str) -> tuple[str, str, str]:
    """A sentence as the purpose before its instruction, the instruction, and all behind it."""
    first = GOAL_FIRST.match(sentence)
    start = first.end() if first else 0
    last = _GOAL_LAST.search(sentence, start)
    end = last.start() if last else len(sentence.rstrip().rstrip(".!?;"))
    return sentence[:start], sentence[start:end], sentence[end:]


def _swap_sentence(sentence: str) -> str:
    before, clause, after = _around_purpose(sentence)
    return before + _swap_clause(clause) + after


def _swap_clause(clause: str) -> str:
    result, position = "", 0
    for match in _COMMANDS.finditer(clause):
        result += _swap_words(clause[position : match.start()]) + _swap_command(match)
        position = match.end()
    return result + _swap_words(clause[position:])


def _swap_command(match: re.Match[str]) -> str:
    """``add A, B and C`` is ``subtract B and C from A``; and the reverse."""
    verb = match["plus"] or match["minus"]
    new = "subtract" if match["plus"] else "add"
    new = new.capitalize() if verb[0].isupper() else new
    if match["minus"]:
        return f"{new} {_join([match['whole'], *_LIST.split(match['less'])])}"
    terms = _LIST.split(match["terms"])
    if len(terms) > 1:
        return f"{new} {_join(terms[1:])} from {terms[0]}"
    part, to, whole = match["terms"].partition(" to ")
    return f"{new} {part} from {whole}" if to else f"{new} {part}"


def _swap_words(text: str) -> str:
    def opposite(match: re.Match[str]) -> str:
        word = _OPPOSITE[match[0].lower()]
        return word.capitalize() if match[0][0].isupper() else word

    return _WORDS.sub(opposite, text)


def _join(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# --- numbers in the plan ------------------------------------------------------------------------

_GIVEN = re.compile(r"\bgiven (?=[^\W\d])", re.IGNORECASE)


def inject_numbers(
    plan: str, question: str, change: Callable[[Fraction], Fraction]
) -> tuple[str, list[Fraction]] | None:
    """``plan`` with a number before each quantity it calls given, and these numbers.

    The value is the question's for the quantity of that name, else its quantities in turn, put
    through ``change``. None if the plan calls nothing given, or the question has no quantities.

    >>> plan, question = "Add the given books and the gift.", "Ben has 3 books."
    >>> inject_numbers(plan, question, lambda value: value + 4)
    ('Add the given 7 books and the gift.', [Fraction(7, 1)])
    """
    givens = [(given.name.removeprefix("the "), given.value) for given in read_givens(question)]
    if not givens or not _GIVEN.search(plan):
        return None
    changed: dict[Fraction, Fraction] = {}
    turn, put = 0, []

    def with_number(match: re.Match[str]) -> str:
        nonlocal turn
        named = [value for name, value in givens if plan.startswith(name, match.start())]
        value = named[0] if named else givens[turn % len(givens)][1]
        turn += not named
        written = _write(changed.setdefault(value, change(value)))
        put.append(Fraction(written))  # which may be rounded: it is what an execution can copy
        return f"{match[0]}{written} "

    return _GIVEN.sub(with_number, plan), put


def perturbation(texts: Sequence[str], seed: int) -> Callable[[Fraction], Fraction]:
    """A change of values of a like size to values that occur in none of ``texts``.

    Whole numbers stay whole; others change by whole numbers. All are positive. Numbers in words
    ("twelve") occur as those in digits do, and those that a calculation makes of words, too: the 2
    of "twice" and of "half".
    """
    used = set().union(*map(_values, texts))
    rng = np.random.default_rng([seed, 11])

    def change(value: Fraction) -> Fraction:
        reach = max(10, int(abs(value)))
        candidates = [value + d for d in range(-reach, reach + 1) if d and value + d > 1]
        further = (value + d for d in itertools.count(reach + 1))
        free = [c for c in candidates if c not in used] or [
            next(c for c in further if c not in used)
        ]
        return free[rng.integers(len(free))]

    return change


_FACTORS = (
    "twice doubl hal couple pair", "thrice tripl third", "quadrupl quarter fourth", "fifth",
    "sixth dozen", "seventh", "eighth", "ninth", "tenth",
)  # fmt: skip
"""From 2 on: beginnings of the words in which :func:`find_spelled_numbers` finds a number that is
no cardinal. ("half a dozen" is the only dozen among these.)"""


def _values(text: str) -> set[Fraction]:
    """What the numbers of ``text`` are worth, in digits and in words."""
    found = {number_value(number) for number in find_numbers(text)}
    for phrase in map(str.lower, find_spelled_numbers(text)):
        whole = cardinal_value(phrase)
        if whole is not None:
            found.add(Fraction(whole))
            continue
        parts = map(cardinal_value, re.split(r"[-\s]+", phrase))  # two-thirds, two and a half
        found.update(Fraction(part) for part in parts if part is not None)
        for value, words in enumerate(_FACTORS, start=2):
            if any(word in phrase for word in words.split()):
                found.add(Fraction(value))
    return found


def _write(value: Fraction) -> str:
    """Digits, with at most two decimals: ``3``, ``0.5``, ``0.33``."""
    return f"{float(value):.2f}".rstrip("0").rstrip(".")
