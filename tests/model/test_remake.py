"""What is made anew in the backward pass is what was there, and it is not kept."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from hbd3lm.model.config import ModelConfig
from hbd3lm.model.remake import remade
from hbd3lm.model.transformer import MLP

HOOKS = "hbd3lm.model.remake.saved_tensors_hooks"


def make_mlp(kind: str) -> tuple[MLP, torch.Tensor]:
    torch.manual_seed(0)
    mlp = MLP(ModelConfig(vocab_size=9, dim=16, n_layers=1, n_heads=2, mlp=kind))
    return mlp, torch.randn(3, 5, 16, requires_grad=True)


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["gelu", "swiglu"])
def test_gradients_are_those_of_kept_activations_to_the_bit(kind, mixed):
    found = []
    for plain in (False, True):
        mlp, x = make_mlp(kind)
        keep = mock.patch("hbd3lm.model.transformer.remade", lambda *_: contextlib.nullcontext())
        autocast = torch.autocast("cpu", torch.bfloat16, enabled=mixed)
        with autocast, keep if plain else contextlib.nullcontext():
            y = mlp(x)
        y.float().square().sum().backward()
        found.append([y, x.grad, *(p.grad for p in mlp.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found))


@pytest.mark.parametrize(("kind", "made_anew"), [("gelu", 1), ("swiglu", 2)])
def test_activations_are_not_kept(kind, made_anew):
    mlp, x = make_mlp(kind)
    packed = []

    def watched(pack, unpack):
        return saved_tensors_hooks(lambda t: packed.append(pack(t)) or packed[-1], unpack)

    with mock.patch(HOOKS, watched):
        mlp(x)
    shapes = [kept for kept in packed if isinstance(kept, torch.Size)]
    assert [shape.numel() for shape in shapes] == [15 * mlp.down.in_features] * made_anew


def test_it_is_made_when_it_is_asked_for_and_other_tensors_stay():
    x = torch.randn(4, 3, requires_grad=True)
    y, other = x.exp(), torch.randn(4, 3, requires_grad=True)
    made = []
    with remade(y, lambda: made.append(1) or x.detach().exp()):
        z = (y * other).sum()
    assert not made
    z.backward()
    assert made == [1]
    assert torch.equal(x.grad, y.detach() * other.detach())
    assert torch.equal(other.grad, y.detach())


def test_without_a_gradient_nothing_is_hooked():
    with mock.patch(HOOKS, side_effect=AssertionError), torch.no_grad():
        mlp, x = make_mlp("gelu")
        assert torch.equal(mlp(x), mlp.down(F.gelu(mlp.up(x), approximate="tanh")))
