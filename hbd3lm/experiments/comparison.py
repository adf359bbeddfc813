"""Experiment 2: plan then execution, against execution alone, next-token models, and MDLM.

All arms see the same problems in the same order, are scored on the same tokens and sampled by the
same engine; they differ in the settings that name them.

What can be compared, and what cannot. Every arm gives a likelihood of the execution, but not of the
same thing. Arms without a plan give p(E|Q). Arms with a plan give p(P|Q), p(E|Q,P) and so
p(P,E|Q); their p(E|Q) is the sum of that over all plans there are, which nobody can take. Two upper
bounds of -log p(E|Q) can be had: -log p(P,E|Q) for the gold plan P, one term of the sum; and the
mean of -log p(E|Q,P) over plans P that the model draws itself (Jensen's inequality). Where the arm's
likelihood is a NELBO, all of these are bounds once more. A bound that is lower than another model's
exact value settles the matter; one that is higher settles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.errors import UserError
from hbd3lm.experiments.budget import Budget, find_budgets
from hbd3lm.experiments.race import Contestant, Speed, race
from hbd3lm.experiments.results import Column, Results, Table
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_estimate,
    difference_estimate,
    holm,
    majority,
    mcnemar,
    rate_difference_estimate,
    ratio_estimate,
)
from hbd3lm.experiments.study import Run, Study, compose

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from omegaconf import DictConfig

Records = list[dict[str, Any]]
VOTERS_SEED = 1000
"""Sample i of the vote has the seed of its run and so many times i more."""


@dataclass
class Measured:
    """All that is known of one trained model.

    Attributes:
        exact: its likelihoods are.
        nats: by segment and ``all``, [problems]; ``execution`` is given the gold plan, if any.
        own: [problems] of the execution given a plan of the model's own.
        records: of its greedy samples.
        scores: what ``sample_eval`` says of these, speed included.
        votes: records of the further samples.
        varied: label -> records and scores of other ways to sample.
    """

    summary: dict[str, Any]
    exact: bool
    nats: dict[str, np.ndarray]
    tokens: dict[str, np.ndarray]
    records: Records
    scores: dict[str, Any]
    own: np.ndarray | None = None
    votes: list[Records] = field(default_factory=list)
    varied: dict[str, tuple[dict[str, Any], Records]] = field(default_factory=dict)

    @property
    def has_plan(self) -> bool:
        return "plan" in self.nats

    def right(self, kind: str = "strict") -> np.ndarray:
        """bool [problems] of the greedy samples."""
        return _right(self.records, kind)

    def voted(self) -> np.ndarray:
        """bool [problems]: the majority of the votes is right."""
        return np.array([_voted_right(samples) for samples in zip(*self.votes)])


@dataclass(frozen=True)
class Arm:
    """A method: its models of several seeds on the same problems."""

    name: str
    runs: list[Run]
    models: list[Measured]

    def matrix(self, of: Callable[[Measured], np.ndarray]) -> np.ndarray:
        """[seeds, problems]."""
        return np.stack([of(model) for model in self.models])

    @property
    def right(self) -> np.ndarray:
        return self.matrix(lambda model: model.right())

    def bounds_of_execution(self) -> dict[str, np.ndarray]:
        """Of -log p(E|Q): how it is had -> nats [seeds, problems]; the lowest first."""
        if not self.models[0].has_plan:
            return {"direct": self.matrix(lambda model: model.nats["execution"])}
        found = {"gold plan": self.matrix(lambda model: model.nats["all"])}
        if all(model.own is not None for model in self.models):
            found["own plans"] = self.matrix(lambda model: model.own)
        return dict(sorted(found.items(), key=lambda item: item[1].mean()))

    @property
    def exact_of_execution(self) -> bool:
        """p(E|Q) itself is known."""
        return self.models[0].exact and not self.models[0].has_plan


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
    contestants = _contestants(s, found, compared)
    speeds = race(study, contestants, s.speed_problems, s.speed_rounds) if s.speed_rounds else {}
    contrasts = _contrasts(s, found)
    tests = _tests(contrasts)
    points = _points(s, found, compared)
    guess = _chance(study)
    return Results(
        tables=[
            _accuracy_table(main, guess),
            _contrast_table(contrasts, tests),
            _test_table(tests),
            _likelihood_table(main),
            _speed_table(main, budgets, speeds),
            *([_sweep_table(points, speeds)] if len(points) > len(main) else []),
            _budget_table(main + [found[name] for name in blocks], budgets, s.budget),
        ],
        draw=lambda figure: _draw(figure, main, points, speeds, guess),
        figure_size=(14, 4.8),
        findings=[
            _setting_sentence(study, main),
            *(_accuracy_finding(contrast, tests) for contrast in contrasts),
            *(sentence for c in contrasts if (sentence := _likelihood_finding(c))),
            *_vote_findings(main),
        ],
        metrics={"chance": guess},
        records=[
            record for key, run in runs.items() for record in _records(run, measured[key])
        ],
        runs=list(runs.values()),
    )


# -- what is trained and measured ----------------------------------------------------------------


def _compared(s: DictConfig) -> list[str]:
    names = list(s.compared)
    unknown = [name for name in (*names, *s.sweep_arms) if name not in s.arms]
    if unknown:
        raise UserError(
            f"experiment.compared, experiment.sweep_arms: there is no arm {unknown[0]!r}; choose "
            f"from {', '.join(s.arms)}, or add it: '+experiment.arms.{unknown[0]}=[\"KEY=VALUE\"]'"
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
    """The first arm with other block sizes."""
    here = compose([*study.base, *overrides]).block_size
    return {
        f"{first}-block{size}": [*overrides, f"block_size={size}"]
        for size in study.settings.sweep_blocks
        if size != here
    }


def _variations(s: DictConfig, largest_block: int) -> dict[str, tuple[str, ...]]:
    """Other ways to sample: label -> settings. So many steps as tokens a block is the default."""
    steps = {f"steps {n}": (f"sampling.steps={n}",) for n in s.sweep_steps if n < largest_block}
    return steps | {f"threshold {t}": (f"sampling.threshold={t}",) for t in s.sweep_thresholds}


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
        exactly = ("sampling.method=first_hitting", "sampling.temperature=1", "sampling.top_p=1")
        run.sample("own_plans", "plan_only", *exactly)
        path = run.folder / "own_plans" / "samples_plan_only.jsonl"
        _, given = run.likelihoods("given_own_plans", f"data.test_path={_quoted(path)}")
        found.own = np.array([row["nats"]["execution"] for row in given])
    if run.seed in s.extra_seeds:
        for i in range(1, s.majority + 1):
            settings = (
                f"sampling.temperature={s.majority_temperature}",
                f"seed={run.seed + VOTERS_SEED * i}",
            )
            found.votes.append(run.sample(f"vote{i}", "full", *settings)[1])
        if run.arm in s.sweep_arms:
            for label, settings in _variations(s, _largest_block(run)).items():
                folder = label.replace(" ", "")
                found.varied[label] = run.sample(folder, "full", *settings)
    return found


def _largest_block(run: Run) -> int:
    from hbd3lm.commands.build import build_layout

    layout = build_layout(compose(run.settings_of("train")))
    return max(segment.block_size for segment in layout.segments)


def _quoted(path) -> str:
    from hbd3lm.commands.run import override_value

    return override_value(str(path))


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


def _right(records: Records, kind: str = "strict") -> np.ndarray:
    return np.array([bool(record[f"correct_{kind}"]) for record in records])


def _voted_right(samples: Sequence[dict[str, Any]]) -> bool:
    from hbd3lm.data.answers import same_answer

    answer = majority([_normal(sample["predicted_strict"]) for sample in samples])
    return same_answer(answer, samples[0]["answer_numerical"])


def _normal(answer: str | None) -> str | None:
    """The same number in one spelling, so that 1,000 and 1000.0 vote for the same."""
    from hbd3lm.data.answers import normalize_number

    return None if answer is None else str(normalize_number(answer))


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


@dataclass(frozen=True)
class Contrast:
    """Two arms, the first minus the second.

    Attributes:
        accuracy: strict.
        nats: a token of the execution given the question, of the better bound each; None where one
            of them has no such likelihood.
    """

    first: Arm
    second: Arm
    accuracy: Estimate
    nats: Estimate

    @property
    def label(self) -> str:
        return f"{self.first.name} - {self.second.name}"


@dataclass(frozen=True)
class Test:
    """Two models of one seed: McNemar's test, p adjusted for all tests of the study."""

    label: str
    seed: int
    only_first: int
    only_second: int
    p: float
    adjusted: float


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
                difference_estimate(first.right, second.right),
                rate_difference_estimate(*nats, first.models[0].tokens["execution"]),
            )
        )
    return found


def _tests(contrasts: Sequence[Contrast]) -> list[Test]:
    keys, tests = [], []
    for contrast in contrasts:
        runs = zip(contrast.first.runs, contrast.first.right, contrast.second.right)
        for run, a, b in runs:
            keys.append((contrast.label, run.seed))
            tests.append(mcnemar(a, b))
    adjusted = holm([test.p for test in tests])
    return [
        Test(*key, test.only_first, test.only_second, test.p, p)
        for key, test, p in zip(keys, tests, adjusted)
    ]


# -- tables --------------------------------------------------------------------------------------


def _accuracy_table(arms: Sequence[Arm], guess: dict[str, Any]) -> Table:
    rows = []
    for arm in arms:
        voters = [model for model in arm.models if model.votes]
        drawn = vote = None
        if voters:
            # Each voter's votes are one model's: their mean by problem, then over problems.
            single = np.stack([np.mean([_right(v) for v in m.votes], 0) for m in voters])
            drawn = ratio_estimate(single, np.ones_like(single))
            vote = accuracy_estimate(np.stack([model.voted() for model in voters]))
        silent = np.stack(
            [[r["predicted_strict"] is None for r in model.records] for model in arm.models]
        )
        rows.append(
            [
                arm.name,
                accuracy_estimate(arm.right),
                accuracy_estimate(arm.matrix(lambda model: model.right("flexible"))),
                drawn,
                vote,
                float(silent.mean()),
            ]
        )
    votes = max((len(model.votes) for arm in arms for model in arm.models), default=0)
    return Table(
        "accuracy",
        "Answers right, with 95 % intervals",
        [
            Column("model"),
            Column("greedy, strict", "share"),
            Column("greedy, flexible", "share"),
            Column("one sample", "share"),
            Column(f"maj@{votes}", "share"),
            Column("no answer line", "share"),
        ],
        rows,
        f"{arms[0].right.shape[1]} problems, {len(arms[0].models)} seed(s); sampled answers and "
        f"votes are of {len([m for m in arms[0].models if m.votes])} seed(s). The best guesser that "
        f"understands nothing is right in {guess['best']:.1%}.",
    )


def _contrast_table(contrasts: Sequence[Contrast], tests: Sequence[Test]) -> Table:
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
                " - ".join(_how(arm) for arm in (contrast.first, contrast.second)),
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


def _how(arm: Arm) -> str:
    how = next(iter(arm.bounds_of_execution()))
    if arm.exact_of_execution:
        return "exact"
    return "NELBO" if how == "direct" else f"bound by {how}"


def _test_table(tests: Sequence[Test]) -> Table:
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


def _likelihood_table(arms: Sequence[Arm]) -> Table:
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
        "itself (as far as a plan's text gives its tokens back).",
    )


def _speed_table(
    arms: Sequence[Arm], budgets: dict[str, Budget], speeds: dict[str, Speed]
) -> Table:
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


@dataclass(frozen=True)
class Point:
    """A model and a way to sample from it: what it costs, how often it is right."""

    family: str
    label: str
    accuracy: Estimate
    evaluations: float
    nats: Estimate | None = None


def _points(s: DictConfig, arms: dict[str, Arm], compared: Sequence[str]) -> list[Point]:
    """Main arms, block sizes, and the variations; of the extra seeds, but for the main arms."""
    found = []
    for name, arm in arms.items():
        tokens = sum(arm.models[0].tokens[k] for k in arm.models[0].tokens if k != "all")
        nats = arm.matrix(lambda model: model.nats["all"])
        family = compared[0] if name not in compared else name
        found.append(
            Point(
                family,
                name,
                accuracy_estimate(arm.right),
                float(np.mean([_evaluations(m.scores) for m in arm.models])),
                ratio_estimate(nats, np.broadcast_to(tokens, nats.shape)),
            )
        )
    for name in compared:
        varied = [model.varied for model in arms[name].models if model.varied]
        for label in varied[0] if varied else ():
            right = np.stack([_right(one[label][1]) for one in varied])
            cost = float(np.mean([_evaluations(one[label][0]) for one in varied]))
            found.append(Point(name, f"{name}, {label}", accuracy_estimate(right), cost))
    return found


def _evaluations(scores: dict[str, Any]) -> float:
    return scores["speed"]["network_evaluations_per_token"]


def _contestants(
    s: DictConfig, arms: dict[str, Arm], compared: Sequence[str]
) -> list[Contestant]:
    """The labels are those of the points."""
    found = [Contestant(name, arm.runs[0]) for name, arm in arms.items()]
    for name in compared:
        for run, model in zip(arms[name].runs, arms[name].models):
            if model.varied:
                variations = _variations(s, _largest_block(run))
                found += [Contestant(f"{name}, {k}", run, v) for k, v in variations.items()]
                break
    return found


def _sweep_table(points: Sequence[Point], speeds: dict[str, Speed]) -> Table:
    return Table(
        "sweeps",
        "Quality over speed: block sizes, steps and thresholds",
        [
            Column("model"),
            Column("greedy, strict", "share"),
            Column("evaluations a token", 2),
            Column("tokens a second", 0),
            Column("relative", 2),
            Column("nats a token", 4),
        ],
        [
            [
                p.label,
                p.accuracy,
                p.evaluations,
                speeds[p.label].tokens if p.label in speeds else None,
                speeds[p.label].relative if p.label in speeds else None,
                p.nats,
            ]
            for p in points
        ],
        "Nats are of all tokens the model predicts: comparable among models with a plan only.",
    )


def _budget_table(arms: Sequence[Arm], budgets: dict[str, Budget], kind: str) -> Table:
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


def _setting_sentence(study: Study, arms: Sequence[Arm]) -> str:
    cfg = compose(study.base)
    seeds = len(arms[0].models)
    more = "" if seeds > 1 else "; one seed a method says nothing about other seeds"
    return (
        f"{len(arms[0].models[0].records)} problems of {cfg.data.name}, {seeds} seed(s) a method"
        f"{more}. All that follows is about {cfg.model.name} models trained this briefly on these "
        "problems."
    )


def _accuracy_finding(contrast: Contrast, tests: Sequence[Test]) -> str:
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


def _likelihood_finding(contrast: Contrast) -> str | None:
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
        f"higher one is only an upper bound ({_how(higher)}), so that this does not show which "
        "model gives them more probability."
    )


def _vote_findings(arms: Sequence[Arm]) -> list[str]:
    found = []
    for arm in arms:
        voters = [model for model in arm.models if model.votes]
        if not voters:
            continue
        voted = np.stack([model.voted() for model in voters])
        greedy = np.stack([model.right() for model in voters])
        d = difference_estimate(voted, greedy)
        word = "helps" if d.low > 0 else "hurts" if d.high < 0 else "neither helps nor hurts measurably"
        found.append(
            f"{arm.name}: a vote of {len(voters[0].votes)} samples {word}, against one greedy "
            f"answer: {100 * d.value:+.1f} points (95 % {100 * d.low:+.1f} to {100 * d.high:+.1f})."
        )
    return found


# -- figure --------------------------------------------------------------------------------------


def _draw(
    figure: Figure,
    arms: Sequence[Arm],
    points: Sequence[Point],
    speeds: dict[str, Speed],
    guess: dict[str, Any],
) -> None:
    from hbd3lm.report.style import CYCLE, MUTED

    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    y = np.arange(len(arms))[::-1]
    color = {arm.name: CYCLE[i % len(CYCLE)] for i, arm in enumerate(arms)}
    for row, arm in zip(y, arms):
        _bar(left, row, accuracy_estimate(arm.right), color[arm.name], "o")
        voters = [model for model in arm.models if model.votes]
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
    left.set_title("Accuracy (● greedy, ★ vote, dotted: guessing)")
    middle.set_yticks(y, [])
    middle.set_xlim(left=0)
    middle.set_xlabel("nats a token, execution given question")
    middle.set_title("Likelihood (● exact, ◁ upper bound)")
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
