"""The key-value cache: a :class:`~hbd3lm.model.transformer.Memory` that is written in place.

Every problem in flight owns a row. A pass writes the keys and values of its tokens behind the
row's committed ones; ``commit`` keeps the clean tokens among them, everything else (the block
still being denoised) is overwritten by the next pass. Which columns a query sees is decided by
the tags in the cache, under the same mask rule as in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hbd3lm.model.mask import UNUSED, Tags


class KVCache:
    """Keys and values of ``rows`` problems, up to ``capacity`` tokens each.

    Buffers per layer are [rows, kv heads, capacity + 1, head width], so that attention reads them
    where they lie; the extra column takes what padding writes and is never seen. They are
    allocated at the first pass, in the dtype the network computes in.
    """

    def __init__(self, rows: int, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        shape = (rows, capacity + 1)
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
        column = torch.where(real, column, self.capacity)
        everyone = len(rows) == len(self.length)
        return CachePass(self, rows, column, width, everyone)

    def commit(self, rows: Tensor, count: Tensor) -> None:
        """Keep the first ``count`` [n] tokens that the last pass wrote to ``rows`` [n]."""
        self.length[rows] += count


@dataclass(frozen=True)
class CachePass:
    """The memory of one pass: rows [n], the column [n, L] of each token, columns in sight."""

    cache: KVCache
    rows: Tensor
    column: Tensor
    width: int
    everyone: bool

    def _visible(self, buffer: Tensor, dim: int = 1) -> Tensor:
        """The columns in sight, along ``dim``, of this pass's rows; a view when all take part."""
        seen = buffer.narrow(dim, 0, self.width)
        return seen if self.everyone else seen.index_select(0, self.rows)

    def join_tags(self, tags: Tags) -> Tags:
        cache, rows = self.cache, self.rows[:, None]
        stale = torch.arange(cache.capacity + 1, device=cache.device) >= cache.length[rows]
        cache.tags.document[self.rows] = torch.where(stale, UNUSED, cache.tags.document[self.rows])
        for buffer, tag in zip(cache.tags, tags):
            buffer[rows, self.column] = tag
        cache.tags.document[:, cache.capacity] = UNUSED
        return Tags(*(self._visible(buffer) for buffer in cache.tags))

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        cache = self.cache
        if layer == len(cache.keys):
            shape = (len(cache.length), k.shape[1], cache.capacity + 1, k.shape[3])
            cache.keys.append(k.new_zeros(shape))
            cache.values.append(k.new_zeros(shape))
        rows = self.rows[:, None]
        cache.keys[layer][rows, :, self.column] = k.transpose(1, 2)  # [n, L, Hkv, dh]
        cache.values[layer][rows, :, self.column] = v.transpose(1, 2)
        return self._visible(cache.keys[layer], 2), self._visible(cache.values[layer], 2)
