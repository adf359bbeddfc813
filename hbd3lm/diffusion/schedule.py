"""The noise schedule: how likely a token is masked at time t, and what a masked token weighs.

Absorbing-state diffusion with the log-linear schedule (MDLM, Sahoo et al., 2024): at time
t in (0, 1] every token is masked independently with probability t, and the NELBO weights a
masked token's cross-entropy by -alpha'_t / (1 - alpha_t) = 1 / t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbd3lm.errors import UserError


@dataclass(frozen=True)
class LogLinearSchedule:
    """Log-linear noise, with times drawn from U(low, high].

    ``low`` = beta and ``high`` = omega of BD3-LM's clipped schedules (section 5): training on
    the mask rates that matter for a block size lowers the variance of the gradient. The default
    leaves out only t < 0.001, where the weight 1/t explodes and next to nothing is masked.
    """

    low: float = 1e-3
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise UserError(
                f"algo.t_min={self.low} and algo.t_max={self.high} must satisfy "
                "0 <= t_min < t_max <= 1"
            )

    def draw_times(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """[count] times, stratified: one in each of ``count`` equal slices, in random order.

        Each time alone is uniform on (low, high]; together they cover the interval evenly,
        which lowers the variance of the summed loss ("antithetic" sampling in MDLM, there
        within a batch row; here over all blocks of a batch).
        """
        u = (rng.permutation(count) + 1.0 - rng.random(count)) / count  # in (0, 1]
        return self.low + (self.high - self.low) * u

    @staticmethod
    def mask_probability(t: np.ndarray) -> np.ndarray:
        """1 - alpha_t = t."""
        return t

    @staticmethod
    def weight(t: np.ndarray) -> np.ndarray:
        """-alpha'_t / (1 - alpha_t) = 1 / t."""
        return 1.0 / t
