"""Two plan sets side by side: differences of means and shares with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.json_values import json_ready
from hbd3lm.plans.bootstrap import percentile_interval, resampled_means
from hbd3lm.plans.numbers import count_numbers
from hbd3lm.plans.quality import CATEGORIES, FEW_NUMBERS, PlanMetrics, analyze_examples
from hbd3lm.plans.semantics import Semantics, analyze_semantics


@dataclass(frozen=True, eq=False)
class PlanSet:
    """Examples and what was measured on them."""

    examples: Sequence[HierarchicalExample]
    metrics: PlanMetrics
    semantics: Semantics


def measure_plans(examples: Sequence[HierarchicalExample], seed: int = 0) -> PlanSet:
    """Both analyses of ``examples``.

    Raises:
        UserError: there are no examples.
    """
    return PlanSet(examples, analyze_examples(examples, seed=seed), analyze_semantics(examples))


# --- one value an example ----------------------------------------------------------------------

# Values are floats, NaN where an example has none (a blank plan, an answer without a number, ...).
_Values = Callable[[PlanSet], np.ndarray]


def _count(name: str) -> _Values:
    return lambda plans: _where(getattr(plans.metrics.plan, name), plans.metrics.plan.filled)


def _where(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    return np.where(defined, values.astype(float), math.nan)


def _agreement(name: str) -> _Values:
    def values(plans: PlanSet) -> np.ndarray:
        found = plans.semantics.agreements
        return np.array([math.nan if one is None else float(getattr(one, name)) for one in found])

    return values


def _leaks(plans: PlanSet) -> np.ndarray:
    leaked = set(plans.metrics.leakage.answer_ids)
    checked = np.array([count_numbers(e.answer_numerical) > 0 for e in plans.examples])
    return _where(np.array([e.id in leaked for e in plans.examples]), checked)


def _abstract(plans: PlanSet) -> np.ndarray:
    plan = plans.metrics.plan
    return (plan.filled & (plan.numbers + plan.spelled <= FEW_NUMBERS)).astype(float)


def _few(plans: PlanSet) -> np.ndarray:
    plan = plans.metrics.plan
    return (plan.filled & (plan.numbers <= FEW_NUMBERS)).astype(float)


_SHARE, _MEAN = "share", "mean"
_MEASURES: tuple[tuple[str, str, str, _Values], ...] = (
    ("numbers", "numbers in digits a plan", _MEAN, _count("numbers")),
    ("spelled_numbers", "numbers in words a plan", _MEAN, _count("spelled")),
    ("operations", "operations a plan", _MEAN, _count("total_operations")),
    ("words", "words a plan", _MEAN, _count("words")),
    ("sentences", "sentences a plan", _MEAN, _count("sentences")),
    (
        "too_concrete",
        "plans with >5 numbers",
        _SHARE,
        lambda p: (p.metrics.plan.numbers >= CATEGORIES[-1].low).astype(float),
    ),
    ("few_numbers", "plans with 0-2 numbers", _SHARE, _few),
    ("abstraction_rate", "plans with 0-2 numbers, words counted", _SHARE, _abstract),
    ("empty", "plans without text", _SHARE, lambda p: (~p.metrics.plan.filled).astype(float)),
    ("answer_leakage", "final answer in the plan", _SHARE, _leaks),
    ("words_in_solution", "plan words found in the solution", _SHARE, lambda p: p.semantics.shared),
    (
        "repeated",
        "plans that another problem shares",
        _SHARE,
        lambda p: _where(p.semantics.repeats > 1, p.metrics.plan.filled),
    ),
    ("names_operations", "plans that name operations", _SHARE,
     lambda p: np.array([float(bool(said)) for said in p.semantics.said])),
    ("operations_exact", "operations as in the solution, in order", _SHARE, _agreement("exact")),
    ("operations_same", "operations as in the solution, any order", _SHARE, _agreement("same")),
    ("operations_similarity", "similarity of the operations", _MEAN, _agreement("similarity")),
)  # fmt: skip


# --- the comparison ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """One measure of both sets.

    Attributes:
        key, label: its name for programs and for people.
        unit: ``share`` (to be shown in percent) or ``mean``.
        this, other: the value of either set, over ``counts`` examples; NaN if it has none.
        difference: this - other, with its bootstrap 95% interval ``low`` to ``high``.
    """

    key: str
    label: str
    unit: str
    this: float
    other: float
    difference: float
    low: float
    high: float
    counts: tuple[int, int]

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """Two plan sets, measure by measure.

    Attributes:
        paired: whether the differences are taken problem by problem.
        common: problems (id and question) that both sets hold.
        only_this, only_other: problems of one set alone; left out if ``paired``.
        seed: of the bootstrap.
        rows: one for each measure.
    """

    paired: bool
    common: int
    only_this: int
    only_other: int
    seed: int
    rows: tuple[Difference, ...]

    @property
    def method(self) -> str:
        """How the intervals were made, in a sentence."""
        if self.paired:
            left = self.only_this + self.only_other
            rest = f"; {left:,} problems of one file alone are left out" if left else ""
            return f"paired bootstrap over the {self.common:,} problems of both files{rest}"
        return (
            f"unpaired bootstrap: the files share {self.common:,} problems (id and question), "
            "less than half of the smaller one"
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for strict JSON: ``null`` for what is undefined."""
        return json_ready(
            {
                "paired": self.paired,
                "method": self.method,
                "common": self.common,
                "only_this": self.only_this,
                "only_other": self.only_other,
                "bootstrap_seed": self.seed,
                "measures": {row.key: {**asdict(row), "clear": row.clear} for row in self.rows},
            }
        )


def compare_plans(
    this: PlanSet, other: PlanSet, *, seed: int = 0, resamples: int = 2000
) -> Comparison:
    """Compare two plan sets.

    Paired by id and question where both hold at least half of the smaller set's problems: then
    every value is that of the common problems for which both sets have one, and what makes
    problems differ cancels out. Else the sets are resampled independently of each other.
    """
    places = {(e.id, e.question): index for index, e in enumerate(other.examples)}
    pairs = [
        (index, places[e.id, e.question])
        for index, e in enumerate(this.examples)
        if (e.id, e.question) in places
    ]
    paired = 2 * len(pairs) >= min(len(this.examples), len(other.examples))
    rows = []
    for position, (key, label, unit, measure) in enumerate(_MEASURES):
        ours, theirs = measure(this), measure(other)
        generator = np.random.default_rng([seed, position])
        if paired:
            ours, theirs = ours[[i for i, _ in pairs]], theirs[[j for _, j in pairs]]
            both = ~(np.isnan(ours) | np.isnan(theirs))
            ours, theirs = ours[both], theirs[both]
        else:
            ours, theirs = ours[~np.isnan(ours)], theirs[~np.isnan(theirs)]
        rows.append(
            Difference(
                key,
                label,
                unit,
                *_difference(ours, theirs, paired, generator, resamples),
                counts=(len(ours), len(theirs)),
            )
        )
    common = len(pairs)
    return Comparison(
        paired, common, len(this.examples) - common, len(other.examples) - common, seed, tuple(rows)
    )


def _difference(
    ours: np.ndarray,
    theirs: np.ndarray,
    paired: bool,
    generator: np.random.Generator,
    resamples: int,
) -> tuple[float, float, float, float, float]:
    """Both means, their difference and its interval."""
    means = [float(values.mean()) if len(values) else math.nan for values in (ours, theirs)]
    if not len(ours) or not len(theirs):
        return (*means, math.nan, math.nan, math.nan)
    if paired:
        samples = resampled_means(ours - theirs, generator, resamples)
    else:
        samples = resampled_means(ours, generator, resamples)
        samples = samples - resampled_means(theirs, generator, resamples)
    return (*means, means[0] - means[1], *percentile_interval(samples))
