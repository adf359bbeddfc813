"""A table that embeds tokens and is the output head as well, with one gradient for both.

Autograd would make two gradients as large as the table, most of the first one zeros, and add them:
for GPT-2's vocabulary the largest tensors of a training step.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def embed_tied(table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The rows ``ids`` [...] of table [V, D] -> [..., D]; and the table, for the head to read.

    On CUDA these are two separate uses: there, a look-up's own gradient repeats to the bit, and
    adding to rows does not.
    """
    if table.device.type != "cpu":
        return F.embedding(ids, table), table
    return _TiedLookup.apply(table, ids)


class _TiedLookup(torch.autograd.Function):
    """Adds the gradient of the rows to that of the table, in place."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids)
        ctx.set_materialize_grads(False)
        ctx.like = table.shape, table.dtype
        return F.embedding(ids, table), table.view_as(table)

    @staticmethod
    def backward(ctx: Any, to_rows: Tensor | None, to_table: Tensor | None) -> tuple:
        (ids,) = ctx.saved_tensors
        shape, dtype = ctx.like
        if to_table is None:  # nothing was predicted
            to_table = torch.zeros(shape, dtype=dtype)
        if to_rows is not None:
            to_table = to_table.contiguous()  # an expanded one would be a single number
            to_table.index_add_(0, ids.flatten(), to_rows.reshape(-1, shape[-1]).to(dtype))
        return to_table, None
