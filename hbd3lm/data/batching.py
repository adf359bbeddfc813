"""Which documents meet in which batch: pure functions of (seed, step), hence resumable.

The documents form one endless sequence: epoch after epoch, each in an order of its own. It is
cut into windows of a few optimiser steps; within a window documents are sorted by length, so
that those of one step are about equally long and padding costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW_STEPS = 16
"""Optimiser steps sorted together: more waste less padding but mix less."""


class StepBatches:
    """The documents of every optimiser step.

    Args:
        lengths: tokens of each document.
        step_size: documents of one optimiser step, over all processes and micro-batches.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], step_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.step_size = step_size
        self.seed = seed
        self._window: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._epoch: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, step: int) -> np.ndarray:
        """[step_size] document indices of optimiser step ``step``, shortest first."""
        window, offset = divmod(step, WINDOW_STEPS)
        if self._window[0] != window:
            self._window = (window, self._make_window(window))
        return self._window[1][offset]

    def _make_window(self, window: int) -> np.ndarray:
        """[WINDOW_STEPS, step_size]"""
        size = WINDOW_STEPS * self.step_size
        sequence = np.arange(window * size, (window + 1) * size)
        epochs, places = np.divmod(sequence, len(self.lengths))
        documents = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            mine = epochs == epoch
            documents[mine] = self._order(int(epoch))[places[mine]]
        rng = np.random.default_rng([self.seed, 1, window])
        # Ties in random order; steps in random order, or lengths would grow with time.
        shuffled = rng.permutation(documents)
        by_length = shuffled[np.argsort(self.lengths[shuffled], kind="stable")]
        return rng.permutation(by_length.reshape(WINDOW_STEPS, self.step_size))

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._epoch = (epoch, rng.permutation(len(self.lengths)))
        return self._epoch[1]


def pack_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Whole documents in rows of at most ``capacity`` tokens: first fit, longest first.

    Args:
        lengths: tokens of each document; none may exceed ``capacity``.

    Returns:
        document indices of each row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        if length > capacity:
            raise ValueError(f"document {index} of {length} tokens exceeds the capacity {capacity}")
        for row, room in enumerate(free):
            if room >= length:
                rows[row].append(index)
                free[row] -= length
                break
        else:
            rows.append([index])
            free.append(capacity - length)
    return rows
