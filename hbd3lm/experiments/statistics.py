"""Estimates with intervals, and tests of differences, for one or several seeds.

Scores are matrices [seeds, problems]: the same problems, answered by models of several seeds. Both
are samples, of the models this training makes and of the problems there are, so intervals resample
both (a crossed, or two-way, bootstrap); with one seed this is the ordinary bootstrap over problems,
and says nothing about other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hbd3lm.evaluate.answers import wilson_interval

RESAMPLES = 2_000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where there are too few data to give one."""

    value: float
    low: float = math.nan
    high: float = math.nan

    def to_dict(self) -> dict[str, float | None]:
        """JSON-ready: NaN becomes None."""
        return {
            name: None if math.isnan(number) else number
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }


@dataclass(frozen=True)
class McNemar:
    """Two models on the same problems: only the discordant pairs speak.

    Attributes:
        only_first, only_second: problems that only one of them solves.
        p: of the exact two-sided test (McNemar, 1947): the chance of so uneven a division or a more
            uneven one, were both equally good.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """Exact McNemar test of two models' verdicts on the same problems.

    Raises:
        ValueError: different numbers of problems.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape:
        raise ValueError(f"verdicts on {a.size} and {b.size} problems cannot be paired")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    p = float(binomtest(only_a, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_a, only_b, p)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for being several (Holm, 1979): reject those below 0.05 as before."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1.0)
    result = np.empty_like(p)
    result[order] = adjusted
    return result.tolist()


def crossed_draws(
    shape: tuple[int, int], seed: int = 0, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed and each problem is drawn: [resamples, seeds], [resamples, problems]."""
    generator = np.random.default_rng(seed)
    seeds, problems = shape
    return (
        generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples),
        generator.multinomial(problems, np.full(problems, 1 / problems), size=resamples),
    )


def mean_estimate(scores: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of scores [seeds, problems] with its crossed bootstrap interval."""
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    return ratio_estimate(scores, np.ones_like(scores), seed)


def ratio_estimate(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> Estimate:
    """Ratio of sums, both [seeds, problems]: nats per token, numbers per plan, exec/plan ratio."""
    top, bottom = (np.atleast_2d(np.asarray(x, dtype=float)) for x in (numerator, denominator))
    if top.shape != bottom.shape:
        raise ValueError(f"{top.shape} and {bottom.shape}: not of the same problems")
    value = _divide(top.sum(), bottom.sum())
    if top.shape[1] < 2:
        return Estimate(float(value))
    w_seeds, w_problems = crossed_draws(top.shape, seed)
    drawn = [((w_seeds @ x) * w_problems).sum(1) for x in (top, bottom)]
    return Estimate(float(value), *_middle(_divide(*drawn)))


def difference_estimate(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of ``first`` minus mean of ``second``, paired over problems.

    Args:
        first, second: [seeds, problems]; the seeds of the two are different models and are
            resampled apart, the problems are the same.
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=float)) for x in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} problems cannot be paired")
    value = float(a.mean() - b.mean())
    if a.shape[1] < 2:
        return Estimate(value)
    w_a, w_problems = crossed_draws(a.shape, seed)
    w_b, _ = crossed_draws(b.shape, seed + 1)
    rows = (w_a @ a) / len(a) - (w_b @ b) / len(b)
    return Estimate(value, *_middle((rows * w_problems).sum(1) / a.shape[1]))


def accuracy_estimate(correct: np.ndarray, seed: int = 0) -> Estimate:
    """Share of right answers [seeds, problems]: Wilson's interval for one seed, which is fair near
    0 and 1 where a bootstrap is not; the crossed bootstrap for several."""
    correct = np.atleast_2d(np.asarray(correct, dtype=float))
    if len(correct) > 1 and 0 < correct.mean() < 1:
        return mean_estimate(correct, seed)
    # All right or all wrong, in every seed: the seeds add nothing to what the problems say.
    n = correct.shape[1]
    return Estimate(float(correct.mean()), *wilson_interval(round(correct[0].sum()), n))


def majority(answers: Sequence[str | None]) -> str | None:
    """The most frequent answer (maj@k, self-consistency); ties go to the one given first."""
    given = [answer for answer in answers if answer is not None]
    return max(given, key=given.count) if given else None


def _divide(top, bottom):
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(top, bottom)


def _middle(samples: np.ndarray) -> tuple[float, float]:
    from hbd3lm.plans.bootstrap import percentile_interval

    return percentile_interval(samples)
