"""The two objectives behind one interface: block diffusion and next-token prediction.

Everything a method has of its own is here and in its layout: how documents become batches,
and whether the likelihood it gives is a bound. ``hierarchical``, ``flat`` and ``mdlm`` are
layouts of :class:`BlockDiffusion`; ``ar`` is :class:`Autoregressive`, with or without a plan.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hbd3lm.diffusion.corruption import Noise, noise_by_count, noise_by_time
from hbd3lm.diffusion.schedule import LogLinearSchedule, SearchedSchedule
from hbd3lm.errors import UserError
from hbd3lm.model.batch import Batch, Part, Piece, as_prediction, as_tokens, stack_rows
from hbd3lm.model.layout import Document, Layout
from hbd3lm.model.transformer import SHARED, SharedPast, Transformer

Rows = Sequence[Sequence[int]]
"""Which documents (by index) lie in each row of a batch."""


class Objective(Protocol):
    """What training and evaluation need to know of a method."""

    layout: Layout
    is_bound: bool
    """True: the likelihood is a NELBO (an upper bound on the NLL); False: it is exact."""

    def training_noise(
        self, documents: list[Document], rng: np.random.Generator, step: int = 0
    ) -> list[Noise]:
        """One draw per document, for optimiser step ``step``."""

    def evaluation_noise(
        self, document: Document, samples: int, rng: np.random.Generator
    ) -> list[Noise]:
        """Draws whose mean weighted loss is an unbiased estimate, for one document."""

    def assemble(
        self, documents: Sequence[Document], noises: Sequence[Noise], rows: Rows | None = None
    ) -> Batch:
        """Documents and their noise as a batch; ``rows`` None: one document a row."""

    def assemble_draws(
        self, documents: Sequence[Document], noises: Sequence[Sequence[Noise]]
    ) -> Batch:
        """One or more draws of the noise of each document; every draw is a document of the batch.

        To be evaluated only: draws may share what is clean in them.
        """


def repeat_documents(
    documents: Sequence[Document], noises: Sequence[Sequence[Noise]]
) -> tuple[list[Document], list[Noise]]:
    """Each draw of the noise beside its document: what :meth:`Objective.assemble` takes."""
    pairs = [(document, noise) for document, draws in zip(documents, noises) for noise in draws]
    return [document for document, _ in pairs], [noise for _, noise in pairs]


def negative_log_likelihood(net: Transformer, batch: Batch, frozen: Container[str] = ()) -> Tensor:
    """Weighted cross-entropy of every document and segment: float32 [documents, segments].

    For diffusion this is an unbiased estimate of the NELBO, for ``ar`` the exact NLL, in nats.

    Args:
        frozen: modules whose weights are constants, when it is the gradient that is asked for.
            Losses in which no other weight takes part are left out (0): a frozen plan module only
            runs its clean tokens, for the keys that the execution reads. A frozen execution
            module runs: its loss depends on the plan module, through those keys.
    """
    n_documents, n_segments = batch.real_tokens.shape
    total = torch.zeros(n_documents * n_segments, device=batch.real_tokens.device)
    past = None
    learning = False  # has any part so far weights that are no constants?
    for part in batch.parts:
        learning = learning or part.module not in frozen
        if not learning:
            with torch.no_grad():
                _, past = net(part.clean, past, part.module, keys_only=True)
            continue
        streams = [part.clean] if part.noisy is None else [part.clean, part.noisy]
        # Both streams looked up at once: each look-up's gradient is a pass over the table.
        x, table = net.embed(torch.cat([stream.ids.flatten() for stream in streams]), part.module)
        *x_0, x_t = (
            own.unflatten(0, stream.ids.shape)
            for own, stream in zip(x.split([stream.ids.numel() for stream in streams]), streams)
        )
        hidden = []
        if part.noisy is not None:
            ahead = None if part.ahead is None else part.ahead.select
            first, past = net(
                part.clean, past, part.module, ahead, keys_only=ahead is None, embedded=x_0[0]
            )
            hidden += [] if first is None else [first]
        select = part.prediction.select
        seeing = past if part.rows is None else SharedPast(past, part.rows)
        # Noisy tokens are nobody's past, nor are the last part's.
        last, seen = net(
            part.predicting,
            seeing,
            part.module,
            select=select,
            embedded=x_t,
            remember=part.noisy is None and part is not batch.parts[-1],
        )
        past = past if seen is None else seen
        hidden.append(last)
        targets, weight, cell = select_predictions(part, n_segments)
        loss = net.cross_entropy(torch.cat(hidden), targets, part.module, table)
        total = total.index_add(0, cell, loss.to(total) * weight)
    return total.view(n_documents, n_segments)


def select_predictions(part: Part, n_columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of all tokens of a part that predict: targets, weights and cells, each [M].

    A cell is a place of the flattened [documents, segments].
    """
    targets, weight, cell = [], [], []
    for tokens, prediction in part.predictions:
        select = prediction.select
        targets.append(prediction.targets.flatten()[select])
        weight.append(prediction.weight.flatten()[select])
        # A place that only fills up may be padding, which has no document; it weighs nothing.
        document = tokens.tags.document.flatten()[select].clamp(min=0)
        cell.append(document * n_columns + prediction.segment.flatten()[select].clamp(min=0))
    return torch.cat(targets), torch.cat(weight), torch.cat(cell)


def count_real_tokens(documents: Sequence[Document], layout: Layout) -> Tensor:
    """[documents, segments] text and end tokens; fill is predicted but not counted."""
    n_segments = len(layout.segments)
    counts = [np.bincount(d.segment[d.real], minlength=n_segments) for d in documents]
    return torch.from_numpy(np.stack(counts))


def _piece(ids: np.ndarray, position: np.ndarray, document: int, noisy: bool, block) -> Piece:
    return {
        "ids": ids,
        "position": position,
        "document": np.full(len(ids), document),
        "noisy": np.full(len(ids), noisy),
        "block": np.broadcast_to(np.asarray(block), ids.shape),
    }


@dataclass(frozen=True)
class BlockDiffusion:
    """BD3-LM over the layout's segments: absorbing noise block by block, given a clean past.

    Attributes:
        layout: segments and block sizes.
        mask_id: the absorbing state.
        modules: ``shared`` or ``separate`` (see :class:`ModelConfig`).
        schedule: times for training.
        searched: intervals found while training, instead of ``schedule``.
        shift, causal_context: see :class:`ModelConfig`.
    """

    layout: Layout
    mask_id: int
    modules: str = "shared"
    schedule: LogLinearSchedule = field(default_factory=LogLinearSchedule)
    searched: SearchedSchedule | None = None
    shift: bool = False
    causal_context: bool = False

    def __post_init__(self) -> None:
        if self.modules == "separate" and not self.layout.has_plan:
            raise UserError(
                "hierarchical.modules=separate needs a plan: set "
                "training.hierarchical.enabled=true, or hierarchical.modules=shared"
            )

    @property
    def is_bound(self) -> bool:
        """A block of one token has no order to marginalise: then the NELBO is the exact NLL."""
        return any(segment.block_size > 1 for segment in self.layout.segments)

    def training_noise(
        self, documents: list[Document], rng: np.random.Generator, step: int = 0
    ) -> list[Noise]:
        schedules = self.schedule if self.searched is None else self.searched.at(step)
        return noise_by_time(documents, schedules, rng)

    def evaluation_noise(
        self, document: Document, samples: int, rng: np.random.Generator
    ) -> list[Noise]:
        return noise_by_count(document, samples, rng)

    def assemble(
        self, documents: Sequence[Document], noises: Sequence[Noise], rows: Rows | None = None
    ) -> Batch:
        rows = [[i] for i in range(len(documents))] if rows is None else rows
        return self._assemble(documents, noises, rows)

    def assemble_draws(
        self, documents: Sequence[Document], noises: Sequence[Sequence[Noise]]
    ) -> Batch:
        repeated, flat = repeat_documents(documents, noises)
        if self.shift:  # what clean tokens predict depends on the draw
            return self.assemble(repeated, flat)
        rows = [[i] for i in range(len(flat))]
        counts = [len(draws) for draws in noises]
        return self._assemble(repeated, flat, rows, np.repeat(np.arange(len(counts)), counts))

    def _assemble(
        self,
        documents: Sequence[Document],
        noises: Sequence[Noise],
        rows: Rows,
        clean_rows: np.ndarray | None = None,
    ) -> Batch:
        """``clean_rows``: the clean row that each row reads, if shared (``Part.rows``)."""
        own, which = rows, None
        if clean_rows is not None:
            own = [rows[i] for i in np.unique(clean_rows, return_index=True)[1]]
            which = torch.from_numpy(clean_rows)
        if self.modules == "shared":
            modules = [(SHARED, range(len(self.layout.segments)))]
        else:
            modules = [(segment.name, [i]) for i, segment in enumerate(self.layout.segments)]
        parts = []
        for module, segments in modules:
            pieces = [
                self._pieces(index, documents[index], noises[index], segments)
                for index in range(len(documents))
            ]
            clean = stack_rows([[pieces[i][0] for i in row] for row in own])
            noisy = stack_rows([[pieces[i][1] for i in row] for row in rows])
            ahead = as_prediction(clean) if self.shift else None
            if ahead is not None and not noisy["ids"].shape[1]:  # nothing but first tokens asked
                parts.append(Part(module, as_tokens(clean), None, ahead))
                continue
            asked = as_prediction(noisy)
            parts.append(Part(module, as_tokens(clean), as_tokens(noisy), asked, ahead, which))
        return Batch(tuple(parts), count_real_tokens(documents, self.layout))

    def _pieces(
        self, index: int, document: Document, noise: Noise, segments: Sequence[int]
    ) -> tuple[Piece, Piece]:
        """The clean and the noisy tokens of one document that belong to some segments."""
        n, n_question = len(document), len(document.question)
        ids = np.concatenate([document.question, document.targets])
        block = np.concatenate([np.zeros(n_question, dtype=np.int64), document.block])
        first = np.diff(block, prepend=0) > 0  # of its block
        segment = np.concatenate([np.full(n_question, -1), document.segment])
        masked = np.concatenate([np.zeros(n_question, dtype=bool), noise.masked])
        weight = np.concatenate([np.zeros(n_question, dtype=np.float32), noise.weight])
        mine = np.isin(segment, list(segments))
        if 0 in segments:  # the question belongs to the first module
            mine[:n_question] = True
        # Tokens that no prediction reads are left out: noisy blocks without a mask (or, shifted,
        # without one behind their first token), which only they themselves see, and the clean copy
        # of the last block, which no later one follows.
        has_mask = np.zeros(document.n_blocks + 1, dtype=bool)
        has_mask[block[masked & ~(first & self.shift)]] = True
        noisy = np.flatnonzero(mine & has_mask[block])
        clean = np.flatnonzero(mine & (block < document.n_blocks))
        if self.shift and 0 not in segments:
            # The token that predicts a later module's first one is run by that module, too.
            clean = np.concatenate([np.flatnonzero(mine)[:1] - 1, clean])
        # What a token predicts: itself, or the next one.
        asked = np.minimum(np.arange(n) + self.shift, n - 1)
        there = masked[asked] & mine[asked] & (np.arange(n) + self.shift < n)
        in_block = block[asked] == block
        ordinal = {False: block, True: block}  # of the clean and the noisy copy
        if self.causal_context:
            starts = np.flatnonzero(first)
            ordinal = {False: np.arange(n), True: np.concatenate([[0], starts])[block]}

        def piece(at: np.ndarray, is_noisy: bool, predicts: np.ndarray) -> Piece:
            x = np.where(masked[at], self.mask_id, ids[at]) if is_noisy else ids[at]
            tokens = _piece(x, at, index, is_noisy, ordinal[is_noisy][at])
            if not (is_noisy or self.shift):  # clean tokens predict nothing
                return tokens
            target = asked[at]
            return tokens | {
                "target": ids[target],
                "weight": np.where((there & predicts)[at], weight[target], np.float32(0)),
                "segment": segment[target],
                "target_block": block[target],
            }

        return piece(clean, False, ~in_block), piece(noisy, True, in_block)


@dataclass(frozen=True)
class Autoregressive:
    """The ordinary next-token model: one clean, causal stream; exact likelihoods.

    Every token is a block of its own, so the one mask rule is the causal mask. The layout must
    have block size 1 (hence no fill).
    """

    layout: Layout
    modules: str = "shared"
    is_bound = False

    def __post_init__(self) -> None:
        if self.modules != "shared":
            raise UserError(
                "hierarchical.modules=separate does not fit algo=ar: its plan's last token "
                "predicts the execution's first; use hierarchical.modules=shared"
            )
        if any(segment.block_size != 1 for segment in self.layout.segments):
            raise UserError("algo=ar predicts token by token: block_size must be 1")

    def training_noise(
        self, documents: list[Document], rng: np.random.Generator, step: int = 0
    ) -> list[Noise]:
        del rng, step
        return [self._no_noise(document) for document in documents]

    def evaluation_noise(
        self, document: Document, samples: int, rng: np.random.Generator
    ) -> list[Noise]:
        del samples, rng  # exact: one pass says it all
        return [self._no_noise(document)]

    @staticmethod
    def _no_noise(document: Document) -> Noise:
        n = len(document.targets)
        return Noise(np.zeros(n, dtype=bool), np.ones(n, dtype=np.float32))

    def assemble(
        self, documents: Sequence[Document], noises: Sequence[Noise], rows: Rows | None = None
    ) -> Batch:
        rows = [[i] for i in range(len(documents))] if rows is None else rows
        stacked = stack_rows(
            [[self._piece(i, documents[i], noises[i]) for i in row] for row in rows]
        )
        part = Part(SHARED, as_tokens(stacked), None, as_prediction(stacked))
        return Batch((part,), count_real_tokens(documents, self.layout))

    def assemble_draws(
        self, documents: Sequence[Document], noises: Sequence[Sequence[Noise]]
    ) -> Batch:
        return self.assemble(*repeat_documents(documents, noises))

    @staticmethod
    def _piece(index: int, document: Document, noise: Noise) -> Piece:
        n_question, n = len(document.question), len(document)
        ids = np.concatenate([document.question, document.targets])[:-1]
        # Token i predicts token i + 1: the question's last token starts the first segment.
        shifted = slice(n_question - 1, None)
        target, segment, block = np.zeros((3, n - 1), dtype=np.int64)
        weight = np.zeros(n - 1, dtype=np.float32)
        target[shifted], segment[shifted] = document.targets, document.segment
        block[shifted] = document.block
        weight[shifted] = noise.weight
        position = np.arange(n - 1)
        extra = {"target": target, "segment": segment, "weight": weight, "target_block": block}
        return _piece(ids, position, index, False, position) | extra
