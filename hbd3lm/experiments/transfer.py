"""Experiment 3: do plans transfer? From source problems to few problems of a target.

A model with separate modules learns the source. On the target its plan module is frozen and the
execution module learns (``frozen``), or both learn (``all``); beside them the same model without a
past (``scratch``), and one that writes no plans, pre-trained on the same source problems
(``flat``). The number of target problems varies: a curve of what each needs. Size 0 is the source
model itself, asked target problems.

The claim behind freezing is checked, not believed: a frozen model's plan module has the source's
weights, its bounds of the target's plans and its own plans are the source's, to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hbd3lm.commands.overrides import override_value
from hbd3lm.errors import UserError
from hbd3lm.experiments import transfer_report as report
from hbd3lm.experiments.results import Results
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.study import Study

SEPARATE, FLAT = ("hierarchical.modules=separate",), ("algo=flat",)


@dataclass(frozen=True)
class Arm:
    """A way to learn the target.

    Attributes:
        kind: settings of the model, on the source and on the target.
        pretrained: it has learned the source.
        tuning: further settings on the target.
    """

    kind: tuple[str, ...]
    pretrained: bool
    tuning: tuple[str, ...] = ()


ARMS = {
    "frozen": Arm(SEPARATE, True, ("training.freeze=plan",)),
    "frozen_execution": Arm(SEPARATE, True, ("training.freeze=execution",)),
    "all": Arm(SEPARATE, True),
    "scratch": Arm(SEPARATE, False),
    "flat": Arm(FLAT, True),
    "flat_scratch": Arm(FLAT, False),
}
KIND_NAMES = {SEPARATE: "separate", FLAT: "flat"}


@dataclass(frozen=True)
class Measured:
    """One model on the target's test problems.

    Attributes:
        records: of its samples.
        nats, tokens: of each problem, by segment.
        is_bound: the nats are upper bounds.
    """

    records: list[dict[str, Any]]
    nats: dict[str, np.ndarray]
    tokens: dict[str, np.ndarray]
    is_bound: bool

    def of(self, kept: np.ndarray) -> Measured:
        """The same on some problems: kept [problems], bool."""
        return Measured(
            [record for record, keep in zip(self.records, kept) if keep],
            {name: values[kept] for name, values in self.nats.items()},
            {name: values[kept] for name, values in self.tokens.items()},
            self.is_bound,
        )

    def correct(self, kind: str = "strict") -> np.ndarray:
        """[problems] was the answer right?"""
        return np.array([record[f"correct_{kind}"] for record in self.records], dtype=float)


def run(study: Study) -> Results:
    """Learn the source, then the target in every way and size; compare on the target."""
    arms, sizes = _read_settings(study)
    source = replace(study, base=(*_without_data(study.base), *study.settings.source))
    on_target = [o for o in (*study.base, *study.data) if _is_data(o)]
    sources: dict[tuple[tuple[str, ...], int], Run] = {
        (arm.kind, seed): source.run(f"source-{KIND_NAMES[arm.kind]}", arm.kind, seed)
        for arm in arms.values()
        if arm.pretrained
        for seed in study.seeds
    }
    tuned = {
        (name, size, seed): _tuned_run(study, name, arm, size, seed, sources)
        for name, arm in arms.items()
        for size in sizes
        for seed in study.seeds
    }
    for tuning in tuned.values():  # before the source, which takes longest, is learned
        tuning.check()

    unseen = _unseen(source, study)

    def work(run: Run, *further: str) -> Measured:
        run.train()
        return _measure(run, *further).of(unseen)

    found = source.each(list(sources.values()), lambda run: work(run, *on_target))
    before = dict(zip(sources, found))
    after = dict(zip(tuned, study.each(list(tuned.values()), work)))
    identity = [
        _compare_plans(sources[SEPARATE, seed], tuned["frozen", size, seed], on_target)
        for (name, size, seed) in tuned
        if name == "frozen"
    ]
    curves = {
        (name, size): [after[name, size, seed] for seed in study.seeds]
        for name in arms
        for size in sizes
    }
    for kind in dict.fromkeys(arm.kind for arm in arms.values() if arm.pretrained):
        name = f"source-{KIND_NAMES[kind]}"
        curves[name, 0] = [before[kind, seed] for seed in study.seeds]
    differences = report.find_differences(curves, next(iter(arms)), sizes)
    runs = [*sources.values(), *tuned.values()]
    return Results(
        tables=[
            report.curve_table(curves),
            report.difference_table(differences, next(iter(arms))),
            *([report.identity_table(identity)] if identity else []),
        ],
        draw=lambda figure: report.draw(figure, curves),
        findings=[
            *report.seen_findings(unseen),
            *report.identity_findings(identity),
            *report.difference_findings(differences, next(iter(arms))),
        ],
        metrics={
            "identity": identity,
            "source": list(study.settings.source),
            "test_problems_in_the_source": int((~unseen).sum()),
        },
        records=[
            {"model": run.name, **record}
            for run, measured in zip(runs, [*before.values(), *after.values()])
            for record in measured.records
        ],
        runs=runs,
    )


def _read_settings(study: Study) -> tuple[dict[str, Arm], list[int]]:
    compared, sizes = list(study.settings.compared), list(study.settings.sizes)
    for name in compared:
        if name not in ARMS:
            raise UserError(f"experiment.compared: {name}: choose from {', '.join(ARMS)}")
    if not compared or not sizes:
        raise UserError("experiment.compared and experiment.sizes need at least one entry each")
    there = len(study.examples("train")) + _count_held_out(study)
    for size in sizes:
        if not isinstance(size, int) or not 2 <= size <= there:
            raise UserError(
                f"experiment.sizes: {size}: the target has {there} problems to learn from; needed "
                f"are whole numbers from 2 to {there}"
            )
    return {name: ARMS[name] for name in compared}, sorted(set(sizes))


def _unseen(source: Study, target: Study) -> np.ndarray:
    """[test problems of the target] is the question none that the source has?

    A model that has learned a question by heart would seem to transfer.

    Raises:
        UserError: fewer than two are new.
    """
    unseen = source.are_new([example.question for example in target.examples("test")])
    if unseen.sum() < 2:
        raise UserError(
            f"experiment.source: it holds {int((~unseen).sum())} of the target's {len(unseen)} "
            "test problems; choose other problems"
        )
    return unseen


def _count_held_out(study: Study) -> int:
    """Validation problems that are taken from those to learn from."""
    from hbd3lm.experiments.settings import compose

    given = compose(study.base).data.valid_path
    return 0 if given else len(study.examples("valid"))


def _is_data(override: str) -> bool:
    return override.startswith(("data=", "data."))


def _without_data(base: Sequence[str]) -> tuple[str, ...]:
    """The settings that source and target share: all but the problems, which lie in one folder."""
    return tuple(o for o in base if not _is_data(o) or o.startswith("data.dir="))


def _tuned_run(
    study: Study,
    name: str,
    arm: Arm,
    size: int,
    seed: int,
    sources: dict[tuple[tuple[str, ...], int], Run],
) -> Run:
    start = ()
    if arm.pretrained:
        path = override_value(sources[arm.kind, seed].model)
        start = (f"training.init_from={path}",)
    settings = (*arm.kind, f"data.num_train={size}", *start, *arm.tuning)
    return study.run(f"{name}-{size}", settings, seed)


def _measure(run: Run, *further: str) -> Measured:
    """Samples and likelihoods on the study's test problems, or those that ``further`` names."""
    _, records = run.sample("eval", "full", *further)
    likelihood, rows = run.likelihoods("eval", *further)
    nats, tokens = (
        {name: np.array([row[key][name] for row in rows]) for name in rows[0][key]}
        for key in ("nats", "tokens")
    )
    return Measured(records, nats, tokens, likelihood["kind"] != "exact")


# -- the promise of freezing -----------------------------------------------------------------


def _compare_plans(source: Run, frozen: Run, on_target: Sequence[str]) -> dict[str, Any]:
    """Are the plans of ``frozen`` those of ``source``, to the bit?

    Raises:
        RuntimeError: no. Freezing is broken, and nothing here is worth reading.
    """
    import torch

    nets = [run.load().net for run in (source, frozen)]
    weights = [net.stacks["plan"].state_dict() for net in nets]
    plans = []
    for run, further in ((source, on_target), (frozen, ())):
        _, records = run.sample("eval", "plan_only", *further)
        plans.append([record["plan"] for record in records])
    bounds = [_measure(source, *on_target).nats["plan"], _measure(frozen).nats["plan"]]
    written = [
        [record["plan"] for record in measured.records]
        for measured in (_measure(source, *on_target), _measure(frozen))
    ]
    found = {
        "model": frozen.name,
        "weights": len(weights[0]),
        "weights_equal": all(
            torch.equal(weights[0][name], weights[1][name]) for name in weights[0]
        ),
        "bounds": len(bounds[0]),
        "bounds_equal": int((bounds[0] == bounds[1]).sum()),
        "plans": len(plans[0]),
        "plans_equal": sum(a == b for a, b in zip(*plans)),
        "plans_equal_beside_executions": sum(a == b for a, b in zip(*written)),
    }
    if not (
        found["weights_equal"]
        and found["bounds_equal"] == found["bounds"]
        and found["plans_equal"] == found["plans"]
    ):
        raise RuntimeError(f"a frozen plan module has changed: {found}")
    return found
