"""Results that the backward pass makes anew, of what is kept anyway, instead of keeping them.

An activation function keeps its input for its gradient, and the matrix product that reads its
output keeps that: as wide again, and cheap to make of the input. That is done always. Whole parts
of a block are made anew where memory is scarcer than time (activation checkpointing, Chen et al.,
2016, "Training Deep Nets with Sublinear Memory Cost").
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint


def remade(result: Tensor, make: Callable[[], Tensor]) -> contextlib.AbstractContextManager:
    """In it, operations that would keep ``result`` for the backward pass keep its shape only.

    Args:
        result: contiguous.
        make: makes it again, to the bit, of tensors that are kept for other reasons.
    """
    # A compiler decides by itself what to keep.
    if torch.compiler.is_compiling() or not result.requires_grad:
        return contextlib.nullcontext()
    # Not the tensor: it would be kept by the hook.
    place, size = result.data_ptr(), result.numel()

    def pack(tensor: Tensor) -> Any:
        same = tensor.data_ptr() == place and tensor.numel() == size
        return tensor.shape if same else tensor

    def unpack(kept: Any) -> Tensor:
        return kept if isinstance(kept, Tensor) else make().view(kept)

    return saved_tensors_hooks(pack, unpack)


def run_again(part: Callable[..., Any], *arguments: Any, random: bool) -> Any:
    """``part(*arguments)``, of which the backward pass keeps the arguments and results only.

    Args:
        random: it draws random numbers (dropout), the same ones the second time.
    """
    return checkpoint(part, *arguments, use_reentrant=False, preserve_rng_state=random)
