"""What is made anew in the backward pass is what was there, and it is not kept."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from hbd3lm.diffusion.objective import negative_log_likelihood
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.remake import remade
from hbd3lm.model.transformer import MLP, Transformer
from hbd3lm.train.config import LoraConfig
from hbd3lm.train.lora import attach
from tests.model.test_memory import FIELDS, make_batch

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


@pytest.mark.parametrize("mixed", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_what_runs_again_gives_the_same_loss_and_gradients_to_the_bit(fields, dropout, mixed):
    shape = {"vocab_size": 300, "dim": 32, "n_layers": 3, "n_heads": 4, "dropout": dropout}
    torch.manual_seed(0)
    net = Transformer(ModelConfig(**shape | fields))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)  # no branch is zero
    assert_same_when_run_again(net, mixed)


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_an_adapters_dropout_masks_the_same_when_it_runs_again(modules):
    """Only the block's own dropout was asked about, so that adapters drew a second mask: gradients
    of a network that had not been run, off by a fifth at dropout=0.3."""
    pytest.importorskip("peft", reason="pip install 'hbd3lm[lora]'")
    net = Transformer(ModelConfig(vocab_size=300, dim=32, n_layers=3, n_heads=4, modules=modules))
    attach(net, LoraConfig(rank=2, dropout=0.3), 5)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    block = next(iter(net.stacks.values())).blocks[0]
    assert block.is_random and not block.eval().is_random
    block.train()
    assert_same_when_run_again(net)


def assert_same_when_run_again(net: Transformer, mixed: bool = False) -> None:
    """Loss and gradients with any activation checkpointing are to the bit those without."""
    batch, _ = make_batch(net.config, 1)
    trained = [p for p in net.parameters() if p.requires_grad]

    def step(again: str) -> list[torch.Tensor]:
        net.activation_checkpoint = again
        net.zero_grad()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            losses = negative_log_likelihood(net, batch)
        losses.sum().backward()
        return [losses.detach(), *(p.grad for p in trained)]

    expected = step("none")
    for again in ("mlp", "block"):
        assert all(torch.equal(a, b) for a, b in zip(step(again), expected, strict=True)), again
