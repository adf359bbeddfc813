"""Cross-entropy of a linear head without its logits: a slice of the vocabulary at a time.

Logits of all V classes for all M asked tokens would be the largest tensors of a training step
(GPT-2's vocabulary, 4,000 tokens: 0.8 GB in float32, several times over). Here a slice of the head
is multiplied, folded into a running log-sum-exp and forgotten; the backward pass multiplies it
once more and turns it into gradients at once. torch's own chunked ``F.linear_cross_entropy``
(2.13) has to know each token's weight before it runs; this one gives a loss for each token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SLICE = 1 << 21
"""Logits in sight at a time: 8 MB in float32, about what a processor's cache holds."""
KEEP = 1 << 25
"""So many logits in all are kept for the backward pass, which saves it a third of its products."""


def linear_cross_entropy(
    hidden: Tensor,
    head: Tensor,
    targets: Tensor,
    n_classes: int | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """-log softmax(hidden @ head[:n_classes].T + bias)[targets] for every token.

    Products run in the autocast dtype where autocast is on, everything else in at least float32.

    Args:
        hidden: [M, D].
        head: [V, D].
        targets: [M] int64 in [0, n_classes).
        n_classes: rows of ``head`` that are classes, the first ones; None: all. (Slicing the table
            outside would cost a second table of gradients.)
        bias: [n_classes], or None.

    Returns:
        [M] losses in nats, float32 (float64 for float64 input).
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    n_classes = len(head) if n_classes is None else n_classes
    return _LinearCrossEntropy.apply(hidden, head, bias, targets, n_classes, dtype)


def keeps_logits(n_tokens: int, n_classes: int) -> bool:
    """Are the logits kept for the backward pass, or multiplied a second time there?"""
    return n_tokens * n_classes <= KEEP


def cross_entropy_bytes(n_tokens: int, n_classes: int, mixed: bool) -> int:
    """Most memory the loss takes beside hidden states and gradients of the weights."""
    kept = n_tokens * n_classes * (2 if mixed else 4) if keeps_logits(n_tokens, n_classes) else 0
    width = min(n_classes, _slices(n_tokens, n_classes)[0].stop)
    return kept + 4 * 4 * n_tokens * width  # a slice's logits, probabilities, and temporaries


def _slices(n_tokens: int, n_classes: int) -> list[slice]:
    """Slices of the vocabulary whose logits stay within ``SLICE``; a multiple of 64 wide."""
    width = max(64, SLICE // max(1, n_tokens) // 64 * 64)
    return [slice(i, min(i + width, n_classes)) for i in range(0, n_classes, width)]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        n_classes: int,
        dtype: torch.dtype,
    ) -> Tensor:
        x = hidden.to(dtype)
        exact = torch.promote_types(dtype, torch.float32)
        kept = []
        log_sum = torch.full((len(x),), -torch.inf, dtype=exact, device=x.device)
        target_logit = torch.zeros_like(log_sum)
        for part in _slices(len(x), n_classes):
            logits = x @ head[part].to(dtype).T  # [M, width]
            if bias is not None:
                logits += bias[part].to(dtype)
            if keeps_logits(len(x), n_classes):
                kept.append(logits)
            logits = logits.to(exact)
            log_sum = torch.logaddexp(log_sum, logits.logsumexp(1))
            inside = (targets >= part.start) & (targets < part.stop)
            place = torch.where(inside, targets - part.start, 0)
            target_logit += torch.where(inside, logits.gather(1, place[:, None])[:, 0], 0)
        ctx.save_for_backward(x, head, bias, targets, log_sum, *kept)
        ctx.dtype, ctx.n_classes = hidden.dtype, n_classes
        return log_sum - target_logit

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, head, bias, targets, log_sum, *kept = ctx.saved_tensors
        # With P = softmax - one-hot, d/dx = g * (P @ W) and d/dW = P.T @ (g * x): the gradient g of
        # the losses scales rows of width D, never the V columns of P.
        scaled = (x * gradient[:, None]).to(x.dtype)
        x_gradient = torch.zeros(x.shape, dtype=log_sum.dtype, device=x.device)
        head_gradient = bias_gradient = None
        if ctx.needs_input_grad[1]:
            head_gradient = torch.empty_like(head)
            head_gradient[ctx.n_classes :] = 0
        if ctx.needs_input_grad[2]:
            bias_gradient = torch.empty_like(bias)
        for i, part in enumerate(_slices(len(x), ctx.n_classes)):
            weight = head[part].to(x.dtype)
            logits = kept[i] if kept else x @ weight.T
            if bias is not None and not kept:
                logits += bias[part].to(x.dtype)
            p = (logits.to(log_sum.dtype) - log_sum[:, None]).exp_()  # [M, width]
            inside = (targets >= part.start) & (targets < part.stop)
            place = torch.where(inside, targets - part.start, 0)
            p.scatter_add_(1, place[:, None], -inside.to(p.dtype)[:, None])
            p = p.to(x.dtype)
            x_gradient += p @ weight
            if head_gradient is not None:
                head_gradient[part] = p.T @ scaled
            if bias_gradient is not None:
                bias_gradient[part] = (p.T @ gradient.to(p.dtype)).to(bias.dtype)
        x_gradient = (x_gradient * gradient[:, None]).to(ctx.dtype)
        return x_gradient, head_gradient, bias_gradient, None, None, None
