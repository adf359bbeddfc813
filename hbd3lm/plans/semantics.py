"""What plans say, beyond digits: whose words, how varied, and which operations in which order.

Four questions a count of digits cannot answer: are numbers hidden in words, are the plan's words
the solution's, are hundreds of plans the same sentence, and do the plan's operations agree with
those the solution carries out? All is read off the examples themselves.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from hbd3lm.data.annotations import strip_annotations
from hbd3lm.plans.numbers import count_spelled_numbers
from hbd3lm.plans.rules.expressions import Expression, Number, Sum
from hbd3lm.plans.rules.planner import MAX_CHARACTERS
from hbd3lm.plans.rules.steps import parse_steps
from hbd3lm.plans.wording import word_set

# A fraction or percentage of something: a product or a quotient, the plan does not say which.
SCALE = "scale"
_SHARES = {
    SCALE: frozenset({("multiply",), ("divide",), ("multiply", "divide"), ("divide", "multiply")})
}

# --- operations of a solution ------------------------------------------------------------------


def solution_operations(execution: str) -> tuple[str, ...]:
    """The operations a solution carries out, in the order of their evaluation.

    They are read off the kept annotations of a line (``<<48/2=24>>``), else off its visible
    calculations (``48/2 = 24``). Operations of one kind within one expression count once, however
    many operands they join, as a plan names them once: ``5+10+14`` is one ``add``,
    ``80/100*10`` is ``multiply, divide``, ``2 + 3*4`` is ``multiply, add``. Empty if no
    calculation can be read.

    >>> solution_operations("He has 2*3 = 6, then 6 - 1 = 5.")
    ('multiply', 'subtract')
    """
    found: list[str] = []
    for expression in parse_steps(execution[:MAX_CHARACTERS]):
        found += _expression_operations(expression)
    return tuple(found)


def _expression_operations(expression: Expression) -> list[str]:
    if isinstance(expression, Number):
        return []
    is_sum = isinstance(expression, Sum)
    parts = expression.terms if is_sum else expression.factors
    inner = [kind for _, part in parts for kind in _expression_operations(part)]
    up = sum(positive for positive, _ in parts)
    if up > 1:
        inner.append("add" if is_sum else "multiply")
    if up < len(parts):
        inner.append("subtract" if is_sum else "divide")
    return inner


# --- operations of a plan ----------------------------------------------------------------------

# Words that tell to do something. Those that only describe a quantity ("total", "remaining",
# "per", "difference") are no instructions: "multiply ... to find the total" is one operation.
_INSTRUCTIONS = {
    "add": r"add(?:s|ed|ing)?|addition|sum(?:s|med|ming)?|plus|combin(?:e|es|ed|ing)",
    "subtract": r"subtract(?:s|ed|ing|ion)?|minus|deduct(?:s|ed|ing)?|take[ ]away"
    r"|differences?(?=[ ](?:of|between)\b)",
    "multiply": r"multipl(?:y|ies|ied|ying|ication)|times|product"
    r"|doubl(?:e|es|ed|ing)(?![-\s]check)|tripl(?:e|es|ed|ing)|quadrupl(?:e|es|ed|ing)",
    "divide": r"divid(?:e|es|ed|ing)|division|split(?:s|ting)?|quotient|halv(?:e|es|ed|ing)",
    SCALE: r"(?:fractions?|percentages?|percent|portion)[ ]of",
}
_INSTRUCTION = re.compile(
    r"\b(?:" + "|".join(f"(?P<{kind}>{words})" for kind, words in _INSTRUCTIONS.items()) + r")\b",
    re.IGNORECASE,
)
# Operands that are results themselves are worked out before the operation that takes them.
_OPERAND = re.compile(r"(?:sum|difference|product|quotient)s?\s(?:of|between)\b", re.IGNORECASE)
_QUESTION = re.compile(r"\?[\s\"')]*\Z")
_CLAUSE = re.compile(r"(?<=[.!?;])\s+|\n+|,?\s+(?:and\s+)?then\s+", re.IGNORECASE)
GOAL = r"to\s+(?:find|get|determine|calculate|compute|obtain|see|know|learn|figure|answer)\b"
# What a step is for is not done in it: "to find the sum, ..." before, "... to find the sum" after.
GOAL_FIRST = re.compile(rf"^\W*(?:\w+,?\s+)?{GOAL}[^,]*,", re.IGNORECASE)
GOAL_LAST = re.compile(rf"\b{GOAL}.*", re.IGNORECASE | re.DOTALL)


def plan_operations(plan: str) -> tuple[str, ...]:
    """The operations a plan tells to do, in order: ``OPERATIONS`` and ``"scale"``.

    ``"scale"`` is a share of something ("take the given percentage of the price"), which may be a
    product, a quotient or both. What a step is for does not count ("... to find how many times"),
    nor do questions, nor words that only describe ("total", "remaining", "per"). Equal operations
    that follow each other within one step are one, as in :func:`solution_operations`; a share
    beside "multiply" or "divide" is that operation. "Add the product of" multiplies first.

    >>> plan_operations("First, multiply the hours by the rate. Then add the tip to get the sum.")
    ('multiply', 'add')
    """
    found: list[str] = []
    for clause in _CLAUSE.split(plan[:MAX_CHARACTERS]):
        clause = GOAL_LAST.sub("", GOAL_FIRST.sub("", clause))
        if _QUESTION.search(clause):
            continue
        step: list[str] = []
        for match in _INSTRUCTION.finditer(clause):
            kind = match.lastgroup
            if step and step[-1] != kind and _OPERAND.match(clause, match.start()):
                step.insert(len(step) - 1, kind)
                continue
            if step and (step[-1] == kind or {step[-1], kind} <= {SCALE, "multiply", "divide"}):
                if step[-1] == SCALE:
                    step[-1] = kind
                elif kind not in (SCALE, step[-1]):
                    step.append(kind)
                continue
            step.append(kind)
        found += step
    return tuple(found)


# --- agreement ---------------------------------------------------------------------------------


def operation_distance(plan: Sequence[str], solution: Sequence[str]) -> int:
    """Fewest operations to insert, delete or replace until ``plan`` reads as ``solution``.

    A ``"scale"`` of the plan reads as ``multiply``, ``divide`` or both, in either order.

    >>> operation_distance(("scale", "add"), ("multiply", "divide", "add"))
    0
    >>> operation_distance(("add", "divide"), ("add", "multiply", "divide"))
    1
    """
    table = np.zeros((len(plan) + 1, len(solution) + 1), dtype=np.int64)
    table[:, 0], table[0, :] = range(len(plan) + 1), range(len(solution) + 1)
    for i, said in enumerate(plan, start=1):
        readings = _SHARES.get(said, {(said,)})
        for j in range(1, len(solution) + 1):
            best = min(table[i - 1, j], table[i, j - 1], table[i - 1, j - 1]) + 1
            for reading in readings:
                size = len(reading)
                if size <= j and tuple(solution[j - size : j]) == reading:
                    best = min(best, table[i - 1, j - size])
            table[i, j] = best
    return int(table[-1, -1])


def same_operations(plan: Sequence[str], solution: Sequence[str]) -> bool:
    """Whether both hold the same operations equally often, in any order.

    >>> same_operations(("add", "multiply"), ("multiply", "add"))
    True
    """
    said, done = Counter(plan), Counter(solution)
    if any(said[kind] != done[kind] for kind in ("add", "subtract")):
        return False
    missing = [done[kind] - said[kind] for kind in ("multiply", "divide")]
    return min(missing) >= 0 and max(missing) <= said[SCALE] <= sum(missing)


@dataclass(frozen=True)
class Agreement:
    """How one plan's operations compare with its solution's.

    Attributes:
        plan, solution: the sequences.
        exact: the same operations in the same order (distance 0).
        same: the same operations in any order.
        similarity: 1 - distance / length of the longer sequence: 1 exact, 0 nothing in common.
    """

    plan: tuple[str, ...]
    solution: tuple[str, ...]
    exact: bool
    same: bool
    similarity: float


def compare_operations(said: tuple[str, ...], done: tuple[str, ...]) -> Agreement | None:
    """The agreement of a plan's and a solution's operations; None if either has none."""
    if not said or not done:
        return None
    distance = operation_distance(said, done)
    similarity = 1 - distance / max(len(said), len(done))
    return Agreement(said, done, distance == 0, same_operations(said, done), similarity)


# --- words -------------------------------------------------------------------------------------

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Words without a subject of their own; sharing them says nothing.
STOP_WORDS = word_set(
    "a an and are as at be been by did do does each for from had has have he her his how i if in "
    "into is it its many more much of on or per she than that the their them then there they this "
    "to was we were what when which who will with you your"
)


def content_words(text: str) -> list[str]:
    """The words of ``text`` in lower case, without :data:`STOP_WORDS` and without figures.

    >>> content_words("Find the 3 Apples she had.")
    ['find', 'apples']
    """
    return [word for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


def plan_key(plan: str) -> str:
    """What two plans that say the same share: their words and figures, case and signs aside.

    >>> plan_key("Add the two.  Then STOP!") == plan_key("add the two, then stop")
    True
    """
    return " ".join(re.findall(r"\w+", plan.lower()))


@dataclass(frozen=True)
class Diversity:
    """How varied the plans of a set are. Blank plans are left out.

    Attributes:
        plans, distinct: plans, and distinct ones by :func:`plan_key`.
        repeated: plans whose key another plan shares.
        largest: how many plans share the most frequent key, and its text.
        entropy: of the keys, in bits, over its greatest value log2(plans): 1 all distinct, 0 all
            the same; NaN for fewer than two plans.
        distinct_1, distinct_2: distinct words / words and distinct word pairs / word pairs of the
            whole set (Li et al., 2016); they fall as the set grows: compare sets of a size.
        openings: distinct first five words / plans.
    """

    plans: int
    distinct: int
    repeated: int
    largest: tuple[int, str]
    entropy: float
    distinct_1: float
    distinct_2: float
    openings: float


def measure_diversity(plans: Iterable[str]) -> Diversity:
    """The :class:`Diversity` of ``plans``."""
    plans = [plan for plan in plans if plan.strip()]
    keys = [plan_key(plan) for plan in plans]
    counts = Counter(keys)
    words = [key.split() for key in keys]
    shares = np.array(list(counts.values())) / max(len(keys), 1)
    bits = float(-(shares * np.log2(shares)).sum()) if len(keys) > 1 else math.nan
    key, most = counts.most_common(1)[0] if counts else ("", 0)
    return Diversity(
        plans=len(plans),
        distinct=len(counts),
        repeated=sum(count for count in counts.values() if count > 1),
        largest=(most, plans[keys.index(key)] if most else ""),
        entropy=abs(bits) / math.log2(len(keys)) if len(keys) > 1 else math.nan,
        distinct_1=_distinct(word for text in words for word in text),
        distinct_2=_distinct(pair for text in words for pair in pairwise(text)),
        openings=_distinct(tuple(text[:5]) for text in words),
    )


def _distinct(items: Iterable[Any]) -> float:
    items = list(items)
    return len(set(items)) / len(items) if items else math.nan


# --- the whole set -----------------------------------------------------------------------------


class Example(Protocol):
    """What is read of an example."""

    id: str
    plan: str
    execution: str


@dataclass(frozen=True, eq=False)
class Semantics:
    """Everything :func:`analyze_semantics` measures.

    Attributes:
        ids: of the examples, in order.
        spelled: numbers in words of each plan, int [examples].
        shared: share of each plan's content words that its solution holds too, [examples]; NaN
            where the plan has none.
        repeats: how many plans of the set share each plan's key, itself included; 0 if blank.
        said, done: operations of each plan and each solution; empty where none could be read.
        agreements: of each example; None where plan or solution names no operation.
        diversity: of the set.
    """

    ids: tuple[str, ...]
    spelled: np.ndarray
    shared: np.ndarray
    repeats: np.ndarray
    said: tuple[tuple[str, ...], ...]
    done: tuple[tuple[str, ...], ...]
    agreements: tuple[Agreement | None, ...]
    diversity: Diversity

    def agreement(self, name: str) -> float:
        """Mean of ``exact``, ``same`` or ``similarity`` over the compared; NaN if none was."""
        values = [getattr(found, name) for found in self.agreements if found is not None]
        return float(np.mean(values)) if values else math.nan

    @property
    def compared(self) -> int:
        """Examples whose plan and solution both name an operation."""
        return sum(found is not None for found in self.agreements)

    @property
    def shared_mean(self) -> float:
        """Mean of ``shared`` over the plans that have content words; NaN if none has."""
        return float(np.nanmean(self.shared)) if (~np.isnan(self.shared)).any() else math.nan

    def to_dict(self) -> dict[str, Any]:
        """The aggregates as plain numbers; NaN where nothing could be measured."""
        return {
            "plans_with_spelled_numbers": int((self.spelled > 0).sum()),
            "plan_words_in_solution": self.shared_mean,
            "diversity": {
                "plans": self.diversity.plans,
                "distinct": self.diversity.distinct,
                "repeated": self.diversity.repeated,
                "most_frequent": {
                    "count": self.diversity.largest[0],
                    "plan": self.diversity.largest[1],
                },
                "entropy": self.diversity.entropy,
                "distinct_1": self.diversity.distinct_1,
                "distinct_2": self.diversity.distinct_2,
                "distinct_openings": self.diversity.openings,
            },
            "operation_agreement": {
                "solutions_with_readable_calculations": sum(map(bool, self.done)),
                "plans_that_name_operations": sum(map(bool, self.said)),
                "compared": self.compared,
                "exact": self.agreement("exact"),
                "same_in_any_order": self.agreement("same"),
                "similarity": self.agreement("similarity"),
            },
        }


def analyze_semantics(examples: Iterable[Example]) -> Semantics:
    """Measure words, variety and operations of the plans of ``examples``."""
    examples = list(examples)
    plans = [example.plan for example in examples]
    keys = [plan_key(plan) if plan.strip() else None for plan in plans]
    counts = Counter(keys)
    said = tuple(plan_operations(plan) for plan in plans)
    done = tuple(solution_operations(example.execution) for example in examples)
    return Semantics(
        ids=tuple(example.id for example in examples),
        spelled=np.array([count_spelled_numbers(plan) for plan in plans], dtype=np.int64),
        shared=np.array([shared_words(e.plan, e.execution) for e in examples]),
        repeats=np.array([counts[key] if key is not None else 0 for key in keys], dtype=np.int64),
        said=said,
        done=done,
        agreements=tuple(map(compare_operations, said, done)),
        diversity=measure_diversity(plans),
    )


def shared_words(plan: str, execution: str) -> float:
    """Share of the plan's content words (repetitions counted) that the execution holds too.

    NaN for a plan without any.

    >>> shared_words("Add the apples.", "She has 2+3 = 5 apples.")
    0.5
    """
    words = content_words(plan)
    known = set(content_words(strip_annotations(execution)))
    return sum(word in known for word in words) / len(words) if words else math.nan
