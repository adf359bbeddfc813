"""Batches of one fixed shape, whatever documents are in them, so that a step is compiled once; or
of one of few shapes.

Rows, their length and the number of predictions are filled up: rows and their ends with padding,
predictions with places that have no weight. What FlexAttention must know of the mask is worked out
here as well, where batches are prepared, and not in the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.model.attention import make_tiles
from hbd3lm.model.batch import Batch, Part, Prediction, Tokens
from hbd3lm.model.mask import PADDING, Tags, cat_tags

ROUND = 16
"""Rows are multiples of so many tokens long."""
PREDICTION_ROUND = 64
MARGIN = 1.05
"""Predictions there is room for, over the most that a sample of batches had."""


@dataclass(frozen=True)
class PartCapacity:
    """Tokens of a row in each stream, and predictions of all rows; 0: there are none."""

    clean: int
    noisy: int
    predicted: int
    ahead: int = 0


@dataclass(frozen=True)
class Capacity:
    """The shape that batches are filled up to."""

    rows: int
    parts: tuple[PartCapacity, ...]

    @property
    def row_sizes(self) -> list[int]:
        """The streams' lengths, part by part: what documents in a row share."""
        return [size for part in self.parts for size in (part.clean, part.noisy)]


def count_tokens(batch: Batch) -> list[int]:
    """Lengths of the streams of a batch, part by part, as :attr:`Capacity.row_sizes` has them."""
    return [
        0 if stream is None else stream.ids.shape[1]
        for part in batch.parts
        for stream in (part.clean, part.noisy)
    ]


def row_sizes(mean: Sequence[float], largest: Sequence[int], length: int) -> list[int]:
    """Lengths of the streams of a row of ``length`` tokens.

    The longest stream gets ``length``, the others in proportion to what documents have of them on
    average, and all at least what the largest document needs.
    """
    most = max(mean)
    return [
        -(-max(size, round(length * m / most)) // ROUND) * ROUND for m, size in zip(mean, largest)
    ]


def plan_capacity(row_sizes: Sequence[int], batches: Iterable[Batch]) -> Capacity:
    """Rows and predictions for which a sample of (not yet filled up) batches is typical."""
    rows, counts = 0, []
    for batch in batches:
        rows = max(rows, batch.parts[0].clean.ids.shape[0])
        counts.append([_counts(part) for part in batch.parts])
    parts = []
    for i, of_part in enumerate(zip(*counts)):
        clean, noisy = row_sizes[2 * i : 2 * i + 2]
        predicted, ahead = (
            min(-(-round(MARGIN * max(n)) // PREDICTION_ROUND) * PREDICTION_ROUND, rows * width)
            for n, width in zip(zip(*of_part), (noisy or clean, clean))
        )
        parts.append(PartCapacity(clean, noisy, predicted, ahead))
    return Capacity(rows, tuple(parts))


def _counts(part: Part) -> tuple[int, int]:
    """Predictions of the last stream, and those of the clean one beside it."""
    ahead = 0 if part.ahead is None else len(part.ahead.select)
    return len(part.prediction.select), ahead


def fill_up(batch: Batch, capacity: Capacity, tiles: bool = False) -> Batch:
    """The same batch in the shape of ``capacity``.

    A batch that has more rows or predictions than there is room for gets more of them, which is
    another shape: rare, and dearer than it need be, but nothing is left out.

    Args:
        tiles: work out the tiles of FlexAttention's mask.

    Raises:
        ValueError: a row is longer than the capacity, or rows share their clean tokens.
    """
    if any(part.rows is not None for part in batch.parts):
        raise ValueError("draws that share clean tokens are for evaluation, which fills nothing up")
    rows = max(capacity.rows, batch.parts[0].clean.ids.shape[0])
    parts, past = [], None
    for part, room in zip(batch.parts, capacity.parts, strict=True):
        clean = _fill_tokens(part.clean, rows, room.clean)
        noisy = None if part.noisy is None else _fill_tokens(part.noisy, rows, room.noisy)
        ahead = part.ahead
        if ahead is not None:
            ahead = _fill_prediction(ahead, rows, room.clean, room.ahead)
        width = room.clean if noisy is None else room.noisy
        prediction = _fill_prediction(part.prediction, rows, width, room.predicted)
        if tiles:
            seen = clean.tags if past is None else cat_tags(past, clean.tags)
            clean = replace(clean, tiles=make_tiles(clean.tags, seen))
            if noisy is not None:
                own = cat_tags(seen, noisy.tags)
                noisy = replace(noisy, tiles=make_tiles(noisy.tags, own))
            past = seen
        parts.append(Part(part.module, clean, noisy, prediction, ahead))
    return Batch(tuple(parts), batch.real_tokens)


def round_up(batch: Batch) -> Batch:
    """The same batch in one of not too many shapes.

    oneDNN makes a kernel for every shape of a product it meets, and keeps it: where no two steps
    were alike that took a tenth of a small model's step, and memory that grew for hundreds of them.
    """
    rows = batch.parts[0].clean.ids.shape[0]
    sizes = iter(count_tokens(batch))
    parts = []
    for part in batch.parts:
        clean, noisy = (-(-next(sizes) // ROUND) * ROUND for _ in range(2))
        predicted, ahead = map(_round_predictions, _counts(part))
        parts.append(PartCapacity(clean, noisy, predicted, ahead))
    return fill_up(batch, Capacity(rows, tuple(parts)))


def _round_predictions(n: int) -> int:
    """To a multiple of 32, or of a sixteenth of the power of two below ``n``."""
    step = max(32, 1 << n.bit_length() >> 5)
    return -(-n // step) * step


def _fill(x: Tensor, rows: int, width: int, value: int = 0) -> Tensor:
    """[N, L] -> [rows, width]."""
    if x.shape[1] > width:
        raise ValueError(f"a row of {x.shape[1]} tokens does not fit into {width}")
    return F.pad(x, (0, width - x.shape[1], 0, rows - x.shape[0]), value=value)


def _fill_tokens(tokens: Tokens, rows: int, width: int) -> Tokens:
    document, noisy, block = tokens.tags
    tags = Tags(
        _fill(document, rows, width, PADDING), _fill(noisy, rows, width), _fill(block, rows, width)
    )
    return Tokens(_fill(tokens.ids, rows, width), _fill(tokens.position, rows, width), tags)


def _fill_prediction(prediction: Prediction, rows: int, width: int, room: int) -> Prediction:
    filled = Prediction(*(_fill(t, rows, width) for t in prediction[:4]))
    places = filled.select
    while room < len(places):
        room += -(-max(room // 8, 1) // PREDICTION_ROUND) * PREDICTION_ROUND
    room = min(room, rows * width)
    if room > len(places):
        # Any place without weight will do; where all predict there is no room left to fill.
        idle = int((filled.weight.flatten() == 0).nonzero()[0])
        places = torch.cat([places, places.new_full((room - len(places),), idle)])
    return filled._replace(places=places)
