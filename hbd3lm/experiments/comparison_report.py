"""The comparison's tables, sentences and figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.experiments.budget import Budget
from hbd3lm.experiments.comparison_arms import Arm, Contrast, Point, SeedTest, right_answers
from hbd3lm.experiments.race import Speed
from hbd3lm.experiments.results import Column, Table
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    paired_estimate,
    ratio_estimate,
)
from hbd3lm.experiments.study import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# -- tables --------------------------------------------------------------------------------------


def accuracy_table(arms: Sequence[Arm], guess: dict[str, Any]) -> Table:
    """A row an arm: shares of right answers, greedy and by vote; ``guess``: those of guessing."""
    votes = max((len(model.votes) for arm in arms for model in arm.models), default=0)
    rows = []
    for arm in arms:
        voters = arm.votes()
        drawn = vote = None
        if voters:
            # Each voter's votes are one model's: their mean by problem, then over problems.
            single = np.stack([np.mean([right_answers(v) for v in m.votes], 0) for m in voters])
            drawn = accuracy_estimate(single)
            vote = accuracy_estimate(np.stack([model.voted() for model in voters]))
        silent = np.stack(
            [[r["predicted_strict"] is None for r in model.records] for model in arm.models]
        )
        rows.append(
            [
                arm.name,
                accuracy_estimate(arm.right),
                accuracy_estimate(arm.matrix(lambda model: model.right("flexible"))),
                float(silent.mean()),
                *([drawn, vote] if votes else []),
            ]
        )
    extra = [Column("one sample", "share"), Column(f"maj@{votes}", "share")] if votes else []
    note = f"{arms[0].right.shape[1]} problems, {len(arms[0].models)} seed(s)"
    if votes:
        voters = max(len(arm.votes()) for arm in arms)
        note += f"; sampled answers and votes are of {voters} seed(s)"
    return Table(
        "accuracy",
        "Answers right, with 95 % intervals",
        [
            Column("model"),
            Column("greedy, strict", "share"),
            Column("greedy, flexible", "share"),
            Column("no answer line", "share"),
            *extra,
        ],
        rows,
        f"{note}. The best guesser that understands nothing is right in {guess['best']:.1%}.",
    )


def contrast_table(contrasts: Sequence[Contrast], tests: Sequence[SeedTest]) -> Table:
    """A row a pair of arms: the first less the second, in right answers and in nats."""
    rows = []
    for contrast in contrasts:
        mine = [test for test in tests if test.label == contrast.label]
        significant = sum(test.adjusted < 0.05 for test in mine)
        rows.append(
            [
                contrast.label,
                contrast.accuracy,
                f"{significant} of {len(mine)}",
                contrast.nats,
                " - ".join(arm.kind_of_execution for arm in (contrast.first, contrast.second)),
            ]
        )
    return Table(
        "differences",
        "Differences, paired over problems, with 95 % intervals over problems and seeds",
        [
            Column("models"),
            Column("accuracy (greedy, strict)", "share"),
            Column("seeds with p < 0.05"),
            Column("nats a token, execution given question", 4),
            Column("of"),
        ],
        rows,
        "p: exact McNemar test, a seed each, adjusted by Holm for all tests of this study. Nats "
        "are compared as the last column says; where a bound is the larger one, the difference "
        "says nothing of the models.",
    )


def test_table(tests: Sequence[SeedTest]) -> Table:
    """A row a pair of arms and seed: the problems that divide the two models, and p."""
    return Table(
        "mcnemar",
        "McNemar's exact test, seed by seed (greedy, strict)",
        [
            Column("models"),
            Column("seed", 0),
            Column("only the first right", 0),
            Column("only the second right", 0),
            Column("p", "p"),
            Column("p, adjusted (Holm)", "p"),
        ],
        [[t.label, t.seed, t.only_first, t.only_second, t.p, t.adjusted] for t in tests],
    )


def likelihood_table(arms: Sequence[Arm]) -> Table:
    """A row an arm: nats a token of plan and execution, bounds marked as such."""

    def rate(arm: Arm, nats: np.ndarray, segments: Sequence[str], is_bound: bool) -> Estimate:
        tokens = sum(arm.models[0].tokens[name] for name in segments)
        found = ratio_estimate(nats, np.broadcast_to(tokens, nats.shape))
        return Estimate(found.value, found.low, found.high, is_bound)

    rows = []
    for arm in arms:
        bound, has_plan = not arm.models[0].exact, arm.models[0].has_plan
        nats = {
            name: arm.matrix(lambda model, name=name: model.nats[name])
            for name in arm.models[0].nats
        }
        cells: list[Estimate | None] = [None] * 5
        if has_plan:
            cells[0] = rate(arm, nats["plan"], ["plan"], bound)
            cells[1] = rate(arm, nats["execution"], ["execution"], bound)
            cells[2] = rate(arm, nats["all"], ["plan", "execution"], bound)
        for how, values in arm.bounds_of_execution().items():
            column = 4 if how == "own plans" else 3
            cells[column] = rate(arm, values, ["execution"], not arm.exact_of_execution)
        rows.append([arm.name, *cells])
    tokens = {
        name: int(next(arm.models[0].tokens[name] for arm in arms if name in arm.models[0].tokens)
                  .sum())
        for name in ("plan", "execution")
        if any(name in arm.models[0].tokens for arm in arms)
    }  # fmt: skip
    count = " and ".join(f"{n:,} of {name}s" for name, n in tokens.items())
    return Table(
        "likelihood",
        "Nats a token, with 95 % intervals; ≤ marks an upper bound, the others are exact",
        [
            Column("model"),
            Column("plan given question", 4),
            Column("execution given question and gold plan", 4),
            Column("plan and execution given question", 4),
            Column("execution given question", 4),
            Column("the same, by own plans", 4),
        ],
        rows,
        f"The same tokens for all models: {count} (text and end tokens). Execution given question: "
        "models without a plan say it directly; for those with a plan the nats of gold plan and "
        "execution together are an upper bound, and so is the mean over plans the model draws "
        "itself (as far as a plan's text gives its tokens back; a dash: its plans do not end).",
    )


def speed_table(arms: Sequence[Arm], budgets: dict[str, Budget], speeds: dict[str, Speed]) -> Table:
    """A row an arm: what sampling costs. ``budgets`` and ``speeds`` are by arm; an arm that was not
    raced has no speed."""
    rows = []
    for arm in arms:
        speed = [model.scores["speed"] for model in arm.models]
        mine = speeds.get(arm.name)
        rows.append(
            [
                arm.name,
                float(np.mean([one["tokens_per_problem"] for one in speed])),
                float(np.mean([one["network_evaluations_per_problem"] for one in speed])),
                float(np.mean([one["network_evaluations_per_token"] for one in speed])),
                budgets[arm.name].sampling_operations / 1e9,
                mine.tokens if mine else None,
                mine.problems if mine else None,
                mine.relative if mine else None,
            ]
        )
    return Table(
        "speed",
        "Cost of sampling (greedy, a step a token, equal batch)",
        [
            Column("model"),
            Column("tokens a problem", 1),
            Column("network evaluations a problem", 1),
            Column("evaluations a token", 2),
            Column("GFLOP a problem", 2),
            Column("tokens a second", 0),
            Column("problems a second", 1),
            Column("tokens a second, relative", 2),
        ],
        rows,
        "Operations are counted for the gold texts. Speeds are medians with the least and the most "
        "of rounds in which all models took turns in one process; relative to the first model in "
        "the same round.",
    )


def sweep_table(points: Sequence[Point], speeds: dict[str, Speed]) -> Table:
    """A row a point: quality and speed at another block size, number of steps or threshold."""
    return Table(
        "sweeps",
        "Quality over speed: block sizes, steps and thresholds",
        [
            Column("model"),
            Column("seeds", 0),
            Column("greedy, strict", "share"),
            Column("less the arm's, same seeds", "share"),
            Column("evaluations a token", 2),
            Column("tokens a second", 0),
            Column("relative", 2),
            Column("nats a token", 4),
        ],
        [
            [
                p.label,
                p.seeds,
                p.accuracy,
                p.difference,
                p.evaluations,
                speeds[p.label].tokens if p.label in speeds else None,
                speeds[p.label].relative if p.label in speeds else None,
                p.nats,
            ]
            for p in points
        ],
        "Block sizes, steps and thresholds are of the extra seeds only: what they change is told "
        "by the difference from the arm they vary with the same seeds, not by its row. Nats are of "
        "all tokens the model predicts: comparable among models with a plan only; ≤ marks an upper "
        "bound.",
    )


def budget_table(arms: Sequence[Arm], budgets: dict[str, Budget], kind: str) -> Table:
    """A row an arm: what training took. ``kind``: what is equal, ``problems`` or ``operations``."""
    first = budgets[arms[0].name]
    rows = []
    for arm in arms:
        budget = budgets[arm.name]
        # A run that was interrupted knows the seconds of its last part only.
        whole = [m.summary["seconds"] for m in arm.models if m.summary["resumed_from"] is None]
        rows.append(
            [
                arm.name,
                budget.parameters,
                budget.steps,
                budget.problems,
                budget.operations / 1e12,
                budget.operations / first.operations,
                float(np.mean(whole)) if whole else None,
            ]
        )
    return Table(
        "budget",
        f"What the models were trained with (equal {kind})",
        [
            Column("model"),
            Column("parameters", 0),
            Column("steps", 0),
            Column("problems seen", 0),
            Column("TFLOP", 2),
            Column("relative", 2),
            Column("seconds", 0),
        ],
        rows,
        "Operations are counted from shapes, without padding. Seconds are those of the runs, "
        "whatever else the machine did: not comparable unless it did nothing else.",
    )


# -- words ---------------------------------------------------------------------------------------


def setting_sentence(study: Study, arms: Sequence[Arm]) -> str:
    """On how much data and how many seeds the findings rest."""
    cfg = compose(study.base)
    seeds = len(arms[0].models)
    more = "" if seeds > 1 else "; one seed a method says nothing about other seeds"
    return (
        f"{len(arms[0].models[0].records)} problems of {study.problems}, {seeds} seed(s) a method"
        f"{more}. All that follows is about {cfg.model.name} models trained this briefly on these "
        "problems."
    )


def accuracy_finding(contrast: Contrast, tests: Sequence[SeedTest]) -> str:
    """Which of two arms answers more problems rightly, if its interval says so."""
    mine = [test for test in tests if test.label == contrast.label]
    significant = sum(test.adjusted < 0.05 for test in mine)
    d = contrast.accuracy
    a, b = contrast.first.name, contrast.second.name
    if d.low > 0:
        verdict = f"{a} answers more problems rightly than {b}"
    elif d.high < 0:
        verdict = f"{a} answers fewer problems rightly than {b}"
    else:
        verdict = f"between {a} and {b} no difference in right answers can be told"
    return (
        f"{verdict}: {100 * d.value:+.1f} points (95 % {100 * d.low:+.1f} to {100 * d.high:+.1f}); "
        f"McNemar's test, adjusted, finds one in {significant} of {len(mine)} seed(s)."
    )


def likelihood_finding(contrast: Contrast) -> str | None:
    """Which of two arms gives executions more probability, if exact values or bounds can say so."""
    d, (first, second) = contrast.nats, (contrast.first, contrast.second)
    numbers = f"{d.value:+.4f} nats a token (95 % {d.low:+.4f} to {d.high:+.4f})"
    of = "executions given questions"
    if not (d.low > 0 or d.high < 0):
        return f"{of}, {contrast.label}: no difference can be told ({numbers})."
    lower, higher = (first, second) if d.high < 0 else (second, first)
    if higher.exact_of_execution:
        what = "is exact" if lower.exact_of_execution else "is only an upper bound"
        return (
            f"{of}: {lower.name} gives them more probability than {higher.name} ({numbers}; the "
            f"lower value {what}, the higher one is exact)."
        )
    return (
        f"{of}: the value of {lower.name} is lower than that of {higher.name} ({numbers}), but the "
        f"higher one is only an upper bound ({higher.kind_of_execution}), so that this does not "
        "show which model gives them more probability."
    )


def vote_findings(arms: Sequence[Arm]) -> list[str]:
    """Whether a vote helps, a sentence for each arm that has one."""
    found = []
    for arm in arms:
        voters = arm.votes()
        if not voters:
            continue
        voted = np.stack([model.voted() for model in voters])
        greedy = np.stack([model.right() for model in voters])
        d = paired_estimate(voted, greedy)
        word = "neither helps nor hurts measurably"
        if d.low > 0 or d.high < 0:
            word = "helps" if d.low > 0 else "hurts"
        found.append(
            f"{arm.name}: a vote of {len(voters[0].votes)} samples {word}, against one greedy "
            f"answer: {100 * d.value:+.1f} points (95 % {100 * d.low:+.1f} to {100 * d.high:+.1f})."
        )
    return found


# -- figure --------------------------------------------------------------------------------------


def draw(
    figure: Figure,
    arms: Sequence[Arm],
    points: Sequence[Point],
    speeds: dict[str, Speed],
    guess: dict[str, Any],
) -> None:
    """Accuracy and nats of the arms, and quality over speed of all points."""
    from hbd3lm.report.style import CYCLE, MUTED

    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    y = np.arange(len(arms))[::-1]
    color = {arm.name: CYCLE[i % len(CYCLE)] for i, arm in enumerate(arms)}
    for row, arm in zip(y, arms):
        _bar(left, row, accuracy_estimate(arm.right), color[arm.name], "o")
        voters = arm.votes()
        if voters:
            vote = accuracy_estimate(np.stack([model.voted() for model in voters]))
            left.plot(vote.value, row - 0.25, "*", color=color[arm.name], markersize=9)
        for how, nats in arm.bounds_of_execution().items():
            tokens = np.broadcast_to(arm.models[0].tokens["execution"], nats.shape)
            estimate = ratio_estimate(nats, tokens)
            place = row - 0.25 if how == "own plans" else row
            filled = arm.exact_of_execution
            _bar(middle, place, estimate, color[arm.name], "o" if filled else "<", filled)
    left.axvline(guess["best"], color=MUTED, linestyle=":", linewidth=1.2)
    names = [arm.name for arm in arms]
    left.set_yticks(y, names)
    left.set_xlim(0, 1)
    left.set_xlabel("share of answers right (strict), 95 % interval")
    left.set_title("● greedy, ★ vote, dotted: guess")
    middle.set_yticks(y, [])
    for axes in (left, middle):
        axes.set_ylim(-0.6, len(arms) - 0.6)
    middle.set_xlim(left=0)
    middle.set_xlabel("nats a token, execution given question")
    middle.set_title("● exact, ◁ upper bound")
    for name in names:
        mine = [p for p in points if p.family == name]
        x = [speeds[p.label].tokens.value if p.label in speeds else 1 / p.evaluations for p in mine]
        for place, p in zip(x, mine):
            low, high = p.accuracy.value - p.accuracy.low, p.accuracy.high - p.accuracy.value
            right.errorbar(
                place,
                p.accuracy.value,
                yerr=[[max(0.0, low)], [max(0.0, high)]],
                fmt="o" if p.label == name else "." if "," in p.label else "s",
                color=color[name],
                label=name if p.label == name else None,
                elinewidth=0.8,
            )
            if p.label != name:
                text = p.label.removeprefix(f"{name}, ").removeprefix(f"{name}-")
                text = text.replace("threshold ", "≥ ")
                right.annotate(text, (place, p.accuracy.value), fontsize=6, xytext=(3, 3),
                               textcoords="offset points", color=color[name])  # fmt: skip
    right.set_xscale("log")
    right.set_xlabel("tokens a second" if speeds else "tokens a network evaluation")
    right.set_ylabel("share of answers right (strict)")
    right.set_ylim(bottom=0)
    right.set_title("Quality over speed")
    right.legend(fontsize=7)


def _bar(axes, y: float, estimate: Estimate, color: str, marker: str, filled: bool = True) -> None:
    low, high = estimate.value - estimate.low, estimate.high - estimate.value
    axes.errorbar(
        estimate.value,
        y,
        xerr=[[max(0.0, low)], [max(0.0, high)]],
        fmt=marker,
        color=color,
        markerfacecolor=color if filled else "white",
        capsize=3,
    )
