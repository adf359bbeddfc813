"""Experiment 2: plan then execution, against execution alone, next-token models, and MDLM.

All arms see the same problems in the same order, are scored on the same tokens and sampled by the
same engine; they differ in the settings that name them.

What can be compared, and what cannot. Every arm gives a likelihood of the execution, but not of the
same thing. Arms without a plan give p(E|Q). Arms with a plan give p(P|Q), p(E|Q,P) and so
p(P,E|Q); their p(E|Q) is the sum of that over all plans there are, which nobody can take. Two
upper bounds of -log p(E|Q) can be had: -log p(P,E|Q) for the gold plan P, one term of the sum; and
the mean of -log p(E|Q,P) over plans P that the model draws itself (Jensen's inequality). Where the
arm's likelihood is a NELBO, all of these are bounds once more. A bound that is lower than another
model's exact value settles the matter; one that is higher settles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.commands.overrides import override_value
from hbd3lm.errors import UserError
from hbd3lm.experiments import comparison_report as report
from hbd3lm.experiments.budget import find_budgets
from hbd3lm.experiments.comparison_arms import (
    Arm,
    Contrast,
    Measured,
    Point,
    Records,
    SeedTest,
    right_answers,
)
from hbd3lm.experiments.race import Contestant, race
from hbd3lm.experiments.results import Results
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.statistics import (
    accuracy_difference_estimate,
    accuracy_estimate,
    holm,
    mcnemar,
    paired_estimate,
    rate_difference_estimate,
    ratio_estimate,
)
from hbd3lm.experiments.study import Study

if TYPE_CHECKING:
    from omegaconf import DictConfig

VOTERS_SEED = 1000
"""Sample i of the vote has the seed of its run and so many times i more."""
MOST_PLANS_END = 0.99
"""Plans that run into their cap are cut where they are read again, and then are others."""


def run(study: Study) -> Results:
    """Train all arms with all seeds, measure them, compare them."""
    s = study.settings
    compared = _compared(s)
    arms = {name: list(s.arms[name]) for name in compared}
    blocks = _block_arms(study, compared[0], arms[compared[0]])
    budgets = find_budgets(study, arms | blocks, s.budget)
    equal = s.budget == "problems"
    runs = {
        (name, seed): study.run(
            name,
            (arms | blocks)[name] + ([] if equal else budgets[name].settings),
            seed,
        )
        for names, seeds in ((arms, study.seeds), (blocks, list(s.extra_seeds)))
        for seed in seeds
        for name in names
    }
    measured = dict(zip(runs, study.each(list(runs.values()), _measure)))
    _check_same_tokens({run.name: measured[key] for key, run in runs.items()})
    found = {
        name: Arm(
            name,
            [runs[key] for key in runs if key[0] == name],
            [measured[key] for key in runs if key[0] == name],
        )
        for name in (*arms, *blocks)
    }
    main = [found[name] for name in compared]
    contestants = _contestants(found, compared)
    speeds = race(study, contestants, s.speed_problems, s.speed_rounds) if s.speed_rounds else {}
    contrasts = _contrasts(s, found)
    tests = _tests(contrasts)
    points = _points(found, compared)
    guess = _chance(study)
    return Results(
        tables=[
            report.accuracy_table(main, guess),
            report.contrast_table(contrasts, tests),
            report.test_table(tests),
            report.likelihood_table(main),
            report.speed_table(main, budgets, speeds),
            *([report.sweep_table(points, speeds)] if len(points) > len(main) else []),
            report.budget_table(main + [found[name] for name in blocks], budgets, s.budget),
        ],
        draw=lambda figure: report.draw(figure, main, points, speeds, guess),
        figure_size=(14, 4.8),
        findings=[
            report.setting_sentence(study, main),
            *(report.accuracy_finding(contrast, tests) for contrast in contrasts),
            *(sentence for c in contrasts if (sentence := report.likelihood_finding(c))),
            *report.vote_findings(main),
        ],
        metrics={"chance": guess},
        records=[record for key, run in runs.items() for record in _records(run, measured[key])],
        runs=list(runs.values()),
    )


# -- what is trained and measured ----------------------------------------------------------------


def _compared(s: DictConfig) -> list[str]:
    names = list(s.compared)
    for key in ("compared", "sweep_arms", "majority_arms"):
        unknown = [name for name in s[key] if name not in s.arms]
        if unknown:
            raise UserError(
                f"experiment.{key}: there is no arm {unknown[0]!r}; choose from "
                f"{', '.join(s.arms)}, or add it: "
                f"'+experiment.arms.{unknown[0]}=[\"KEY=VALUE\"]'"
            )
    if not names:
        raise UserError("experiment.compared: at least one arm is needed")
    strange = [seed for seed in s.extra_seeds if seed not in s.seeds]
    if strange:
        raise UserError(
            f"experiment.extra_seeds: {strange[0]} is none of experiment.seeds={list(s.seeds)}"
        )
    return names


def _block_arms(study: Study, first: str, overrides: list[str]) -> dict[str, list[str]]:
    """The first arm with other block sizes; none where there are no seeds to train them with."""
    if not study.settings.extra_seeds:
        return {}
    here = compose([*study.base, *overrides]).block_size
    return {
        f"{first}-block{size}": [*overrides, f"block_size={size}"]
        for size in study.settings.sweep_blocks
        if size != here
    }


def _variations(run: Run) -> dict[str, tuple[str, ...]]:
    """Other ways to sample: label -> settings. So many steps as tokens a block is the default."""
    s, sampling = run.study.settings, compose(run.settings_of("sample_eval")).sampling
    # What the user says of sampling must not win over what the label says.
    by_number = _without_threshold(run)
    if sampling.method == "first_hitting":
        by_number += ("sampling.method=confidence",)
    by_threshold = () if sampling.method == "confidence" else ("sampling.method=confidence",)
    fewer = [n for n in s.sweep_steps if n < _largest_block(run)]
    return {f"steps {n}": (f"sampling.steps={n}", *by_number) for n in fewer} | {
        f"threshold {t}": (f"sampling.threshold={t}", *by_threshold) for t in s.sweep_thresholds
    }


def _without_threshold(run: Run) -> tuple[str, ...]:
    """The setting that takes a threshold back; nothing where the run has none."""
    given = compose(run.settings_of("sample_eval")).sampling.threshold is not None
    return ("sampling.threshold=null",) if given else ()


def _drawn(run: Run) -> tuple[str, ...]:
    """Settings that sample from the model's distribution itself."""
    exactly = ("sampling.method=first_hitting", "sampling.temperature=1", "sampling.top_p=1")
    return (*exactly, *_without_threshold(run))


def _measure(run: Run) -> Measured:
    s = run.study.settings
    summary = run.train()
    likelihood, rows = run.likelihoods()
    scores, records = run.sample()
    names = list(likelihood["segments"])
    found = Measured(
        summary,
        likelihood["kind"] == "exact",
        {name: np.array([row["nats"][name] for row in rows]) for name in names},
        {name: np.array([row["tokens"][name] for row in rows]) for name in names},
        records,
        scores,
    )
    if run.arm not in s.compared:
        return found
    if s.own_plans and found.has_plan:
        # Drawn from p(P|Q) itself, not decoded. The records have the gold execution beside them.
        _, plans = run.sample("own_plans", "plan_only", *_drawn(run))
        if np.mean([record["ended"]["plan"] for record in plans]) >= MOST_PLANS_END:
            path = run.folder / "own_plans" / "samples_plan_only.jsonl"
            _, given = run.likelihoods("given_own_plans", f"data.test_path={override_value(path)}")
            found.own = np.array([row["nats"]["execution"] for row in given])
    if run.seed in s.extra_seeds:
        for i in range(1, (s.majority if run.arm in s.majority_arms else 0) + 1):
            settings = (
                f"sampling.temperature={s.majority_temperature}",
                f"seed={run.seed + VOTERS_SEED * i}",
            )
            found.votes.append(run.sample(f"vote{i}", "full", *settings)[1])
        if run.arm in s.sweep_arms:
            for label, settings in _variations(run).items():
                folder = label.replace(" ", "")
                found.varied[label] = run.sample(folder, "full", *settings)
    return found


def _largest_block(run: Run) -> int:
    from hbd3lm.commands.build import build_layout

    layout = build_layout(compose(run.settings_of("train")))
    return max(segment.block_size for segment in layout.segments)


def _check_same_tokens(models: dict[str, Measured]) -> None:
    """Likelihoods and answers are compared on the same problems and tokens, or not at all."""
    (first, expected), *others = models.items()
    problems = [record["id"] for record in expected.records]
    tokens: dict[str, tuple[str, np.ndarray]] = {}
    for name, model in ((first, expected), *others):
        if [record["id"] for record in model.records] != problems:
            raise UserError(f"{name} and {first} were sampled for different problems")
        for segment in ("plan", "execution"):
            if segment not in model.tokens:
                continue
            other, counts = tokens.setdefault(segment, (name, model.tokens[segment]))
            if not np.array_equal(counts, model.tokens[segment]):
                raise UserError(
                    f"{name} and {other} were scored on different tokens of the {segment}s; give "
                    "all arms the same caps (hierarchical.*_len) and the same tokenizer"
                )


def _chance(study: Study) -> dict[str, Any]:
    from hbd3lm.evaluate.chance import chance_accuracy

    return chance_accuracy(study.examples("train"), study.examples("test")).to_dict()


def _records(run: Run, model: Measured) -> Records:
    """One a problem: what was written, what it cost in nats, how the votes fell."""
    return [
        {
            "model": run.name,
            **record,
            "nats": {name: float(values[i]) for name, values in model.nats.items()},
            "nats_given_own_plan": None if model.own is None else float(model.own[i]),
            "votes": [votes[i]["predicted_strict"] for votes in model.votes],
        }
        for i, record in enumerate(model.records)
    ]


# -- contrasts -----------------------------------------------------------------------------------


def _contrasts(s: DictConfig, arms: dict[str, Arm]) -> list[Contrast]:
    found = []
    for pair in s.contrasts:
        if len(pair) != 2:
            raise UserError(f"experiment.contrasts: {list(pair)} is no pair of arms")
        if not set(pair) <= set(s.compared):
            continue
        first, second = (arms[name] for name in pair)
        nats = [next(iter(arm.bounds_of_execution().values())) for arm in (first, second)]
        found.append(
            Contrast(
                first,
                second,
                accuracy_difference_estimate(first.right, second.right),
                rate_difference_estimate(*nats, first.models[0].tokens["execution"]),
            )
        )
    return found


def _tests(contrasts: Sequence[Contrast]) -> list[SeedTest]:
    keys, tests = [], []
    for contrast in contrasts:
        runs = zip(contrast.first.runs, contrast.first.right, contrast.second.right)
        for run, a, b in runs:
            keys.append((contrast.label, run.seed))
            tests.append(mcnemar(a, b))
    adjusted = holm([test.p for test in tests])
    return [
        SeedTest(*key, test.only_first, test.only_second, test.p, p)
        for key, test, p in zip(keys, tests, adjusted)
    ]


# -- quality over speed ------------------------------------------------------------------------


def _points(arms: dict[str, Arm], compared: Sequence[str]) -> list[Point]:
    """Main arms, block sizes, and the variations; of the extra seeds, but for the main arms.

    So that seeds are not taken for blocks or steps, the others are compared with the same seeds'
    models of the arm they vary: a variation with the very same models' usual answers.
    """
    found = []
    for name, arm in arms.items():
        tokens = sum(arm.models[0].tokens[k] for k in arm.models[0].tokens if k != "all")
        nats = arm.matrix(lambda model: model.nats["all"])
        rate = ratio_estimate(nats, np.broadcast_to(tokens, nats.shape))
        family, difference = name, None
        if name not in compared:
            family, seeds = compared[0], [run.seed for run in arm.runs]
            usual = arms[family].right[[run.seed in seeds for run in arms[family].runs]]
            difference = accuracy_difference_estimate(arm.right, usual)
        found.append(
            Point(
                family,
                name,
                accuracy_estimate(arm.right),
                float(np.mean([_evaluations(m.scores) for m in arm.models])),
                replace(rate, is_bound=not arm.models[0].exact),
                len(arm.models),
                difference,
            )
        )
    for name in compared:
        varied = [model for model in arms[name].models if model.varied]
        for label in varied[0].varied if varied else ():
            right = np.stack([right_answers(model.varied[label][1]) for model in varied])
            usual = np.stack([model.right() for model in varied])
            cost = float(np.mean([_evaluations(model.varied[label][0]) for model in varied]))
            found.append(
                Point(
                    name,
                    f"{name}, {label}",
                    accuracy_estimate(right),
                    cost,
                    seeds=len(varied),
                    difference=paired_estimate(right, usual),
                )
            )
    return found


def _evaluations(scores: dict[str, Any]) -> float:
    return scores["speed"]["network_evaluations_per_token"]


def _contestants(arms: dict[str, Arm], compared: Sequence[str]) -> list[Contestant]:
    """The labels are those of the points."""
    found = [Contestant(name, arm.runs[0]) for name, arm in arms.items()]
    for name in compared:
        for run, model in zip(arms[name].runs, arms[name].models):
            if model.varied:
                found += [Contestant(f"{name}, {k}", run, v) for k, v in _variations(run).items()]
                break
    return found
