"""Experiment 4, told: its three questions put together, with one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hbd3lm.experiments.mechanism import Material, Measured
from hbd3lm.experiments.mechanism_attention import (
    Look,
    attention_findings,
    attention_table,
    draw_attention,
)
from hbd3lm.experiments.mechanism_plans import (
    PlanRow,
    accuracy_table,
    draw_plans,
    number_table,
    operation_table,
    plan_findings,
    plan_rows,
)
from hbd3lm.experiments.mechanism_questions import (
    invariance_findings,
    invariance_rows,
    invariance_table,
)
from hbd3lm.experiments.results import Results
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def report(
    study: Study, runs: Sequence[Run], material: Material, measured: Sequence[Measured]
) -> Results:
    """Everything that is written of the study."""
    arms: dict[str, list[Measured]] = {}
    for one, found in zip(runs, measured):
        arms.setdefault(one.arm, []).append(found)
    plans = {arm: plan_rows(models, material) for arm, models in arms.items()}
    looks = {arm: Look(models) for arm, models in arms.items() if models[0].attention}
    invariance = {arm: invariance_rows(models, material) for arm, models in arms.items()}
    total = len(material.examples)
    return Results(
        tables=[
            accuracy_table(plans),
            operation_table(plans),
            number_table(arms, material),
            invariance_table(invariance, total, material),
            *([attention_table(looks)] if looks else []),
        ],
        draw=lambda figure: _draw(figure, plans, looks),
        figure_size=(12, 3.8 + 3.2 * len(looks)),
        findings=[
            *(s for arm, rows in plans.items() for s in plan_findings(arm, rows)),
            *(s for arm, rows in invariance.items() for s in invariance_findings(arm, rows)),
            *(s for arm, look in looks.items() for s in attention_findings(arm, look)),
        ],
        metrics={
            "problems": total,
            "problems_by_plan": {name: len(found) for name, found in material.plans.items()},
            "renumbered": len(material.questions["numbers"]),
            "not_renumbered": material.refused,
            "attention": {arm: look.to_dict() for arm, look in looks.items()},
        },
        records=list(_records(runs, measured)),
        runs=list(runs),
        modes=("sample_eval",) if study.settings.checkpoint is not None else ("train",),
    )


def _records(runs: Sequence[Run], measured: Sequence[Measured]) -> Any:
    for one, found in zip(runs, measured):
        for kind, sets in (("plan", found.given), ("question", found.asked)):
            for name, records in sets.items():
                for record in records.values():
                    yield {"model": one.name, "changed": kind, "condition": name, **record}


def _draw(
    figure: Figure,
    plans: Mapping[str, Mapping[str, PlanRow]],
    looks: Mapping[str, Look],
) -> None:
    heights = [3.8] + [3.2] * len(looks)
    top, *rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    draw_plans(top, plans)
    for part, (arm, look) in zip(rows, looks.items()):
        draw_attention(part, arm, look)
