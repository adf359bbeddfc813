"""Experiment 4, first question: what executions do under plans that were changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hbd3lm.experiments.mechanism import (
    GOLD,
    PLANS,
    Arm,
    Material,
    agreement,
    holds_any,
    verdicts,
)
from hbd3lm.experiments.results import Column, Table
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    holm,
    mcnemar,
    mean_estimate,
    paired_estimate,
    ratio_estimate,
)

if TYPE_CHECKING:
    from matplotlib.figure import SubFigure

PUBLISHED = (
    "Published for other models and data, not measured here: in Think First, Diffuse Fast (arXiv "
    "2603.13243) plans of the wrong strategy cost 16 points, plans with perturbed numbers 1."
)


class PlanRow:
    """One plan given to one arm, on the problems that have such a plan."""

    def __init__(self, name: str, models: Arm, gold: Mapping[str, str]) -> None:
        self.name = name
        self.ids = list(models[0].given[name])
        self.right = verdicts(models, name, self.ids, "correct_strict")
        self.flexible = verdicts(models, name, self.ids, "correct_flexible")
        self.gold = verdicts(models, GOLD, self.ids, "correct_strict")
        self.nats = np.array([[m.nats[name][i] for i in self.ids] for m in models])
        self.gold_nats = np.array([[m.nats[GOLD][i] for i in self.ids] for m in models])
        self.is_bound = models[0].is_bound
        self.tokens = np.array([[m.tokens[i] for i in self.ids] for m in models])
        done = [[m.given[name][i] for m in models] for i in self.ids]
        self.agrees = _judge([[(r["plan"], r["execution"]) for r in row] for row in done])
        self.agrees_gold = _judge([[(gold[r["id"]], r["execution"]) for r in row] for row in done])
        self.follows, self.follows_gold = (
            None if found is None else found == 1 for found in (self.agrees, self.agrees_gold)
        )
        self.p = self.adjusted = None
        if name != GOLD and self.ids:
            # Every seed's models are tested apart; the least certain of them counts.
            self.p = max(mcnemar(a, b).p for a, b in zip(self.right, self.gold))

    @property
    def difference(self) -> Estimate | None:
        """Accuracy minus that of the gold plan: the same models, the same problems."""
        return None if self.name == GOLD else paired_estimate(self.right, self.gold)

    @property
    def measurable(self) -> bool:
        """Whether both the interval and the adjusted test tell the difference from none."""
        found = self.difference
        certain = found is not None and (found.low > 0 or found.high < 0)
        return certain and self.adjusted is not None and self.adjusted < 0.05


def _judge(pairs: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray | None:
    """Agreement of plans and executions [problems, seeds]: [seeds, problems].

    Only problems for which every seed's plan names operations; None if there are none.
    """
    table = [[agreement(*pair) for pair in row] for row in pairs]
    defined = [row for row in table if None not in row]
    return np.array(defined).T if defined else None


def plan_rows(models: Arm, material: Material) -> dict[str, PlanRow]:
    """A row a kind of plan that some problem has, by name; p adjusted (Holm) over all."""
    gold = {example.id: example.plan for example in material.examples}
    rows = {name: PlanRow(name, models, gold) for name in PLANS if models[0].given[name]}
    tested = [row for row in rows.values() if row.p is not None]
    for row, adjusted in zip(tested, holm([row.p for row in tested])):
        row.adjusted = adjusted
    return rows


def accuracy_table(plans: Mapping[str, Mapping[str, PlanRow]]) -> Table:
    """A row an arm and plan: right answers and nats of the gold execution, less the gold plan's."""
    rows = []
    for arm, found in plans.items():
        for row in found.values():
            changed = row.name != GOLD
            rows.append(
                [
                    arm,
                    PLANS[row.name],
                    len(row.ids),
                    accuracy_estimate(row.right),
                    accuracy_estimate(row.flexible),
                    row.difference,
                    row.adjusted,
                    replace(ratio_estimate(row.nats, row.tokens), is_bound=row.is_bound),
                    ratio_estimate(row.nats - row.gold_nats, row.tokens) if changed else None,
                ]
            )
    return Table(
        "plans",
        "Executions under plans that were changed, with 95 % intervals",
        [
            Column("model"),
            Column("plan given"),
            Column("problems", 0),
            Column("right (strict)", "share"),
            Column("right (flexible)", "share"),
            Column("minus gold plan", "share"),
            Column("p", "p"),
            Column("gold execution, nats a token", 3),
            Column("minus gold plan, nats", 3),
        ],
        rows,
        "Differences are paired over problems and models, on the problems whose plan can be "
        "changed so. p: exact McNemar test against the gold plan, the largest of the seeds', "
        "adjusted for the plans compared (Holm). Nats: negative log-likelihood of the gold "
        f"execution (≤: an upper bound, the same noise for all plans). {PUBLISHED}",
    )


def operation_table(plans: Mapping[str, Mapping[str, PlanRow]]) -> Table:
    """A row an arm and plan: whether executions carry out its operations or the gold plan's."""
    return Table(
        "operations",
        "Which operations executions carry out",
        [
            Column("model"),
            Column("plan given"),
            Column("problems", 0),
            Column("those of the plan given", "share"),
            Column("those of the gold plan", "share"),
            Column("agreement with the plan given", 2),
            Column("agreement with the gold plan", 2),
        ],
        [
            [
                arm,
                PLANS[row.name],
                0 if row.follows_gold is None else row.follows_gold.shape[1],
                None if row.follows is None else accuracy_estimate(row.follows),
                None if row.follows_gold is None else accuracy_estimate(row.follows_gold),
                None if row.agrees is None else mean_estimate(row.agrees),
                None if row.agrees_gold is None else mean_estimate(row.agrees_gold),
            ]
            for arm, found in plans.items()
            for row in found.values()
        ],
        "All of them and in the same order, as read off the calculations and off the plan's "
        "instructions; a share of something may be a product or a quotient. Problems: those whose "
        "gold plan names operations. An execution without a calculation that can be read carries "
        "out none. "
        "Agreement: 1 - operations to insert, delete or replace / length of the longer sequence.",
    )


def number_table(arms: Mapping[str, Arm], material: Material) -> Table:
    """A row an arm and plan: how many executions hold a wrong number that the plan was given."""
    rows = []
    for arm, models in arms.items():
        for name in (GOLD, "right_numbers", "wrong_numbers"):
            ids = [i for i in material.injected if i in models[0].given[name]]
            if ids:
                held = [
                    [holds_any(m.given[name][i], material.injected[i]) for i in ids] for m in models
                ]
                rows.append([arm, PLANS[name], len(ids), accuracy_estimate(np.array(held))])
    return Table(
        "numbers",
        "Are wrong numbers of the plan taken over?",
        [
            Column("model"),
            Column("plan given"),
            Column("problems", 0),
            Column("executions that hold one of the wrong numbers", "share"),
        ],
        rows,
        "The wrong numbers are in neither question nor gold execution; under plans without them "
        "they turn up by chance. The models were trained on plans without numbers.",
    )


def plan_findings(arm: str, rows: Mapping[str, PlanRow]) -> list[str]:
    """What changed plans do to the answers of one arm, and whose operations it carries out."""
    sentences = []
    for row in rows.values():
        found = row.difference
        if found is None or row.adjusted is None:
            continue
        low, high = 100 * found.low, 100 * found.high
        numbers = f"{100 * found.value:+.1f} points, 95 % {low:+.1f} to {high:+.1f}"
        p = "p < 0.001" if row.adjusted < 0.001 else f"p = {row.adjusted:.3f}"
        if not row.measurable:
            verdict = "no difference from the gold plan that can be told from chance"
        else:
            verdict = "fewer right answers" if found.value < 0 else "more right answers"
        sentences.append(f"{arm}, plan {PLANS[row.name]}: {verdict} ({numbers}; {p}).")
    for name in ("swapped", "bare_swapped"):
        if name in rows and rows[name].follows is not None:
            sentences.append(_who_wins(arm, rows[name]))
    return sentences


def _who_wins(arm: str, row: PlanRow) -> str:
    # A swapped plan names operations exactly where the gold plan does.
    gap = paired_estimate(row.follows, row.follows_gold)
    own, gold = (accuracy_estimate(x) for x in (row.follows, row.follows_gold))
    if gap.low > 0:
        verdict = "executions do what the plan says more often than what the gold plan says"
    elif gap.high < 0:
        verdict = "executions do what the gold plan says more often than what their plan says"
    else:
        verdict = "neither the plan given nor the gold plan can be said to win"
    return (
        f"{arm}, plan {PLANS[row.name]}: {verdict} ({own.percent()} carry out the operations of "
        f"the plan given, {gold.percent()} those of the gold plan; difference {gap.percent()})."
    )


# --- figure


def draw_plans(figure: SubFigure, plans: Mapping[str, Mapping[str, PlanRow]]) -> None:
    """Right answers, and shares that carry out the plan's operations, by plan and arm."""
    from hbd3lm.report.style import CYCLE

    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    names = [name for name in PLANS if any(name in rows for rows in plans.values())]
    y = np.arange(len(names))[::-1]
    height = 0.8 / len(plans)
    for k, (arm, rows) in enumerate(plans.items()):
        at = {name: y[i] + 0.4 - (k + 0.5) * height for i, name in enumerate(names)}
        shown = [name for name in names if name in rows]
        _bars(left, [at[n] for n in shown], [rows[n].right for n in shown], height, CYCLE[k], arm)
        told = [n for n in shown if rows[n].follows is not None]
        _bars(right, [at[n] for n in told], [rows[n].follows for n in told], height, CYCLE[k], arm)
        for n in told:
            kept = float(rows[n].follows_gold.mean())
            right.plot(kept, at[n], "|", color="black", markersize=9, markeredgewidth=2)
    left.set_yticks(y, [PLANS[name] for name in names])
    right.set_yticks(y, [])
    for axes, title in (
        (left, "Right answers, by the plan given"),
        (right, "Carry out its operations (| gold plan's)"),
    ):
        axes.set_title(title)
        axes.set_xlim(0, 1)
        axes.set_xlabel("share, 95 % interval")
    left.legend()


def _bars(axes, y, tables: Sequence[np.ndarray], height: float, color: str, label: str) -> None:
    found = [accuracy_estimate(table) for table in tables]
    value = np.array([x.value for x in found])
    spread = np.array([[x.value - x.low, x.high - x.value] for x in found]).T.clip(min=0)
    axes.barh(y, value, 0.9 * height, xerr=spread if found else None, color=color, label=label)
