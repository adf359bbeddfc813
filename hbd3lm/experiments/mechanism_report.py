"""Experiment 4, told: tables, figure and the sentences that the intervals carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.evaluate.attention_mass import GROUPS
from hbd3lm.experiments.mechanism import (
    CHANGES,
    GOLD,
    OWN,
    PLANS,
    Likeness,
    Material,
    Measured,
    agreement,
    holds_any,
    likeness,
    unlike,
)
from hbd3lm.experiments.results import Column, Results, Table
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    holm,
    mcnemar,
    mean_estimate,
    paired_estimate,
    ratio_estimate,
)
from hbd3lm.experiments.study import Run, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

PUBLISHED = (
    "Published for other models and data, not measured here: in Think First, Diffuse Fast (arXiv "
    "2603.13243) plans of the wrong strategy cost 16 points, plans with perturbed numbers 1."
)
Arm = Sequence[Measured]
"""The models of one arm, a seed each."""


def report(
    study: Study, runs: Sequence[Run], material: Material, measured: Sequence[Measured]
) -> Results:
    """Everything that is written of the study."""
    arms: dict[str, list[Measured]] = {}
    for one, found in zip(runs, measured):
        arms.setdefault(one.arm, []).append(found)
    plans = {arm: _plan_rows(models, material) for arm, models in arms.items()}
    looks = {arm: Look(models) for arm, models in arms.items() if models[0].attention}
    invariance = {arm: _invariance_rows(models, material) for arm, models in arms.items()}
    total = len(material.examples)
    return Results(
        tables=[
            _accuracy_table(plans),
            _operation_table(plans),
            _number_table(arms, material),
            _invariance_table(invariance, total, material),
            *([_attention_table(looks)] if looks else []),
        ],
        draw=lambda figure: _draw(figure, plans, looks),
        figure_size=(12, 3.8 + 3.2 * len(looks)),
        findings=[
            *(s for arm, rows in plans.items() for s in _plan_findings(arm, rows)),
            *(s for arm, rows in invariance.items() for s in _invariance_findings(arm, rows)),
            *(s for arm, look in looks.items() for s in _attention_findings(arm, look)),
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


# --- plans given --------------------------------------------------------------------------------


class PlanRow:
    """One plan given to one arm, on the problems that have such a plan."""

    def __init__(self, name: str, models: Arm, gold: Mapping[str, str]) -> None:
        self.name = name
        self.ids = list(models[0].given[name])
        self.right = _verdicts(models, name, self.ids, "correct_strict")
        self.flexible = _verdicts(models, name, self.ids, "correct_flexible")
        self.gold = _verdicts(models, GOLD, self.ids, "correct_strict")
        self.nats = np.array([[m.nats[name][i] for i in self.ids] for m in models])
        self.gold_nats = np.array([[m.nats[GOLD][i] for i in self.ids] for m in models])
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


def _verdicts(models: Arm, name: str, ids: Sequence[str], key: str) -> np.ndarray:
    return np.array([[m.given[name][i][key] for i in ids] for m in models], dtype=float)


def _judge(pairs: Sequence[Sequence[tuple[str, str]]]) -> np.ndarray | None:
    """Agreement of plans and executions [problems, seeds]: [seeds, problems].

    Only problems for which every seed's plan names operations; None if there are none.
    """
    table = [[agreement(*pair) for pair in row] for row in pairs]
    defined = [row for row in table if None not in row]
    return np.array(defined).T if defined else None


def _plan_rows(models: Arm, material: Material) -> dict[str, PlanRow]:
    gold = {example.id: example.plan for example in material.examples}
    rows = {name: PlanRow(name, models, gold) for name in PLANS if models[0].given[name]}
    tested = [row for row in rows.values() if row.p is not None]
    for row, adjusted in zip(tested, holm([row.p for row in tested])):
        row.adjusted = adjusted
    return rows


def _accuracy_table(plans: Mapping[str, Mapping[str, PlanRow]]) -> Table:
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
                    ratio_estimate(row.nats, row.tokens),
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
        "adjusted for the plans compared (Holm). Nats: an upper bound (NELBO) on the negative "
        f"log-likelihood of the gold execution, under the same noise for all plans. {PUBLISHED}",
    )


def _operation_table(plans: Mapping[str, Mapping[str, PlanRow]]) -> Table:
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


def _number_table(arms: Mapping[str, Arm], material: Material) -> Table:
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


def _plan_findings(arm: str, rows: Mapping[str, PlanRow]) -> list[str]:
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
        f"{arm}, plan {PLANS[row.name]}: {verdict} ({_share(own)} carry out the operations of the "
        f"plan given, {_share(gold)} those of the gold plan; difference {_share(gap)})."
    )


def _share(found: Estimate) -> str:
    return f"{found.value:.1%} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


# --- questions changed --------------------------------------------------------------------------


class InvarianceRow:
    """Plans for one change of the questions, beside those for the original questions."""

    def __init__(self, pairs: Sequence[Mapping[str, Likeness]]) -> None:
        self.ids = list(pairs[0])
        one = [[found[i] for i in self.ids] for found in pairs]
        self.identical = np.array([[x.identical for x in row] for row in one], dtype=float)
        self.similarity = np.array([[x.similarity for x in row] for row in one])
        self.operations = np.array([[x.operations for x in row] for row in one], dtype=float)
        self.before = self.after = None


def _invariance_rows(models: Arm, material: Material) -> dict[str, InvarianceRow]:
    rows = {}
    for change in CHANGES:
        if not material.questions[change]:
            continue
        row = rows[change] = InvarianceRow([likeness(m, change, material.names) for m in models])
        if change != "nothing":
            row.before = _verdicts(models, OWN, row.ids, "correct_strict")
            row.after = np.array(
                [[m.asked[change][i]["correct_strict"] for i in row.ids] for m in models],
                dtype=float,
            )
    rows["problem"] = InvarianceRow([unlike(m, material) for m in models])
    return rows


def _invariance_table(
    invariance: Mapping[str, Mapping[str, InvarianceRow]], total: int, material: Material
) -> Table:
    refused = ", ".join(f"{reason} {n}" for reason, n in sorted(material.refused.items()))
    done = len(material.questions["numbers"])
    return Table(
        "invariance",
        "Plans for questions that were changed, beside the plans for the original ones",
        [
            Column("model"),
            Column("changed"),
            Column("problems", 0),
            Column("plans identical", "share"),
            Column("similarity of words", 3),
            Column("same operations", "share"),
            Column("right before", "share"),
            Column("right after", "share"),
            Column("after minus before", "share"),
        ],
        [
            [
                arm,
                CHANGES.get(change, "the problem"),
                len(row.ids),
                accuracy_estimate(row.identical),
                mean_estimate(row.similarity),
                accuracy_estimate(row.operations),
                None if row.before is None else accuracy_estimate(row.before),
                None if row.after is None else accuracy_estimate(row.after),
                None if row.before is None else paired_estimate(row.after, row.before),
            ]
            for arm, rows in invariance.items()
            for change, row in rows.items()
        ],
        "The most probable plan each time; names are changed back before comparing. Other numbers "
        f"come through the annotated solutions: {done} of {total} problems could be given some"
        + (f" (not the others: {refused})." if refused else ".")
        + " What the new numbers mean is not read: some are unlikely.",
    )


def _invariance_findings(arm: str, rows: Mapping[str, InvarianceRow]) -> list[str]:
    sentences = []
    if "numbers" in rows:
        row = rows["numbers"]
        share = accuracy_estimate(row.identical)
        sentences.append(
            f"{arm}: with other numbers in the question {_share(share)} of the plans stay the same "
            f"to the letter, {_share(accuracy_estimate(row.operations))} name the same operations."
        )
        loss = paired_estimate(row.after, row.before)
        verdict = "no change of accuracy that can be told from chance"
        if loss.low > 0 or loss.high < 0:
            verdict = "fewer right answers" if loss.value < 0 else "more right answers"
        sentences.append(f"{arm}, other numbers in the question: {verdict} ({_share(loss)}).")
    if "numbers" in rows and "names" in rows:
        a, b = rows["numbers"], rows["names"]
        both = [i for i in a.ids if i in set(b.ids)]
        if len(both) > 1:
            at = [[row.ids.index(i) for i in both] for row in (a, b)]
            gap = paired_estimate(a.identical[:, at[0]], b.identical[:, at[1]])
            verdict = "change plans as often as other names, as far as can be told"
            if gap.low > 0 or gap.high < 0:
                than = "less" if gap.value > 0 else "more"
                verdict = f"change plans {than} often than other names do"
            sentences.append(
                f"{arm}: other numbers {verdict} (plans kept, numbers minus names: {_share(gap)})."
            )
    return sentences


# --- attention ----------------------------------------------------------------------------------


class Look:
    """Attention of one arm: [seeds, documents, layers, steps, groups]."""

    def __init__(self, models: Arm) -> None:
        self.mass = np.array([m.attention["mass"] for m in models])
        self.uniform = np.array([m.attention["uniform"] for m in models])

    def share(self, group: int) -> Estimate:
        """Mass on a group, mean over layers and steps."""
        return mean_estimate(self.mass[..., group].mean((2, 3)))

    def lift(self, group: int) -> Estimate:
        """Mass over that of looking at all visible tokens alike."""
        mass = self.mass[..., group].mean((2, 3))
        return ratio_estimate(mass, self.uniform[..., group].mean(2))

    def to_dict(self) -> dict[str, Any]:
        mean = self.mass.mean((0, 1))
        return {
            "groups": list(GROUPS),
            "layers_steps_groups": mean.round(5).tolist(),
            "uniform_steps_groups": self.uniform.mean((0, 1)).round(5).tolist(),
        }


def _attention_table(looks: Mapping[str, Look]) -> Table:
    return Table(
        "attention",
        "What the tokens of an execution look at while they are written",
        [
            Column("model"),
            Column("looked at"),
            Column("attention", "share"),
            Column("of visible tokens", "share"),
            Column("attention / share", 2),
            Column("first step", "share"),
            Column("last step", "share"),
        ],
        [
            [
                arm,
                group,
                look.share(i),
                float(look.uniform[..., i].mean()),
                look.lift(i),
                float(look.mass[..., 0, i].mean()),
                float(look.mass[..., -1, i].mean()),
            ]
            for arm, look in looks.items()
            for i, group in enumerate(GROUPS)
        ],
        "Masked tokens of the model's own executions under its own plans, mean over heads, layers "
        "and steps. A step is how many tokens of the block are decided. Attention shows where "
        "information may come from, not that it is used.",
    )


def _attention_findings(arm: str, look: Look) -> list[str]:
    digits, plan, other = (
        look.lift(GROUPS.index(name))
        for name in ("question: digits", "plan", "question: other words")
    )
    gap = [look.mass[..., GROUPS.index(n)].mean((2, 3)) for n in ("question: digits", "plan")]
    compared = mean_estimate(gap[0] - gap[1])
    if compared.low > 0:
        verdict = "more attention goes to the question's digits than to the plan"
    elif compared.high < 0:
        verdict = "more attention goes to the plan than to the question's digits"
    else:
        verdict = "digits of the question and plan get attention alike, as far as can be told"
    parts = ", ".join(
        f"{name} {found.value:.1f} [{found.low:.1f}, {found.high:.1f}]"
        for name, found in (("digits", digits), ("plan", plan), ("other words", other))
    )
    return [f"{arm}: {verdict}; for each visible token, as times the even share: {parts}."]


# --- figure -------------------------------------------------------------------------------------


def _draw(
    figure: Figure,
    plans: Mapping[str, Mapping[str, PlanRow]],
    looks: Mapping[str, Look],
) -> None:
    heights = [3.8] + [3.2] * len(looks)
    top, *rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _draw_plans(top, plans)
    for part, (arm, look) in zip(rows, looks.items()):
        _draw_attention(part, arm, look)


def _draw_plans(figure: SubFigure, plans: Mapping[str, Mapping[str, PlanRow]]) -> None:
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


_SHOWN = ("question: digits", "plan", "question: other words")
_LINES = {
    "question: digits": "#009E73",
    "question: number words": "#56B4E9",
    "question: other words": "#000000",
    "plan": "#0072B2",
    "end tokens and fill": "#999999",
    "earlier execution": "#E69F00",
    "own block": "#D55E00",
}


def _draw_attention(figure: SubFigure, arm: str, look: Look) -> None:
    from hbd3lm.report.style import DENSITY

    mean = look.mass.mean((0, 1))  # [layers, steps, groups]
    axes = figure.subplots(1, len(_SHOWN) + 1, width_ratios=[1] * len(_SHOWN) + [1.7])
    highest = max(mean[..., GROUPS.index(group)].max() for group in _SHOWN)
    for panel, group in zip(axes, _SHOWN):
        image = panel.imshow(
            mean[..., GROUPS.index(group)],
            cmap=DENSITY,
            vmin=0,
            vmax=highest,
            aspect="auto",
            origin="lower",
        )
        panel.grid(False)
        panel.set_title(group, fontsize=10)
        panel.set_xlabel("tokens decided")
        panel.set_yticks(range(len(mean)), range(1, len(mean) + 1))
        panel.set_xticks(range(0, mean.shape[1], max(1, mean.shape[1] // 4)))
    axes[0].set_ylabel(f"{arm}\nlayer")
    figure.colorbar(image, ax=list(axes[:-1]), label="attention", shrink=0.9)
    steps = np.arange(mean.shape[1])
    for i, group in enumerate(GROUPS):
        axes[-1].plot(steps, mean[..., i].mean(0), marker="o", ms=3, label=group, c=_LINES[group])
    axes[-1].set_xlabel("tokens of the block decided")
    axes[-1].set_ylabel("attention, mean of layers")
    axes[-1].set_ylim(0, None)
    axes[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
