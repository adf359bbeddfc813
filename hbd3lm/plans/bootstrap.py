"""Bootstrap confidence intervals: seeded, and quick where many examples have equal values."""

from __future__ import annotations

import math

import numpy as np


def percentile_interval(samples: np.ndarray) -> tuple[float, float]:
    """The middle 95% of bootstrap ``samples``, NaN left out: (low, high); NaN if none is left."""
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return (math.nan, math.nan)
    # An order statistic, not an interpolation: samples may be infinite.
    low, high = np.quantile(samples, [0.025, 0.975], method="inverted_cdf")
    return (float(low), float(high))


def resampled_means(
    values: np.ndarray, generator: np.random.Generator, resamples: int
) -> np.ndarray:
    """Means of ``resamples`` samples of ``values`` [examples] with replacement, [resamples].

    Only how often each distinct value is drawn matters, and that is multinomial.
    """
    distinct, counts = np.unique(values, return_counts=True)
    draws = generator.multinomial(len(values), counts / counts.sum(), size=resamples)
    return draws @ distinct / len(values)
