"""The one attention rule of the model, and its dense and FlexAttention forms.

BD3-LM (Arriola et al., ICLR 2025, section 3.3) trains on [x_t, x_0] with a mask that is the
union of three parts, here written for tagged tokens instead of for positions of a fixed
layout:

    M_BD   block diagonal: a block sees itself, within its own stream
    M_OBC  offset block causal: a noisy block sees the *clean* earlier blocks
    M_BC   block causal: a clean block sees the clean earlier blocks (and itself, by M_BD)

With the question as block 0 and the blocks of the plan before those of the execution, the
same rule is the hierarchy: plan never sees execution, and nothing clean sees anything noisy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Tags(NamedTuple):
    """What the rule needs to know of each token; three tensors of one shape, usually [N, L].

    Attributes:
        document: which example the token belongs to; tokens of different documents never meet.
            Padding carries ``PADDING``, unused cache columns ``UNUSED``.
        noisy: True in the x_t stream, False in the x_0 stream.
        block: ordinal of the token's block; the question is block 0.
    """

    document: Tensor
    noisy: Tensor
    block: Tensor


class Tiles(NamedTuple):
    """Which tiles of keys each tile of queries reads, as FlexAttention's ``BlockMask`` has it.

    [N, 1, query tiles] numbers and [N, 1, query tiles, key tiles] indices, int32, of the tiles
    read in part and of those read whole.
    """

    number: Tensor
    index: Tensor
    whole_number: Tensor
    whole_index: Tensor


PADDING = -1
"""Document of padding tokens: they see one another (so that no softmax is empty), nothing else."""
UNUSED = -2
"""Document of empty cache columns: no query ever carries it."""


def may_attend(query: Tags, key: Tags) -> Tensor:
    """The rule, elementwise on broadcastable tags: may ``query`` see ``key``? (bool)"""
    block_diagonal = (query.noisy == key.noisy) & (query.block == key.block)
    clean_past = ~key.noisy & (key.block < query.block)  # M_OBC for noisy, M_BC for clean queries
    return (query.document == key.document) & (block_diagonal | clean_past)


def dense_mask(query: Tags, key: Tags) -> Tensor:
    """Boolean mask [N, Lq, Lk] for tags of shape [N, Lq] and [N, Lk] (or without the N)."""
    return may_attend(
        Tags(*(tag.unsqueeze(-1) for tag in query)), Tags(*(tag.unsqueeze(-2) for tag in key))
    )


def flex_mask_mod(query: Tags, key: Tags) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule as a FlexAttention ``mask_mod(row, head, query_index, key_index)``."""

    def mask_mod(row: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return may_attend(
            Tags(*(tag[row, q] for tag in query)), Tags(*(tag[row, k] for tag in key))
        )

    return mask_mod


def cat_tags(first: Tags, second: Tags) -> Tags:
    """Tags of two stretches of tokens side by side: [N, L1] and [N, L2] to [N, L1 + L2]."""
    return Tags(*(torch.cat(pair, dim=-1) for pair in zip(first, second)))


def share_tags(tags: Tags, rows: Tensor) -> Tags:
    """Tags [C, L] of rows ``rows`` [C] of ``tags`` [N, L], row ``i`` of them as document ``i``."""
    document, noisy, block = (tag[rows] for tag in tags)
    own = torch.arange(len(rows), device=rows.device)[:, None]
    return Tags(torch.where(document < 0, document, own), noisy, block)
