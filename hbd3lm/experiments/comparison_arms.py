"""What the comparison knows: trained models, arms of several seeds, contrasts of two arms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hbd3lm.data.answers import normalize_number, same_answer
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.statistics import Estimate, majority

Records = list[dict[str, Any]]


@dataclass
class Measured:
    """All that is known of one trained model.

    Attributes:
        exact: its likelihoods are.
        nats: by segment and ``all``, [problems]; ``execution`` is given the gold plan, if any.
        own: [problems] of the execution given a plan of the model's own; None where its plans do
            not end.
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
        return right_answers(self.records, kind)

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

    @property
    def kind_of_execution(self) -> str:
        """What the first of the bounds is, in words."""
        how = next(iter(self.bounds_of_execution()))
        if self.exact_of_execution:
            return "exact"
        return "NELBO" if how == "direct" else f"bound by {how}"

    def votes(self) -> list[Measured]:
        """The models that have voted."""
        return [model for model in self.models if model.votes]


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
class SeedTest:
    """Two models of one seed: McNemar's test, p adjusted for all tests of the study."""

    label: str
    seed: int
    only_first: int
    only_second: int
    p: float
    adjusted: float


@dataclass(frozen=True)
class Point:
    """A model and a way to sample from it: what it costs, how often it is right.

    Attributes:
        seeds: models of as many.
        difference: share of right answers less that of the arm it varies, the same seeds and
            problems; None for an arm as it is.
    """

    family: str
    label: str
    accuracy: Estimate
    evaluations: float
    nats: Estimate | None = None
    seeds: int = 1
    difference: Estimate | None = None


def right_answers(records: Records, kind: str = "strict") -> np.ndarray:
    return np.array([bool(record[f"correct_{kind}"]) for record in records])


def _voted_right(samples: Sequence[dict[str, Any]]) -> bool:
    answer = majority([_normal(sample["predicted_strict"]) for sample in samples])
    return same_answer(answer, samples[0]["answer_numerical"])


def _normal(answer: str | None) -> str | None:
    """The same number in one spelling, so that 1,000 and 1000.0 vote for the same."""
    return None if answer is None else str(normalize_number(answer))
