"""Attention under the mask rule: a dense boolean mask for SDPA, a block mask for FlexAttention.

SDPA is used on the CPU (FlexAttention has no backward there; in bf16 two products take its place)
and for the short queries of sampling; FlexAttention on CUDA skips the tiles in which no query may
see any key.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.model.mask import Tags, Tiles, dense_mask, flex_mask_mod

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BACKENDS = ("auto", "sdpa", "flex")


def choose_backend(name: str, device: torch.device, n_queries: int = 128) -> str:
    """Resolve ``auto``: FlexAttention for long queries on CUDA, SDPA otherwise."""
    if name not in BACKENDS:
        raise UserError(f"trainer.attention={name}: choose one of {', '.join(BACKENDS)}")
    if name != "auto":
        return name
    return "flex" if device.type == "cuda" and n_queries >= 128 else "sdpa"


def make_tiles(query: Tags, key: Tags) -> Tiles:
    """What :func:`build_mask` needs of a block mask, as plain tensors that processes can send."""
    mask = build_mask(query, key, "flex", torch.float32)
    return Tiles(mask.kv_num_blocks, mask.kv_indices, mask.full_kv_num_blocks, mask.full_kv_indices)


def build_mask(
    query: Tags, key: Tags, backend: str, dtype: torch.dtype, tiles: Tiles | None = None
) -> Tensor | BlockMask:
    """The mask of one pass: additive [N, 1, Lq, Lk] for ``sdpa``, a BlockMask for ``flex``.

    The additive form holds 0 and -inf, so a masked key has a weight of exactly 0. It is made
    once a pass, in the dtype of the queries, rather than converted from bool in every layer.
    ``tiles`` are those of :func:`make_tiles` for the same tags, if they were made beforehand.
    """
    if backend == "flex":
        from torch.nn.attention.flex_attention import BlockMask, create_block_mask

        n_rows, n_queries = query.block.shape
        if tiles is not None:
            return BlockMask.from_kv_blocks(
                *tiles,
                mask_mod=flex_mask_mod(query, key),
                seq_lengths=(n_queries, key.block.shape[1]),
            )
        return create_block_mask(
            flex_mask_mod(query, key),
            n_rows,
            None,
            n_queries,
            key.block.shape[1],
            device=query.block.device,
        )
    allowed = dense_mask(query, key).unsqueeze(1)
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, float("-inf"))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | BlockMask) -> Tensor:
    """Softmax attention: q [N, H, Lq, dh], k and v [N, Hkv, Lk, dh] -> [N, H, Lq, dh]."""
    grouped = q.shape[1] != k.shape[1]
    if not isinstance(mask, Tensor):
        return _flex_attention(q.is_cuda)(q, k, v, block_mask=mask, enable_gqa=grouped)
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        return _attend_by_products(q, k, v, mask)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped)


def attention_probabilities(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """What :func:`attend` weighs the values with: float32 [N, H, Lq, Lk], every row sums to 1.

    Made anew of queries, keys and a dense mask, for whoever wants to look: no pass of training or
    sampling holds them.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores + mask).softmax(-1)


def _attend_by_products(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The same as two matrix products around a softmax.

    SDPA's bf16 kernel on the CPU takes three to four times as long, forward and backward, for rows
    of a few hundred tokens: it does not use the processor's bf16 multipliers.
    """
    repeat = q.shape[1] // k.shape[1]
    if repeat > 1:
        k, v = (x.repeat_interleave(repeat, dim=1) for x in (k, v))
    return _ProductAttention.apply(q, k, v, mask)


class _ProductAttention(torch.autograd.Function):
    """Keeps its probabilities in the dtype of the queries; autograd would keep them twice."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        scaled = q * q.shape[-1] ** -0.5
        scores = (scaled @ k.transpose(-1, -2)).add_(mask)  # [N, H, Lq, Lk]
        p = scores.softmax(-1)  # in float32 inside
        ctx.save_for_backward(scaled, k, v, p)
        return p @ v

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scaled, k, v, p = ctx.saved_tensors
        to_p = gradient @ v.transpose(-1, -2)
        to_scores = torch._softmax_backward_data(to_p, p, -1, p.dtype)
        to_q = (to_scores @ k) * k.shape[-1] ** -0.5
        return to_q, to_scores.transpose(-1, -2) @ scaled, p.transpose(-1, -2) @ gradient, None


@functools.cache
def _flex_attention(compiled: bool) -> Callable[..., Tensor]:
    """PyTorch's FlexAttention, compiled once for all calls, or as it is."""
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled it materialises all scores: right, but only fit for tests.
    return torch.compile(flex_attention, dynamic=False) if compiled else flex_attention
