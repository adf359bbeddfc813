"""Corruption q(x_t | x_0): which tokens of a document are masked, and what each then weighs.

Two estimators of the same bound. For a block of B tokens, with loss(S) the summed
cross-entropy of the masked set S given the rest,

    NELBO = E_{t~U(0,1]} (1/t) E_{S~t} loss(S)                 (by_time: training)
          = sum_{m=1..B} (1/m) E_{|S|=m} loss(S)               (by_count: evaluation)

because integral over t of (1/t) t^m (1-t)^(B-m) = 1 / (m * binomial(B, m)). The second form
has no random weights, so it has much less variance; with B = 1 it is the exact
autoregressive negative log-likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hbd3lm.diffusion.schedule import LogLinearSchedule, stratified_uniform
from hbd3lm.model.layout import Document


@dataclass(frozen=True)
class Noise:
    """One draw for one document: ``masked`` bool [Ln] and ``weight`` float32 [Ln], 0 if clean."""

    masked: np.ndarray
    weight: np.ndarray


def noise_by_time(
    documents: list[Document],
    schedules: LogLinearSchedule | Sequence[LogLinearSchedule],
    rng: np.random.Generator,
) -> list[Noise]:
    """One time per block, stratified over all blocks of all ``documents``; weight 1/t.

    Args:
        schedules: one for all segments, or one for each.
    """
    one = isinstance(schedules, LogLinearSchedule)
    blocks = np.array([document.n_blocks for document in documents])
    uniform = stratified_uniform(int(blocks.sum()), rng)
    noises = []
    for document, of_blocks in zip(documents, np.split(uniform, np.cumsum(blocks)[:-1])):
        u = of_blocks[document.block - 1]  # [Ln]
        if one:
            t = schedules.stretch(u)
        else:
            stretched = np.stack([schedule.stretch(u) for schedule in schedules])
            t = np.take_along_axis(stretched, document.segment[None], 0)[0]
        masked = rng.random(len(t)) < LogLinearSchedule.mask_probability(t)
        weight = np.where(masked, LogLinearSchedule.weight(t), 0.0).astype(np.float32)
        noises.append(Noise(masked, weight))
    return noises


def noise_by_count(document: Document, samples: int, rng: np.random.Generator) -> list[Noise]:
    """``samples`` draws whose number of masked tokens per block is stratified over 1..B.

    A sample's weighted loss estimates the bound; their mean is the estimate. With
    ``samples`` a multiple of B every m is drawn equally often, otherwise systematically.
    """
    ordinal, start, size = np.unique(document.block, return_index=True, return_counts=True)
    # [samples, blocks]: systematic over samples, in an order of its own for every block.
    strata = rng.permuted(np.tile(np.arange(samples)[:, None], len(ordinal)), axis=0)
    u = (strata + rng.random(len(ordinal))) / samples
    n_masked = np.floor(u * size).astype(np.int64) + 1
    noises = []
    for counts in n_masked:
        # The m smallest of random keys: a uniform subset of size m in each block.
        keys = rng.random(len(document.block))
        order = np.lexsort((keys, document.block))
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        rank -= start[document.block - 1]
        masked = rank < counts[document.block - 1]
        weight = np.where(masked, (size / counts)[document.block - 1], 0.0).astype(np.float32)
        noises.append(Noise(masked, weight))
    return noises
