"""Speeds that can be compared: all models in turn, in one process, several rounds.

Seconds that runs note of themselves depend on what else the machine did. Here every round samples
the same problems with every contestant, one after the other, and a contestant's speed is compared
with the first one's *of the same round*.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hbd3lm.commands.settings import read_sampling
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.statistics import Estimate
from hbd3lm.experiments.study import Study
from hbd3lm.progress import track

if TYPE_CHECKING:
    from hbd3lm.commands.build import LoadedModel
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import GenerationRun


@dataclass(frozen=True)
class Contestant:
    """A trained model and a way to sample from it.

    Attributes:
        label: in tables.
        sampling: settings beyond those of the study.
    """

    label: str
    run: Run
    sampling: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speed:
    """What the rounds say of one contestant; low and high are the least and the most of them.

    Attributes:
        tokens: a second.
        problems: a second.
        relative: tokens a second over those of the first contestant in the same round.
    """

    tokens: Estimate
    problems: Estimate
    relative: Estimate


def race(
    study: Study, contestants: Sequence[Contestant], problems: int, rounds: int
) -> dict[str, Speed]:
    """Speeds by label. Run once; read from ``race.json`` afterwards."""
    import torch

    threads = torch.get_num_threads()
    stamp = {
        "contestants": [
            [c.label, c.run.settings_of("sample_eval", *c.sampling), c.run.weights]
            for c in contestants
        ],
        "problems": problems,
        "rounds": rounds,
    }
    found = study.once(
        "race", stamp, lambda: {"threads": threads, **_run(study, contestants, problems, rounds)}
    )
    tokens, per_problem = (
        np.array([found["rounds"][c.label][key] for c in contestants])  # [contestants, rounds]
        for key in ("tokens_per_second", "problems_per_second")
    )
    return {
        c.label: Speed(_range(tokens[i]), _range(per_problem[i]), _range(tokens[i] / tokens[0]))
        for i, c in enumerate(contestants)
    }


def _run(
    study: Study, contestants: Sequence[Contestant], problems: int, rounds: int
) -> dict[str, Any]:
    loaded: dict[str, LoadedModel] = {}
    for contestant in contestants:
        if contestant.run.name not in loaded:
            loaded[contestant.run.name] = contestant.run.load()
    examples = study.examples("test")[:problems]
    found: dict[str, dict[str, list[float]]] = {}
    turns = [(number, contestant) for number in range(rounds + 1) for contestant in contestants]
    for number, contestant in track(turns, "race", "turns"):
        generated = _sample(contestant, loaded[contestant.run.name], examples)
        if number == 0:
            continue  # buffers are allocated, caches warm
        mine = found.setdefault(contestant.label, {})
        for key, value in generated.speed().items():
            mine.setdefault(key, []).append(value)
    return {"rounds": found}


def _sample(
    contestant: Contestant, loaded: LoadedModel, examples: list[HierarchicalExample]
) -> GenerationRun:
    cfg = compose(contestant.run.settings_of("sample_eval", *contestant.sampling))
    return loaded.generate(examples, read_sampling(cfg), "full")


def _range(values: np.ndarray) -> Estimate:
    return Estimate(float(np.median(values)), float(values.min()), float(values.max()))
