"""Experiment 1: are plans abstract and executions concrete, in the data and in what models write?

Numbers, categories and thresholds are those of the specification, counted by the code that
analyses plan files (``plans/quality.py``). The models' plans and executions are their own samples
for test problems; next to them stand the texts they learned from and the gold texts of the very
same problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.experiments.results import Column, Results, Table
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    difference_estimate,
    mean_estimate,
    ratio_estimate,
)
from hbd3lm.experiments.study import Study
from hbd3lm.plans.quality import CATEGORIES, PlanMetrics, analyze_examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Texts = Sequence[HierarchicalExample]


def run(study: Study) -> Results:
    """Train the arms, sample, and measure them beside the data."""
    runs = [
        study.run(arm, [f"hierarchical.modules={arm}"], seed)
        for arm in study.settings.arms
        for seed in study.seeds
    ]
    sampled = dict(zip((run.name for run in runs), study.each(runs, _train_and_sample)))
    test = study.examples("test")
    sets: dict[str, list[Texts]] = {
        "data, training": [study.examples("train")],
        "data, test": [test],
    }
    correct: dict[str, np.ndarray] = {}
    for arm in study.settings.arms:
        mine = [sampled[run.name][1] for run in runs if run.arm == arm]
        sets[f"own samples, {arm}"] = [_as_examples(records) for records in mine]
        correct[f"own samples, {arm}"] = np.array(
            [[record["correct_strict"] for record in records] for records in mine]
        )
    measured = {
        name: [analyze_examples(texts, resamples=2) for texts in groups]
        for name, groups in sets.items()
    }
    rows = {name: _measure(groups) for name, groups in measured.items()}
    gold = _counts(measured["data, test"])
    return Results(
        tables=[
            _numbers_table(rows, correct),
            _category_table(measured),
            _threshold_table(measured, rows),
        ],
        draw=lambda figure: _draw(figure, rows, measured),
        findings=[
            sentence
            for name in correct
            for sentence in _findings(name, rows[name], _counts(measured[name]), gold)
        ],
        records=[{"model": run.name, **record} for run in runs for record in sampled[run.name][1]],
        runs=runs,
        modes=("train", "sample_eval"),
    )


def _train_and_sample(run: Run) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    run.train()
    return run.sample()


def _as_examples(records: Sequence[dict[str, Any]]) -> list[HierarchicalExample]:
    names = HierarchicalExample.__slots__
    return [HierarchicalExample(*(record[name] for name in names)) for record in records]


def _counts(metrics: Sequence[PlanMetrics]) -> dict[str, np.ndarray]:
    """Per text, [seeds, problems]."""
    return {
        "plan": np.stack([m.plan.numbers for m in metrics]),
        "execution": np.stack([m.execution.numbers for m in metrics]),
        "spelled": np.stack([m.plan.spelled for m in metrics]),
        "empty": np.stack([~m.plan.filled for m in metrics]),
    }


def _measure(metrics: Sequence[PlanMetrics]) -> dict[str, Estimate]:
    counts = _counts(metrics)
    free = (counts["plan"] == 0) & ~counts["empty"]
    return {
        "plan": mean_estimate(counts["plan"]),
        "spelled": mean_estimate(counts["spelled"]),
        "execution": mean_estimate(counts["execution"]),
        "ratio": ratio_estimate(counts["execution"], counts["plan"]),
        "free": accuracy_estimate(free),
    }


def _numbers_table(rows: dict[str, dict[str, Estimate]], correct: dict[str, np.ndarray]) -> Table:
    return Table(
        "numbers",
        "Numbers in plans and executions, with 95 % intervals",
        [
            Column("texts"),
            Column("numbers a plan", 3),
            Column("in words", 3),
            Column("numbers an execution", 2),
            Column("exec/plan ratio", 1),
            Column("plans without numbers", "share"),
            Column("answers right (strict)", "share"),
        ],
        [
            [
                name,
                row["plan"],
                row["spelled"],
                row["execution"],
                row["ratio"],
                row["free"],
                accuracy_estimate(correct[name]) if name in correct else None,
            ]
            for name, row in rows.items()
        ],
        "Intervals resample problems and seeds together. The ratio is that of sums; inf: no plan "
        "(of these, or of a resample) holds a number.",
    )


def _category_table(measured: dict[str, Sequence[PlanMetrics]]) -> Table:
    labels = [category.label for category in CATEGORIES]
    rows = []
    for name, metrics in measured.items():
        found = np.concatenate([np.array(m.labels) for m in metrics])
        rows.append([name, *(float((found == label).mean()) for label in labels)])
    return Table(
        "categories",
        "Plans by category",
        [Column("texts"), *(Column(label, "share") for label in labels)],
        rows,
        "Empty plans are in no category.",
    )


def _threshold_table(
    measured: dict[str, Sequence[PlanMetrics]], rows: dict[str, dict[str, Estimate]]
) -> Table:
    titles = [
        f"{v.threshold.label} {v.threshold.sign} "
        + (f"{v.threshold.limit:.0%}" if v.threshold.unit == "share" else f"{v.threshold.limit:g}")
        for v in next(iter(measured.values()))[0].verdicts
    ]
    return Table(
        "thresholds",
        "Thresholds of the specification, models that keep them",
        [Column("texts"), *(Column(title) for title in titles)],
        [
            [
                name,
                *(
                    f"{sum(m.verdicts[i].passed for m in metrics)} of {len(metrics)}"
                    for i in range(len(titles))
                ),
            ]
            for name, metrics in measured.items()
        ],
    )


def _findings(
    name: str,
    row: dict[str, Estimate],
    own: dict[str, np.ndarray],
    gold: dict[str, np.ndarray],
) -> list[str]:
    more = difference_estimate(own["plan"], gold["plan"])
    if more.low > 0:
        verdict = "more numbers than the gold plans of the same problems"
    elif more.high < 0:
        verdict = "fewer numbers than the gold plans of the same problems"
    else:
        verdict = "no measurable difference in numbers from the gold plans of the same problems"
    return [
        f"{name}: {verdict} ({more.value:+.3f} a plan, 95 % {more.low:+.3f} to {more.high:+.3f}); "
        f"{_ratio_in_words(row['ratio'])}."
    ]


def _ratio_in_words(ratio: Estimate) -> str:
    """What is known of the exec/plan ratio, and whether it is above 3."""
    if math.isnan(ratio.value):
        return "neither plans nor executions hold a number, so that there is no exec/plan ratio"
    if math.isinf(ratio.value):
        return "no plan holds a number, so that the exec/plan ratio has no bound in these texts"
    if math.isnan(ratio.low):
        return f"the exec/plan ratio is {ratio.value:.1f}, of too few texts to say how sure that is"
    to = "up" if math.isinf(ratio.high) else f"to {ratio.high:.1f}"
    kept = "above 3 beyond doubt" if ratio.low > 3 else "not above 3 beyond doubt"
    return f"the exec/plan ratio is {ratio.value:.1f} (from {ratio.low:.1f} {to}), {kept}"


def _draw(
    figure: Figure,
    rows: dict[str, dict[str, Estimate]],
    measured: dict[str, Sequence[PlanMetrics]],
) -> None:
    from hbd3lm.report.style import COLORS

    left, right = figure.subplots(1, 2, width_ratios=[1, 1.2])
    names = list(rows)
    y = np.arange(len(names))[::-1]
    for offset, part in ((0.15, "plan"), (-0.15, "execution")):
        values = [rows[name][part] for name in names]
        means = np.array([v.value for v in values])
        spread = np.array([[v.value - v.low, v.high - v.value] for v in values]).T.clip(min=0)
        left.barh(y + offset, means, 0.3, xerr=spread, color=COLORS[part], label=part)
    left.set_yticks(y, names)
    left.set_xlabel("numbers a text, 95 % interval")
    left.set_title("Plans name quantities, executions numbers")
    left.legend()
    start = np.zeros(len(names))
    shades = ("#0072B2", "#56B4E9", "#E69F00", "#D55E00")
    for category, shade in zip(CATEGORIES, shades):
        share = np.array(
            [
                np.mean([np.mean([label == category.label for label in m.labels]) for m in group])
                for group in measured.values()
            ]
        )
        right.barh(y, share, 0.5, left=start, color=shade, label=category.label)
        start += share
    right.set_yticks(y, [])
    right.set_xlim(0, 1)
    right.set_xlabel("share of plans")
    right.set_title("Categories")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=2, fontsize=8)
