"""How noisy training is: variance of the NELBO estimator under any interval of times, and of the
gradient; and the search for the interval that lowers it (BD3-LM, section 5).

A block of B tokens at time t has m ~ Binomial(B, t) masked tokens with summed cross-entropy l and
costs X = l / t. Under t ~ U(low, high],

    E[X^k] = sum_{m=1..B} E[l^k | m] c_k(m),
    c_k(m) = 1/(high - low) * integral of binomial(B, m) t^(m-k) (1-t)^(B-m) dt,

so the moments of l given m, which the draws of a validation give anyway (they are stratified over
m), yield the variance under every interval at once, without another pass of the network.

Shapes: S segments, B the largest block, I intervals.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.diffusion.schedule import LogLinearSchedule
from hbd3lm.model.batch import Batch
from hbd3lm.model.layout import Document, Layout
from hbd3lm.model.transformer import Transformer

SEARCH_WIDTH, SEARCH_STRIDE = 0.5, 0.05
"""Of the intervals searched: BD3-LM's."""


class BlockLosses(NamedTuple):
    """Losses of the blocks of a batch, each tensor [documents, blocks].

    Attributes:
        loss: weighted cross-entropy, in nats; a row's sum over a segment is its NELBO estimate.
        n_masked: masked tokens; 0 where a document has no such block, or no mask in it.
        segment: index into ``layout.segments``.
    """

    loss: Tensor
    n_masked: Tensor
    segment: Tensor

    def by_segment(self, n_segments: int) -> Tensor:
        """[documents, segments]: what :func:`negative_log_likelihood` gives for the batch."""
        total = self.loss.new_zeros(len(self.loss), n_segments)
        return total.scatter_add(1, self.segment, self.loss)


def block_losses(net: Transformer, batch: Batch) -> BlockLosses:
    """One pass over a batch of :class:`BlockDiffusion`, summed by block instead of by segment."""
    asked = [pair for part in batch.parts for pair in part.predictions]
    n_blocks = max(int(prediction.block.max()) for _, prediction in asked)
    table = batch.real_tokens.new_zeros(len(batch.real_tokens), n_blocks)
    n_masked, segment = table.flatten().clone(), table.flatten().clone()
    parts = []
    for part in batch.parts:
        by_block = []
        for tokens, prediction in part.predictions:
            select, block = prediction.weight > 0, prediction.block - 1
            cell = tokens.tags.document[select] * n_blocks + block[select]
            n_masked.index_add_(0, cell, torch.ones_like(cell))
            segment[cell] = prediction.segment[select]
            by_block.append(prediction._replace(segment=block))
        ahead = by_block[0] if part.ahead is not None else None
        parts.append(replace(part, prediction=by_block[-1], ahead=ahead))
    loss = negative_log_likelihood(net, Batch(tuple(parts), table))
    return BlockLosses(loss, n_masked.view_as(table), segment.view_as(table))


class BlockMoments:
    """Sums over validation draws: how often m tokens were masked, their loss and its square.

    Attributes:
        sums: float64 [S, B + 1, 3]: count, sum of l, sum of l^2, by segment and m.
    """

    def __init__(self, layout: Layout, device: torch.device | str = "cpu") -> None:
        self.sizes = [segment.block_size for segment in layout.segments]
        shape = (len(self.sizes), max(self.sizes) + 1, 3)
        self.sums = torch.zeros(shape, dtype=torch.float64, device=device)

    def add(self, losses: BlockLosses) -> None:
        """Count in blocks whose noise was drawn by count, that is weighted by size / m."""
        there = losses.n_masked > 0
        m, segment = losses.n_masked[there], losses.segment[there]
        size = torch.tensor(self.sizes, device=m.device)[segment]
        loss = losses.loss[there].to(self.sums) * m / size
        cell = segment * self.sums.shape[1] + m
        values = torch.stack([torch.ones_like(loss), loss, loss**2], 1)
        self.sums.view(-1, 3).index_add_(0, cell, values)

    def of(self, segment: int) -> np.ndarray:
        """[2, size]: E[l | m] and E[l^2 | m] for m = 1..size.

        A count that no draw had (few problems, large blocks) is interpolated from its neighbours.
        """
        size = self.sizes[segment]
        counts, *sums = self.sums[segment, 1 : size + 1].cpu().numpy().T
        seen, m = np.flatnonzero(counts), np.arange(size)
        return np.stack([np.interp(m, seen, row[seen] / counts[seen]) for row in sums])


@functools.lru_cache
def _gauss_legendre(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights; numpy finds them by eigenvalues, too slow for each of fifty integrals."""
    return np.polynomial.legendre.leggauss(order)


def interval_moments(size: int, low: float, high: float, power: int) -> np.ndarray:
    """[size]: c_power(m) for m = 1..size; see the head of this file.

    Infinite where t^(m - power) cannot be integrated: from ``low=0`` on, for m < power.
    """
    # In log t the integrand is smooth down to the smallest times, whose weight is the largest.
    nodes, weights = _gauss_legendre(max(128, 2 * size))
    first, last = math.log(low or 1e-12), math.log(high)
    log_t = first + (last - first) * (nodes + 1) / 2  # [nodes]
    m = np.arange(1, size + 1)[:, None]
    log_binomial = np.array(
        [math.lgamma(size + 1) - math.lgamma(k + 1) - math.lgamma(size - k + 1) for k in m[:, 0]]
    )[:, None]
    with np.errstate(divide="ignore"):
        log_1mt = np.log1p(-np.exp(log_t))
    log_rest = np.where(m == size, 0.0, (size - m) * log_1mt)
    density = np.exp(log_binomial + (m - power + 1) * log_t + log_rest)  # dt = t dlog(t)
    integral = density @ weights * (last - first) / 2 / (high - low)
    return np.where((low == 0) & (m[:, 0] < power), np.inf, integral)


def estimator_variance(moments: np.ndarray, interval: LogLinearSchedule) -> float:
    """Variance of the NELBO estimate of one block, over blocks and noise, in square nats.

    Infinite for an interval from 0 on (unless a block with one masked token costs nothing): the
    weight of that token is 1 / t.
    """
    size = moments.shape[1]
    sums = []
    for k in (1, 2):
        factors = interval_moments(size, interval.low, interval.high, k)
        there = moments[k - 1] > 0
        sums.append(float(moments[k - 1, there] @ factors[there]))
    mean, square = sums
    return square - mean**2


def search_grid(base: LogLinearSchedule) -> list[LogLinearSchedule]:
    """The base interval, then intervals of half its width from its low end to its high end."""
    width = SEARCH_WIDTH * (base.high - base.low)
    stride = SEARCH_STRIDE * (base.high - base.low)
    steps = round((base.high - base.low - width) / stride)
    lows = [base.low + i * stride for i in range(steps + 1)]
    return [base, *(LogLinearSchedule(low, min(base.high, low + width)) for low in lows)]


@dataclass(frozen=True)
class SearchResult:
    """Variance under every interval of the grid, for one segment.

    Attributes:
        best: index into ``intervals`` of the smallest variance.
    """

    segment: str
    block_size: int
    intervals: tuple[LogLinearSchedule, ...]
    variances: tuple[float, ...]

    @property
    def best(self) -> int:
        return min(range(len(self.variances)), key=lambda i: self.variances[i])

    def to_dict(self) -> dict:
        """JSON-ready: None for a variance that is infinite."""
        return {
            "segment": self.segment,
            "block_size": self.block_size,
            "chosen": [self.intervals[self.best].low, self.intervals[self.best].high],
            "table": [
                {
                    "beta": interval.low,
                    "omega": interval.high,
                    "variance": variance if math.isfinite(variance) else None,
                }
                for interval, variance in zip(self.intervals, self.variances)
            ],
        }


def search_intervals(
    moments: BlockMoments, layout: Layout, base: LogLinearSchedule
) -> list[SearchResult]:
    """The variance under every interval of the grid, segment by segment."""
    grid = search_grid(base)
    results = []
    for index, segment in enumerate(layout.segments):
        given = moments.of(index)
        variances = tuple(estimator_variance(given, interval) for interval in grid)
        results.append(SearchResult(segment.name, segment.block_size, tuple(grid), variances))
    return results


class GradientVariance(NamedTuple):
    """Of the training gradient of fixed documents, over the noise.

    Attributes:
        trace: of the covariance of the gradient of the loss per real token: the expected squared
            distance of one draw's gradient from their mean.
        squared_norm: of that mean, without the part of it that is noise.
    """

    trace: float
    squared_norm: float


def gradient_variance(
    net: Transformer,
    objective: BlockDiffusion,
    documents: Sequence[Document],
    draws: int,
    seed: int,
    step: int = 0,
    frozen: Container[str] = (),
) -> GradientVariance:
    """Draw the training noise of ``documents`` ``draws`` (at least 2) times, and compare gradients.

    Neither gradients nor the mode of ``net`` are changed. ``frozen`` modules have no gradient.
    """
    parameters = [p for p in net.parameters() if p.requires_grad]
    total = sum(int(document.real.sum()) for document in documents)
    squares = 0.0
    with torch.inference_mode(False), torch.enable_grad():
        mean = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for draw in range(draws):
            rng = np.random.default_rng([seed, 4, draw])
            noises = objective.training_noise(list(documents), rng, step)
            batch = objective.assemble(documents, noises).to(parameters[0].device)
            loss = negative_log_likelihood(net, batch, frozen).sum() / total
            for sum_, gradient in zip(mean, torch.autograd.grad(loss, parameters)):
                squares += float(gradient.double().square().sum()) / draws
                sum_ += gradient.double() / draws
    norm = sum(float(m.square().sum()) for m in mean)
    trace = (squares - norm) * draws / (draws - 1)
    return GradientVariance(trace, norm - trace / draws)
