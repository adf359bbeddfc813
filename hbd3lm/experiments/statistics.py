"""Estimates with intervals, and tests of differences, for one or several seeds.

Scores are matrices [seeds, problems]: the same problems, answered by models of several seeds. Both
are samples, of the models this training makes and of the problems there are, so intervals resample
both (a crossed, or two-way, bootstrap); with one seed this is the ordinary bootstrap over problems,
and says nothing about other seeds.

Two or three seeds resampled spread too little: of what should be 95 % intervals, 70 to 80 % cover
the truth where seeds differ much. So intervals are widened by what the analysis of variance says of
seeds, problems and both, with Student's t for the few of them (:func:`_widened`).
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
    """A value with its 95 % interval; NaN where there are too few data to give one.

    Attributes:
        is_bound: the value estimates an upper bound of what the column names.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    is_bound: bool = False

    def to_dict(self) -> dict[str, float | bool | None]:
        """JSON-ready: NaN becomes None. ``is_bound`` stands where it is true."""
        found: dict[str, float | bool | None] = {
            name: None if math.isnan(number) else number
            for name, number in (("value", self.value), ("low", self.low), ("high", self.high))
        }
        return found | ({"is_bound": True} if self.is_bound else {})

    def percent(self) -> str:
        """A share in a sentence: ``12.3% [10.1, 14.5]``."""
        return f"{self.value:.1%} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


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
    """Mean of scores [seeds, problems] with its interval."""
    scores = np.atleast_2d(np.asarray(scores, dtype=float))
    return ratio_estimate(scores, np.ones_like(scores), seed)


def ratio_estimate(numerator: np.ndarray, denominator: np.ndarray, seed: int = 0) -> Estimate:
    """Ratio of sums, both [seeds, problems]: nats per token, numbers per plan, exec/plan ratio."""
    top, bottom = (np.atleast_2d(np.asarray(x, dtype=float)) for x in (numerator, denominator))
    if top.shape != bottom.shape:
        raise ValueError(f"{top.shape} and {bottom.shape}: not of the same problems")
    value = float(_divide(top.sum(), bottom.sum()))
    if top.shape[1] < 2:
        return Estimate(value)
    w_seeds, w_problems = crossed_draws(top.shape, seed)
    drawn = [((w_seeds @ x) * w_problems).sum(1) for x in (top, bottom)]
    samples = _divide(*drawn)
    if not math.isfinite(value):
        return Estimate(value, *_middle(samples))
    if not np.isfinite(samples).all() and (drawn[0] > 0).all():
        # Some resamples have nothing to divide by. The ratio's inverse is finite in all of them, so
        # that its interval can be widened; its ends are those of this one.
        inverse = ratio_estimate(bottom, top, seed)
        return Estimate(value, 1 / inverse.high, 1 / inverse.low if inverse.low > 0 else math.inf)
    linear = (top - value * bottom) / bottom.mean()  # of the ratio, around its value
    return _widened(value, samples, [linear])


def difference_estimate(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Estimate:
    """Mean of ``first`` minus mean of ``second``, paired over problems.

    Args:
        first, second: [seeds, problems]; the seeds of the two are different models and are
            resampled apart, the problems are the same.
    """
    return rate_difference_estimate(first, second, None, seed)


def rate_difference_estimate(
    first: np.ndarray, second: np.ndarray, counts: np.ndarray | None, seed: int = 0
) -> Estimate:
    """The same of rates: sums over sums of ``counts`` [problems], nats a token; None: all 1."""
    a, b = (np.atleast_2d(np.asarray(x, dtype=float)) for x in (first, second))
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"{a.shape[1]} and {b.shape[1]} problems cannot be paired")
    n = np.ones(a.shape[1]) if counts is None else np.asarray(counts, dtype=float)
    rates = [x.mean(0).sum() / n.sum() for x in (a, b)]
    value = float(rates[0] - rates[1])
    if a.shape[1] < 2:
        return Estimate(value)
    w_a, w_problems = crossed_draws(a.shape, seed)
    w_b, _ = crossed_draws(b.shape, seed + 1)
    rows = (w_a @ a) / len(a) - (w_b @ b) / len(b)
    linear = [(a - rates[0] * n) / n.mean(), (rates[1] * n - b) / n.mean()]
    return _widened(value, (rows * w_problems).sum(1) / (w_problems @ n), linear)


def _widened(value: float, samples: np.ndarray, groups: Sequence[np.ndarray]) -> Estimate:
    """The middle of bootstrap ``samples``, stretched about ``value`` to the width it ought to have.

    The bootstrap gives the interval its shape. Its width is at least that of
    :func:`crossed_error` with Student's t; a bootstrap of n seeds misses a factor n / (n - 1) of
    their variance, and does not know that it has been estimated from n.

    Args:
        groups: [seeds, problems] each, independent models on the same problems; their means sum to
            the statistic, or to its linear part.
    """
    from scipy.stats import t

    low, high = _middle(samples)
    error, freedom = crossed_error(groups)
    spread = np.std(samples) if np.isfinite(samples).all() else math.nan
    if spread > 0 and math.isfinite(error):
        stretch = max(1.0, float(t.ppf(0.975, freedom)) * error / (1.96 * float(spread)))
        low, high = (value + stretch * (end - value) for end in (low, high))
    return Estimate(value, low, high)


def crossed_error(groups: Sequence[np.ndarray]) -> tuple[float, float]:
    """Standard error of a sum of means, and its degrees of freedom (Satterthwaite, 1946).

    Variance components of two crossed random factors without replicates: what seeds add, one term
    a group with several; what problems add, one term, less what both add together and the terms of
    the seeds hold already.

    Args:
        groups: [seeds, problems] each, of the same problems.
    """
    n = groups[0].shape[1]
    parts = [(np.var(sum(x.mean(0) for x in groups), ddof=1) / n, n - 1)]
    for x in groups:
        seeds = len(x)
        if seeds == 1:
            continue
        rest = x - x.mean(0) - x.mean(1, keepdims=True) + x.mean()
        both = (rest**2).sum() / ((seeds - 1) * (n - 1))
        parts[0] = (max(0.0, parts[0][0] - both / (seeds * n)), n - 1)
        parts.append((np.var(x.mean(1), ddof=1) / seeds, seeds - 1))
    total = sum(part for part, _ in parts)
    if not total > 0:
        return 0.0, float(n - 1)
    freedom = total**2 / sum(part**2 / free for part, free in parts)
    return float(math.sqrt(total)), float(freedom)


def paired_estimate(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Estimate:
    """Share of ``first`` minus share of ``second``, for the same models on the same problems.

    Where the two never differ there is nothing to resample, and yet a difference may have been
    missed: then the interval is that of the share of problems on which they might differ (Wilson's
    for none of so many), to either side.

    Args:
        first, second: verdicts [seeds, problems].
    """
    a, b = (np.atleast_2d(np.asarray(x, dtype=float)) for x in (first, second))
    if a.shape != b.shape:
        raise ValueError(f"{a.shape} and {b.shape}: not of the same models and problems")
    if (a == b).all():
        bound = wilson_interval(0, a.shape[1])[1]
        return Estimate(0.0, -bound, bound)
    return mean_estimate(a - b, seed)


def accuracy_estimate(correct: np.ndarray, seed: int = 0) -> Estimate:
    """Share of right answers [seeds, problems].

    Wilson's interval for verdicts of one seed, which is fair near 0 and 1 where a bootstrap is not;
    the crossed bootstrap for several seeds, and for shares of several answers to a problem.
    """
    correct = np.atleast_2d(np.asarray(correct, dtype=float))
    verdicts = np.isin(correct, (0.0, 1.0)).all()
    if (len(correct) > 1 or not verdicts) and 0 < correct.mean() < 1:
        found = mean_estimate(correct, seed)
        return Estimate(found.value, max(0.0, found.low), min(1.0, found.high))
    # All right or all wrong, in every seed: the seeds add nothing to what the problems say.
    n = correct.shape[1]
    return Estimate(float(correct.mean()), *wilson_interval(round(correct[0].sum()), n))


def accuracy_difference_estimate(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Estimate:
    """:func:`difference_estimate` of verdicts [seeds, problems].

    Where all verdicts on every problem agree there is nothing to resample, and yet a difference may
    have been missed: then the interval is that of none of so many problems (Wilson's), to either
    side.
    """
    found = difference_estimate(first, second, seed)
    rows = np.concatenate([np.atleast_2d(first), np.atleast_2d(second)])
    if (rows == rows[0]).all():
        most = wilson_interval(0, rows.shape[1])[1]
        return Estimate(0.0, -most, most)
    return found


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
