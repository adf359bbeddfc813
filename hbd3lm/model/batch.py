"""Batches of tagged tokens, as the network, the losses and the samplers exchange them.

Shapes: N rows, Lc clean (x_0) and Ln noisy (x_t) tokens a row. A row holds one document
(length-bucketed batches) or several (packed batches); the mask rule keeps them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hbd3lm.model.mask import PADDING, Tags, Tiles

Piece = dict[str, np.ndarray]
"""Equally long 1-d arrays ``ids, position, document, noisy, block`` (and what else rides along)."""


@dataclass(frozen=True)
class Tokens:
    """A stretch of tokens as the network takes it: ids, positions and tags, each [N, L]."""

    ids: Tensor
    position: Tensor
    tags: Tags
    tiles: Tiles | None = None
    """What FlexAttention must know of the keys in sight of a training batch, if made beforehand."""

    def to(self, device: torch.device | str) -> Tokens:
        ids, position, *tags = (
            t.to(device, non_blocking=True) for t in (self.ids, self.position, *self.tags)
        )
        tiles = self.tiles
        if tiles is not None:
            tiles = Tiles(*(t.to(device, non_blocking=True) for t in tiles))
        return Tokens(ids, position, Tags(*tags), tiles)

    @property
    def is_padding(self) -> Tensor:
        """Bool [N, L]."""
        return self.tags.document < 0


class Prediction(NamedTuple):
    """What each token of a stream predicts; tensors [N, L].

    Attributes:
        targets: ids.
        weight: float32 weight of the token's cross-entropy; 0 where nothing is predicted.
        segment: index into ``layout.segments`` of the target.
        block: ordinal of the target's block, 1 for the first predicted one.
        places: [M] where in the flattened [N * L] something is predicted, filled up with places
            of weight 0; None: wherever the weight is positive.
    """

    targets: Tensor
    weight: Tensor
    segment: Tensor
    block: Tensor
    places: Tensor | None = None

    @property
    def select(self) -> Tensor:
        """int64 [M]: :attr:`places`, found if they are not given."""
        if self.places is not None:
            return self.places
        return (self.weight > 0).flatten().nonzero()[:, 0]

    def to(self, device: torch.device | str) -> Prediction:
        return Prediction(*(None if t is None else t.to(device, non_blocking=True) for t in self))


@dataclass(frozen=True)
class Part:
    """The tokens one module runs: clean and noisy stream, and what is to be predicted.

    With ``shared`` modules a batch has one part that holds all segments; with ``separate`` ones
    the plan's part comes first and the execution's reads it through its keys and values.

    Attributes:
        module: name of the stack that runs it.
        clean: x_0 stream [N, Lc]; for the autoregressive objective the only stream.
        noisy: x_t stream [N, Ln], or None.
        prediction: what the tokens of ``noisy`` (else of ``clean``) predict.
        ahead: beside a noisy stream, what those of ``clean`` predict: under a shifted head, the
            first tokens of blocks; None: nothing.
        rows: [rows of ``noisy``] which row of ``clean`` each of them reads, where several draws of
            the noise share one clean copy of their document; None: row for row.
    """

    module: str
    clean: Tokens
    noisy: Tokens | None
    prediction: Prediction
    ahead: Prediction | None = None
    rows: Tensor | None = None

    @property
    def predicting(self) -> Tokens:
        """The stream whose hidden states the loss reads (beside those of ``ahead``)."""
        return self.clean if self.noisy is None else self.noisy

    @property
    def predictions(self) -> list[tuple[Tokens, Prediction]]:
        """Streams and what they predict, in the order they run."""
        first = [] if self.ahead is None else [(self.clean, self.ahead)]
        return [*first, (self.predicting, self.prediction)]

    def to(self, device: torch.device | str) -> Part:
        return Part(
            self.module,
            self.clean.to(device),
            None if self.noisy is None else self.noisy.to(device),
            self.prediction.to(device),
            None if self.ahead is None else self.ahead.to(device),
            None if self.rows is None else self.rows.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Batch:
    """What a training step or a likelihood evaluation eats.

    Attributes:
        parts: in running order; later parts see the clean tokens of earlier ones.
        real_tokens: [documents, segments] int64, text and end tokens (no fill) of each document.
    """

    parts: tuple[Part, ...]
    real_tokens: Tensor

    def to(self, device: torch.device | str) -> Batch:
        parts = tuple(part.to(device) for part in self.parts)
        return Batch(parts, self.real_tokens.to(device, non_blocking=True))

    def padding_share(self) -> float:
        """Share of the computed positions that hold no token."""
        streams = [s for part in self.parts for s in (part.clean, part.noisy) if s is not None]
        padding = sum(int(stream.is_padding.sum()) for stream in streams)
        return padding / sum(stream.ids.numel() for stream in streams)

    def head_padding_share(self) -> float:
        """Share of the predictions computed that are none: places that only fill up."""
        asked = [prediction for part in self.parts for _, prediction in part.predictions]
        computed = sum(len(prediction.select) for prediction in asked)
        real = sum(int((prediction.weight > 0).sum()) for prediction in asked)
        return 1 - real / computed if computed else 0.0


def stack_rows(rows: Sequence[Sequence[Piece]], width: int | None = None) -> dict[str, Tensor]:
    """Lay pieces side by side in rows and pad all rows to one length.

    Args:
        rows: for each row its pieces, all with the same keys. ``document`` is padded with
            ``PADDING``, everything else with 0.
        width: length of a row in tokens; None: that of the longest.

    Returns:
        the same keys, each [N, width].
    """
    longest = max(sum(len(piece["document"]) for piece in row) for row in rows)
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"a row of {longest} tokens does not fit into {width}")
    first = next(piece for row in rows for piece in row)
    stacked = {}
    for key, sample in first.items():
        fill = PADDING if key == "document" else 0
        table = np.full((len(rows), width), fill, dtype=sample.dtype)
        for line, row in zip(table, rows):
            start = 0
            for piece in row:
                line[start : start + len(piece[key])] = piece[key]
                start += len(piece[key])
        stacked[key] = torch.from_numpy(table)
    return stacked


def as_tokens(stacked: dict[str, Tensor]) -> Tokens:
    """The token fields of :func:`stack_rows`."""
    tags = Tags(stacked["document"], stacked["noisy"], stacked["block"])
    return Tokens(stacked["ids"], stacked["position"], tags)


def as_prediction(stacked: dict[str, Tensor]) -> Prediction:
    """What rides along in :func:`stack_rows`: ``target, weight, segment, target_block``."""
    return Prediction(*(stacked[key] for key in ("target", "weight", "segment", "target_block")))
