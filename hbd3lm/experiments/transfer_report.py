"""Transfer, told: identity of frozen plans, the curve, differences, their sentences and figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.experiments.results import Column, Table
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    difference_estimate,
    mcnemar,
    ratio_estimate,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hbd3lm.experiments.transfer import Measured

# -- what the rest rests on ------------------------------------------------------------------


def seen_findings(unseen: np.ndarray) -> list[str]:
    """How many test problems the source has seen; ``unseen``: [problems] bool."""
    if unseen.all():
        return []
    return [
        f"{int((~unseen).sum())} of {len(unseen)} test problems are among the source's, word for "
        "word: they are left out of all that follows but the identity of plans."
    ]


def identity_table(identity: Sequence[dict[str, Any]]) -> Table:
    """A row a frozen model: how much of its plans is the source's to the bit."""
    return Table(
        "identity",
        "Frozen plan modules against the model they come from, on the target's test problems",
        [
            Column("model"),
            Column("tensors of the plan module, all equal to the bit", 0),
            Column("bounds of gold plans, equal to the last bit"),
            Column("own plans, equal"),
            Column("own plans, equal, sampled together with executions"),
        ],
        [
            [
                row["model"],
                row["weights"],
                f"{row['bounds_equal']} of {row['bounds']}",
                f"{row['plans_equal']} of {row['plans']}",
                f"{row['plans_equal_beside_executions']} of {row['plans']}",
            ]
            for row in identity
        ],
        "Sampled together with executions, a batch has other shapes, and sums another order.",
    )


def identity_findings(identity: Sequence[dict[str, Any]]) -> list[str]:
    """What freezing kept, over all frozen models; none if there are none."""
    if not identity:
        return []
    plans = sum(row["plans"] for row in identity)
    return [
        f"Freezing keeps its promise: in {len(identity)} frozen models the plan module's weights, "
        f"the bounds of {sum(row['bounds'] for row in identity)} gold plans and {plans} sampled "
        "plans are those of the source models to the bit."
    ]


# -- comparison ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """An arm less the first one, at one size: share of right answers, strict."""

    arm: str
    size: int
    accuracy: Estimate
    only_first: int
    only_other: int
    p: tuple[float, ...]


def find_differences(curves: dict, first: str, sizes: Sequence[int]) -> list[Difference]:
    """Every other arm less ``first``, at each of ``sizes``; ``curves``: models by (arm, size)."""
    found = []
    for (name, size), models in curves.items():
        if name == first or size not in sizes:
            continue
        mine, others = (
            np.stack([m.correct() for m in group]) for group in (curves[first, size], models)
        )
        tests = [mcnemar(a, b) for a, b in zip(mine, others)]
        # Without a problem that divides them there is nothing to resample: no interval.
        divided = any(test.only_first or test.only_second for test in tests)
        found.append(
            Difference(
                name,
                size,
                difference_estimate(others, mine) if divided else Estimate(0.0),
                sum(test.only_first for test in tests),
                sum(test.only_second for test in tests),
                tuple(test.p for test in tests),
            )
        )
    return found


def _rate(models: Sequence[Measured], segment: str) -> Estimate | None:
    """Nats a token; None for a model without the segment."""
    if segment not in models[0].nats:
        return None
    nats = np.stack([m.nats[segment] for m in models])
    found = ratio_estimate(nats, np.stack([m.tokens[segment] for m in models]))
    return replace(found, is_bound=models[0].is_bound)


def curve_table(curves: dict[tuple[str, int], list[Measured]]) -> Table:
    """A row an arm and size: right answers and nats a token, by (arm, size)."""
    return Table(
        "transfer",
        "The target's test problems, by number of target problems learned from; 95 % intervals",
        [
            Column("model"),
            Column("target problems", 0),
            Column("right, strict", "share"),
            Column("right, flexible", "share"),
            Column("execution, nats a token", 3),
            Column("plan, nats a token", 3),
        ],
        [
            [
                name,
                size,
                *(
                    accuracy_estimate(np.stack([m.correct(kind) for m in models]))
                    for kind in ("strict", "flexible")
                ),
                _rate(models, "execution"),
                _rate(models, "plan"),
            ]
            for (name, size), models in sorted(curves.items(), key=lambda item: item[0][1])
        ],
        "≤ marks an upper bound (NELBO), other nats are exact. The execution's are given the "
        "question and the gold plan; of flat models, the question alone: these two are not to be "
        "compared. A source model has seen no target problem. Intervals resample problems and "
        "seeds; the problems to learn from are the same for all, the first of the file.",
    )


def difference_table(differences: Sequence[Difference], first: str) -> Table:
    """A row a difference from the arm ``first``, with the tests of its seeds."""
    return Table(
        "differences",
        f"Right answers (strict) less those of {first}, the same problems and seeds",
        [
            Column("model"),
            Column("target problems", 0),
            Column("difference", "share"),
            Column(f"only {first} right", 0),
            Column("only this right", 0),
            Column("McNemar's p, a seed each"),
        ],
        [
            [
                d.arm,
                d.size,
                d.accuracy,
                d.only_first,
                d.only_other,
                ", ".join(Column("", "p").text(p) for p in d.p),
            ]
            for d in differences
        ],
        "McNemar's exact test compares two models; it says nothing of other seeds, the interval "
        "does.",
    )


def difference_findings(differences: Sequence[Difference], first: str) -> list[str]:
    """A sentence a difference: better, worse or neither, as its interval says."""
    sentences = []
    for d in differences:
        low, high = d.accuracy.low, d.accuracy.high
        if not d.only_first and not d.only_other:
            sentences.append(
                f"{d.size} target problems: none is right for only one of {d.arm} and {first}."
            )
            continue
        if low > 0:
            verdict = "is better"
        elif high < 0:
            verdict = "is worse"
        else:
            verdict = "is not measurably different"
        sentences.append(
            f"{d.size} target problems: {d.arm} {verdict} than {first} "
            f"({100 * d.accuracy.value:+.1f} points, 95 % {100 * low:+.1f} to {100 * high:+.1f})."
        )
    return sentences


# -- figure ----------------------------------------------------------------------------------

_COLORS = {"frozen": "#0072B2", "frozen_execution": "#56B4E9", "all": "#D55E00",
           "scratch": "#E69F00", "flat": "#009E73", "flat_scratch": "#CC79A7"}  # fmt: skip


def draw(figure: Figure, curves: dict[tuple[str, int], list[Measured]]) -> None:
    """Right answers and the execution's nats over the number of target problems."""
    left, right = figure.subplots(1, 2)
    _lines(left, curves, lambda ms: accuracy_estimate(np.stack([m.correct() for m in ms])))
    left.set_ylabel("right answers, strict")
    left.set_title("Answers to the target's problems")
    left.set_ylim(0, None)
    planners = {key: models for key, models in curves.items() if "plan" in models[0].nats}
    _lines(right, planners, lambda ms: _rate(ms, "execution"))
    bound = any(models[0].is_bound for models in planners.values())
    right.set_ylabel("nats a token" + " (NELBO)" * bound)
    right.set_title("Execution, given the gold plan")
    for axes in (left, right):
        axes.set_xlabel("target problems learned from")
    left.legend()


def _lines(axes, curves: dict, value: Callable[[list[Measured]], Estimate]) -> None:
    """A line an arm, with intervals; source models as dotted lines at their level."""
    sizes = sorted({size for _, size in curves if size})
    names = dict.fromkeys(name for name, _ in curves)
    spread = np.linspace(0.97, 1.03, len(names))  # so that intervals do not hide each other
    for name, shift in zip(names, spread):
        if name.startswith("source-"):
            color = _COLORS["all" if name == "source-separate" else "flat"]
            level = value(curves[name, 0]).value
            axes.axhline(level, color=color, linestyle=":", linewidth=1, label=name)
            continue
        found = [value(curves[name, size]) for size in sizes]
        means = np.array([e.value for e in found])
        errors = np.array([[e.value - e.low, e.high - e.value] for e in found]).T
        axes.errorbar(
            np.array(sizes) * shift, means, np.maximum(errors, 0), color=_COLORS[name],
            marker="o", capsize=2, label=name,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.set_xlim(sizes[0] / 1.5, sizes[-1] * 1.5)
    axes.minorticks_off()
