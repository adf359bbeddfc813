"""Likelihoods of whole data sets: fixed batches of noise draws, and sums per document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hbd3lm.diffusion.corruption import Noise
from hbd3lm.diffusion.objective import Objective, Rows, negative_log_likelihood
from hbd3lm.model.batch import Batch
from hbd3lm.model.layout import Document, Layout
from hbd3lm.model.transformer import Transformer

EvaluationBatch = tuple[Batch, list[int], list[float]]
"""A batch and, for each of its documents, its index in the data set and its share (1 / draws)."""


class EvaluationBatches(torch.utils.data.Dataset):
    """Every (document, draw of the noise) once, longest first: what needs most memory and time.

    The noise of document ``i`` is a function of (seed, i): the same whatever the batch size,
    the process count or the other documents.

    Args:
        samples: draws per document (an exact objective makes only one).
        turn: every turn has noise of its own.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        objective: Objective,
        samples: int,
        batch_size: int,
        seed: int,
        turn: int = 0,
    ) -> None:
        self.documents, self.objective = documents, objective
        self.samples, self.seed, self.turn = samples, seed, turn
        draws = len(self._noise(0))
        order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
        self.share = 1 / draws
        self.cells = [(i, draw) for i in order for draw in range(draws)]
        self.batch_size = batch_size

    def _noise(self, index: int):
        rng = np.random.default_rng([self.seed, 3, index] + [self.turn] * (self.turn > 0))
        return self.objective.evaluation_noise(self.documents[index], self.samples, rng)

    def __len__(self) -> int:
        return -(-len(self.cells) // self.batch_size)

    def __getitem__(self, index: int) -> EvaluationBatch:
        cells = self.cells[index * self.batch_size : (index + 1) * self.batch_size]
        draws: dict[int, list[int]] = {}
        for i, draw in cells:
            draws.setdefault(i, []).append(draw)
        noises = []
        for i, of_document in draws.items():
            every = self._noise(i)
            noises.append([every[draw] for draw in of_document])
        batch = self.objective.assemble_draws([self.documents[i] for i in draws], noises)
        return batch, [i for i, _ in cells], [self.share] * len(cells)


@dataclass(frozen=True)
class SegmentOnly:
    """An objective that predicts one segment, given all before it in the document.

    Its noise is drawn for that segment alone, so that documents which differ only in what is given
    meet the same noise, and differences between them are not those of the draws.
    """

    objective: Objective
    segment: int

    @property
    def layout(self) -> Layout:
        return self.objective.layout

    @property
    def is_bound(self) -> bool:
        return self.objective.is_bound

    def evaluation_noise(
        self, document: Document, samples: int, rng: np.random.Generator
    ) -> list[Noise]:
        mine = document.segment == self.segment
        first = document.block[mine][0]
        alone = replace(
            document,
            targets=document.targets[mine],
            segment=document.segment[mine],
            block=document.block[mine] - first + 1,
            real=document.real[mine],
        )
        whole = []
        for noise in self.objective.evaluation_noise(alone, samples, rng):
            masked, weight = np.zeros(len(mine), dtype=bool), np.zeros(len(mine), dtype=np.float32)
            masked[mine], weight[mine] = noise.masked, noise.weight
            whole.append(Noise(masked, weight))
        return whole

    def training_noise(
        self, documents: list[Document], rng: np.random.Generator, step: int = 0
    ) -> list[Noise]:
        raise NotImplementedError("a likelihood given a text is evaluated, not trained")

    def assemble(
        self, documents: Sequence[Document], noises: Sequence[Noise], rows: Rows | None = None
    ) -> Batch:
        return self.objective.assemble(documents, noises, rows)

    def assemble_draws(
        self, documents: Sequence[Document], noises: Sequence[Sequence[Noise]]
    ) -> Batch:
        return self.objective.assemble_draws(documents, noises)


def add_losses(table: Tensor, net: Transformer, item: EvaluationBatch) -> None:
    """Add a batch's share of the NLL (or NELBO), in nats, to ``table`` [documents, segments]."""
    batch, indices, shares = item
    add_shares(table, negative_log_likelihood(net, batch), indices, shares)


def add_shares(table: Tensor, losses: Tensor, indices: list[int], shares: list[float]) -> None:
    """Add a batch's ``losses`` [documents of the batch, segments], times their shares."""
    index = torch.tensor(indices, device=table.device)
    share = torch.tensor(shares, device=table.device)[:, None].to(table)
    table.index_add_(0, index, losses.to(table) * share)
