"""The noise schedule: how likely a token is masked at time t, and what a masked token weighs.

Absorbing-state diffusion with the log-linear schedule (MDLM, Sahoo et al., 2024): at time
t in (0, 1] every token is masked independently with probability t, and the NELBO weights a
masked token's cross-entropy by -alpha'_t / (1 - alpha_t) = 1 / t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hbd3lm.errors import UserError


def stratified_uniform(count: int, rng: np.random.Generator) -> np.ndarray:
    """[count] numbers, one in each of ``count`` equal slices of (0, 1], in random order.

    Each alone is uniform; together they cover the interval evenly, which lowers the variance of
    a loss summed over times drawn so ("antithetic" sampling in MDLM, there within a batch row;
    here over all blocks of a batch).
    """
    return (rng.permutation(count) + 1.0 - rng.random(count)) / count


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

    def stretch(self, u: np.ndarray) -> np.ndarray:
        """Times (low, high] of numbers in (0, 1]."""
        return self.low + (self.high - self.low) * u

    @staticmethod
    def mask_probability(t: np.ndarray) -> np.ndarray:
        """1 - alpha_t = t."""
        return t

    @staticmethod
    def weight(t: np.ndarray) -> np.ndarray:
        """-alpha'_t / (1 - alpha_t) = 1 / t."""
        return 1.0 / t


class SearchedSchedule:
    """One interval a segment, which changes while a run learns (BD3-LM's data-driven clipping).

    A change takes effect ``DELAY`` optimiser steps after it was found: processes that prepare
    batches work ahead, and what step they are at must not decide which noise it gets. The table
    is shared with them.
    """

    DELAY = 32
    _ENTRIES = 2 * DELAY  # at most one a step; older ones are in force for nobody

    def __init__(self, base: LogLinearSchedule, n_segments: int) -> None:
        self.base = base
        # [entries, 1 + 2 * segments]: first step in force, then low and high by segment.
        table = torch.full((self._ENTRIES, 1 + 2 * n_segments), torch.inf, dtype=torch.float64)
        table[0] = torch.tensor([0.0] + [base.low, base.high] * n_segments, dtype=torch.float64)
        self._table = table.share_memory_()
        self._count = 1

    def at(self, step: int) -> list[LogLinearSchedule]:
        """The interval of every segment at optimiser step ``step``."""
        if step < self.DELAY:  # nothing can be in force yet, and later its entry is written over
            return [self.base] * (self._table.shape[1] // 2)
        start = self._table[:, 0]
        row = int(torch.where(start <= step, start, -torch.inf).argmax())
        bounds = self._table[row, 1:].view(-1, 2).tolist()
        return [LogLinearSchedule(low, high) for low, high in bounds]

    def change(self, found_at: int, intervals: Sequence[LogLinearSchedule]) -> None:
        """Let ``intervals`` be in force from ``DELAY`` steps after step ``found_at`` on."""
        row = self._table[self._count % self._ENTRIES]
        row[0] = torch.inf  # nobody reads it while it is written
        bounds = [bound for interval in intervals for bound in (interval.low, interval.high)]
        row[1:] = torch.tensor(bounds, dtype=torch.float64)
        row[0] = float(found_at + self.DELAY)
        self._count += 1

    def state_dict(self) -> dict:
        return {"table": self._table.clone(), "count": self._count}

    def load_state_dict(self, state: dict) -> None:
        self._table.copy_(state["table"])
        self._count = state["count"]
