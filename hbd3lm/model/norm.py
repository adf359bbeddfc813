"""Normalisation before matrix products, keeping little for the backward pass.

What a block normalises is read by matrix products alone, and autocast would round it for each of
them: queries, and keys and values, would hold a copy each until the backward pass. It is rounded
here, once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hbd3lm.model.config import ModelConfig


def make_norm(config: ModelConfig, dim: int) -> nn.Module:
    """The norm of the residual stream: ``config.norm`` over ``dim`` channels."""
    if config.norm == "layernorm":
        return LayerNorm(dim, eps=config.norm_eps, bias=False)
    return RMSNorm(dim, eps=config.norm_eps)


class LayerNorm(nn.LayerNorm):
    """Its output has the dtype in which matrix products run."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).to(product_dtype(x))


class RMSNorm(nn.RMSNorm):
    """x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich, 2019), in the dtype of products.

    On the CPU torch has no kernel for it, and autograd would keep the quotient beside the input.
    """

    def forward(self, x: Tensor) -> Tensor:
        dtype = product_dtype(x)
        if x.device.type == "cpu":
            return _RMSNorm.apply(x, self.weight, self.eps, dtype)
        # One dtype: mixed ones have no fused kernel.
        weight = self.weight.type_as(x)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps).to(dtype)


def product_dtype(x: Tensor) -> torch.dtype:
    """What a matrix product would round ``x`` to."""
    device = x.device.type
    mixed = torch.is_autocast_enabled(device) and x.dtype != torch.float64
    return torch.get_autocast_dtype(device) if mixed else x.dtype


class _RMSNorm(torch.autograd.Function):
    """Keeps its input and a number a token."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = x.float() if x.dtype == torch.bfloat16 else x
        scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        unit = x * scale  # as wide as the scale
        gradient = gradient.to(unit.dtype)
        to_weight = None
        if ctx.needs_input_grad[1]:
            to_weight = (gradient * unit).flatten(0, -2).sum(0).to(weight.dtype)
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None, None
        gradient = gradient * weight
        along = (gradient * unit).mean(-1, keepdim=True)
        return gradient.sub_(unit.mul_(along)).mul_(scale).to(x.dtype), to_weight, None, None
