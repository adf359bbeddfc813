"""Which documents meet in which batch: pure functions of (seed, step), hence resumable.

The documents form one endless sequence: epoch after epoch, each in an order of its own. It is
cut into windows of a few optimiser steps. Within a window documents are sorted by length, so
that those of one step are about equally long and padding costs next to nothing; or, for packed
rows, dealt out by length, so that every step has about the same number of tokens.
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
        alike: deal out each window by length, instead of sorting its steps by it.
    """

    def __init__(
        self, lengths: Sequence[int], step_size: int, seed: int, alike: bool = False
    ) -> None:
        self.lengths = np.asarray(lengths)
        self.step_size = step_size
        self.seed, self.alike = seed, alike
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
        if self.alike:
            # [step_size, WINDOW_STEPS]: each step gets one of every line, whichever.
            return rng.permuted(by_length.reshape(self.step_size, WINDOW_STEPS), axis=1).T
        return rng.permutation(by_length.reshape(WINDOW_STEPS, self.step_size))

    def _order(self, epoch: int) -> np.ndarray:
        if self._epoch[0] != epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._epoch = (epoch, rng.permutation(len(self.lengths)))
        return self._epoch[1]


def pack_rows(sizes: Sequence[int] | np.ndarray, capacity: int | Sequence[int]) -> list[list[int]]:
    """Whole documents in rows of limited capacity: first fit, longest first.

    Args:
        sizes: [documents], or [documents, kinds] where a row has a capacity for each of several
            kinds of tokens.
        capacity: tokens of a row, [kinds].

    Returns:
        document indices of each row.

    Raises:
        ValueError: a document exceeds the capacity.
    """
    sizes, capacity = np.asarray(sizes), np.atleast_1d(capacity)
    sizes = sizes.reshape(len(sizes), len(capacity))
    over = np.flatnonzero((sizes > capacity).any(1))
    if len(over):
        tokens = " and ".join(map(str, sizes[over[0]]))
        room = " and ".join(map(str, capacity))
        raise ValueError(f"document {over[0]} of {tokens} tokens exceeds the capacity {room}")
    share = (sizes / np.maximum(capacity, 1)).max(1)
    rows: list[list[int]] = []
    free = np.empty((len(sizes), len(capacity)), dtype=np.int64)  # of the rows so far
    for index in np.argsort(-share, kind="stable").tolist():
        fits = np.flatnonzero((free[: len(rows)] >= sizes[index]).all(1))
        if len(fits):
            row = int(fits[0])
            rows[row].append(index)
        else:
            row = len(rows)
            rows.append([index])
            free[row] = capacity
        free[row] -= sizes[index]
    return rows
