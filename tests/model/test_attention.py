"""Attention on the CPU in bf16, written as products, against SDPA in float32."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hbd3lm.model.attention import attend, attention_probabilities


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_bf16_products_equal_sdpa(kv_heads):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 5, 8).bfloat16().requires_grad_()
    k, v = (torch.randn(2, kv_heads, 7, 8).bfloat16().requires_grad_() for _ in range(2))
    hidden = torch.rand(2, 1, 5, 7) < 0.5
    hidden[..., 0] = False  # every query sees something
    mask = torch.zeros(2, 1, 5, 7).masked_fill_(hidden, -torch.inf)
    upstream = torch.randn(2, 4, 5, 8)

    got = attend(q, k, v, mask.bfloat16())
    exact = F.scaled_dot_product_attention(
        q.float(), k.float(), v.float(), attn_mask=mask, enable_gqa=True
    )
    torch.testing.assert_close(got.float(), exact, rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(got, (q, k, v), upstream.bfloat16())
    for mine, theirs in zip(gradients, torch.autograd.grad(exact, (q, k, v), upstream)):
        torch.testing.assert_close(mine.float(), theirs.float(), rtol=0.05, atol=0.05)


def test_a_hidden_key_does_not_reach_a_bf16_query():
    q, k, v = (torch.randn(1, 2, 3, 4).bfloat16() for _ in range(3))
    mask = torch.zeros(1, 1, 3, 3, dtype=torch.bfloat16)
    mask[..., 1] = -torch.inf
    before = attend(q, k, v, mask)
    k[:, :, 1], v[:, :, 1] = 9.0, -9.0
    assert torch.equal(attend(q, k, v, mask), before)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_probabilities_sum_to_one_and_give_the_output(kv_heads):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 5, 8)
    k, v = (torch.randn(2, kv_heads, 7, 8) for _ in range(2))
    hidden = torch.rand(2, 1, 5, 7) < 0.5
    hidden[..., 0] = False
    mask = torch.zeros(2, 1, 5, 7).masked_fill_(hidden, -torch.inf)
    p = attention_probabilities(q, k, mask)
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 4, 5))
    assert (p.masked_select(hidden.expand_as(p)) == 0).all()
    mixed = p @ v.repeat_interleave(4 // kv_heads, dim=1)
    torch.testing.assert_close(mixed, attend(q, k, v, mask))
