"""The key-value cache: a :class:`~hbd3lm.model.transformer.Memory` that is written in place.

Every problem in flight owns a row. A pass writes the keys and values of its tokens behind the
row's committed ones; ``commit`` keeps the clean tokens among them, everything else (the block
still being denoised) is overwritten by the next pass. Which columns a query sees is decided by
the tags in the cache, under the same mask rule as in training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.model.mask import UNUSED, Tags

GROWTH = 32
"""Columns the buffers grow by."""


class KVCache:
    """Keys and values of ``rows`` problems, up to ``capacity`` tokens each.

    Buffers per layer are [rows, kv heads, columns, head width] and only as long as the longest row
    needs: attention reads them whole, as they lie. (A product over part of a longer buffer copies
    that part first, in every layer of every pass.) The last column takes what padding writes and
    is never seen. They are allocated at the first pass, in the dtype the network computes in.
    """

    def __init__(self, rows: int, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        self.columns = GROWTH
        shape = (rows, self.columns)
        self.tags = Tags(
            torch.full(shape, UNUSED, device=device),
            torch.zeros(shape, dtype=torch.bool, device=device),
            torch.zeros(shape, dtype=torch.long, device=device),
        )
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def clear(self, row: int) -> None:
        """Forget a row, so that another problem can use it."""
        self.length[row] = 0
        self.tags.document[row] = UNUSED

    def open(self, rows: Tensor, real: Tensor) -> CachePass:
        """Prepare a pass of tokens over some rows.

        Args:
            rows: [n] which rows, without repetition.
            real: bool [n, L], False for padding.
        """
        start = self.length[rows]  # [n]
        column = start[:, None] + real.cumsum(1) - 1  # real tokens side by side
        width = int(column[:, -1].max()) + 1
        if width > self.capacity:
            raise ValueError(f"{width} tokens do not fit a cache of {self.capacity}")
        if width >= self.columns:
            self._grow((width // GROWTH + 1) * GROWTH)
        column = torch.where(real, column, self.columns - 1)
        everyone = len(rows) == len(self.length)
        return CachePass(self, rows, column, width, everyone)

    def _grow(self, columns: int) -> None:
        added = columns - self.columns
        self.columns = columns
        document, noisy, block = (F.pad(tag, (0, added)) for tag in self.tags)
        document[:, -added - 1 :] = UNUSED
        self.tags = Tags(document, noisy, block)
        for buffers in (self.keys, self.values):
            buffers[:] = [F.pad(buffer, (0, 0, 0, added)) for buffer in buffers]

    def commit(self, rows: Tensor, count: Tensor) -> None:
        """Keep the first ``count`` [n] tokens that the last pass wrote to ``rows`` [n]."""
        self.length[rows] += count


class CachePass:
    """The memory of one pass: rows [n], the column [n, L] of each token, columns in sight."""

    def __init__(
        self, cache: KVCache, rows: Tensor, column: Tensor, width: int, everyone: bool
    ) -> None:
        self.cache, self.rows, self.column = cache, rows, column
        self.width, self.everyone = width, everyone
        self._places: Tensor | None = None

    def _visible(self, buffer: Tensor, dim: int) -> Tensor:
        """This pass's rows: the buffer itself when all take part, else their columns in sight."""
        if self.everyone:
            return buffer
        return buffer.narrow(dim, 0, self.width).index_select(0, self.rows)

    def join_tags(self, tags: Tags) -> Tags:
        cache, rows = self.cache, self.rows[:, None]
        stale = torch.arange(cache.columns, device=cache.device) >= cache.length[rows]
        cache.tags.document[self.rows] = torch.where(stale, UNUSED, cache.tags.document[self.rows])
        for buffer, tag in zip(cache.tags, tags):
            buffer[rows, self.column] = tag
        cache.tags.document[:, -1] = UNUSED
        return Tags(*(self._visible(buffer, 1) for buffer in cache.tags))

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cache, heads = self.cache, k.shape[1]
        if layer == len(cache.keys):
            shape = (len(cache.length), heads, cache.columns, k.shape[3])
            cache.keys.append(k.new_zeros(shape))
            cache.values.append(k.new_zeros(shape))
        if self._places is None:
            # Of [n, heads, L] in a buffer seen as [rows * heads * columns, head width].
            line = self.rows[:, None] * heads + torch.arange(heads, device=cache.device)
            self._places = (line[:, :, None] * cache.columns + self.column[:, None]).flatten()
        for buffer, new in ((cache.keys[layer], k), (cache.values[layer], v)):
            buffer.view(-1, k.shape[3]).index_copy_(0, self._places, new.flatten(0, 2))
        return self._visible(cache.keys[layer], 2), self._visible(cache.values[layer], 2)
