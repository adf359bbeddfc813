"""The norm against torch's, its gradients, and what it keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd.graph import saved_tensors_hooks

from hbd3lm.model.config import ModelConfig
from hbd3lm.model.norm import RMSNorm, make_norm
from hbd3lm.model.transformer import Block


def make(dim: int) -> RMSNorm:
    norm = RMSNorm(dim, eps=1e-3)
    torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 8), (3, 5, 16), (2, 4, 6, 7)])
def test_it_is_torchs_to_the_bit(dtype, shape):
    norm, x = make(shape[-1]).to(dtype), torch.randn(shape, dtype=dtype)
    assert torch.equal(norm(x), F.rms_norm(x, norm.normalized_shape, norm.weight, 1e-3))


def test_gradients():
    norm = make(6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)

    def call(x, weight):
        return torch.func.functional_call(norm, {"weight": weight}, x)

    weight = norm.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(call, (x, weight))


def test_a_frozen_weight_costs_no_gradient():
    norm, x = make(6), torch.randn(2, 6, requires_grad=True)
    norm.weight.requires_grad_(False)
    norm(x).sum().backward()
    assert norm.weight.grad is None
    assert x.grad is not None


@pytest.mark.parametrize("kind", ["rmsnorm", "layernorm"])
def test_under_autocast_it_is_rounded_once_for_all_products(kind):
    """Queries, keys and values read one tensor, and nothing is kept but that and the input."""
    torch.manual_seed(0)
    config = ModelConfig(vocab_size=9, dim=16, n_layers=1, n_heads=2, norm=kind, qk_norm=False)
    block, x = Block(config), torch.randn(2, 5, 16, requires_grad=True)
    cos, sin = torch.ones(2, 1, 5, 8), torch.zeros(2, 1, 5, 8)
    kept = {}

    def pack(tensor):
        if tensor.shape[-1] == 16 and tensor.numel() == x.numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        normed, _, _ = block.keys_values(x, cos, sin)
        block.queries(normed, cos, sin)
    assert normed.dtype == torch.bfloat16
    assert sorted(str(t.dtype) for t in kept.values()) == ["torch.bfloat16", "torch.float32"]
    exact = make_norm(config, 16)(x)
    assert exact.dtype == torch.float32
    assert torch.equal(normed, exact.bfloat16())
