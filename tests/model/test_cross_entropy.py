"""The head's loss without its logits equals the plain one, in value and in gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hbd3lm.model import cross_entropy
from hbd3lm.model.cross_entropy import linear_cross_entropy


def both(n_tokens: int, n_classes: int, dtype=torch.float64, biased: bool = False):
    """(loss, gradients) of ours and of the plain way; the tables hold one row that is no class."""
    torch.manual_seed(0)
    hidden = torch.randn(n_tokens, 8, dtype=dtype, requires_grad=True)
    head = torch.randn(n_classes + 1, 8, dtype=dtype, requires_grad=True)
    bias = torch.randn(n_classes, dtype=dtype, requires_grad=True) if biased else None
    targets = torch.randint(n_classes, (n_tokens,))
    upstream = torch.randn(n_tokens, dtype=torch.promote_types(dtype, torch.float32))
    logits = F.linear(hidden, head[:-1], bias).to(upstream)
    plain = F.cross_entropy(logits, targets, reduction="none")
    ours = linear_cross_entropy(hidden, head, targets, n_classes, bias)
    weights = (hidden, head, bias) if biased else (hidden, head)
    return [(loss, torch.autograd.grad(loss, weights, upstream)) for loss in (ours, plain)]


@pytest.mark.parametrize("keep", [0, cross_entropy.KEEP], ids=["multiplied again", "kept"])
@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("n_tokens, n_classes", [(1, 2), (5, 64), (7, 200), (3, 129)])
def test_loss_and_gradients_equal_the_plain_ones(monkeypatch, keep, biased, n_tokens, n_classes):
    monkeypatch.setattr(cross_entropy, "KEEP", keep)
    monkeypatch.setattr(cross_entropy, "SLICE", 1)  # slices of 64 classes
    (loss, gradients), (plain_loss, plain_gradients) = both(n_tokens, n_classes, biased=biased)
    torch.testing.assert_close(loss, plain_loss)
    for mine, plain in zip(gradients, plain_gradients):
        torch.testing.assert_close(mine, plain)


def test_bfloat16_products_give_float32_losses():
    (loss, _), (plain_loss, _) = both(4, 100, torch.bfloat16)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, plain_loss, rtol=0.01, atol=0.01)


def test_autocast_decides_the_dtype_of_the_products():
    hidden, head, targets = torch.randn(3, 8), torch.randn(70, 8), torch.tensor([0, 5, 69])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = linear_cross_entropy(hidden, head, targets)
    rounded = linear_cross_entropy(hidden.bfloat16(), head.bfloat16(), targets)
    assert torch.equal(mixed, rounded)
    assert not torch.equal(mixed, linear_cross_entropy(hidden, head, targets))


def test_no_tokens_give_no_losses_and_zero_gradients():
    (loss, gradients), _ = both(0, 10)
    assert loss.shape == (0,)
    assert all((gradient == 0).all() for gradient in gradients)


def test_huge_logits_stay_finite():
    hidden = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    head = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    loss = linear_cross_entropy(hidden, head, torch.tensor([1, 1]))
    torch.testing.assert_close(loss, torch.tensor([600.0, 0.0]))
    loss.sum().backward()
    assert torch.isfinite(hidden.grad).all() and torch.isfinite(head.grad).all()
