"""Random numbers as a function of what they are for, not of when they are drawn.

A problem's samples must not depend on which other problems share its batch, on the row it
occupies or on the order of evaluation. So every uniform number is a hash of (seed, problem,
block, step, place): the SplitMix64 finaliser (Steele et al., 2014), applied once a key.
"""

from __future__ import annotations

import numpy as np

ORDER, TOKEN = 1, 2
"""Last key of a sampler's number: whether it orders positions or picks a token."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(*keys: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1), float64, one for each element of the broadcast integer keys."""
    state = np.uint64(0)
    with np.errstate(over="ignore"):
        for key in np.broadcast_arrays(*keys):
            state = _mix((state + key.astype(np.int64).astype(np.uint64) + _GOLDEN) * _GOLDEN)
    return (state >> np.uint64(11)) * 2.0**-53
