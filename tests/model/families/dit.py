"""BD3-LM's network once more, as plainly as possible: adaptive norms, time embedding and all.

The yardstick of ``test_bd3lm.py``: one function, tensors by the names of their checkpoints, no
shortcut taken.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DIM, HEADS, LAYERS, COND, VOCABULARY = 24, 3, 2, 10, 40
SIZES = {
    "vocab_size": VOCABULARY, "hidden_dim": DIM, "n_heads": HEADS, "n_blocks": LAYERS,
    "cond_dim": COND, "model_length": 16, "time_conditioning": False, "dropout": 0.1,
}  # fmt: skip


def random_weights(seed: int = 0, vocabulary: int = VOCABULARY) -> dict[str, Tensor]:
    """A checkpoint's tensors by name, every one of them random, in the order of the network's."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "vocab_embed.embedding": (vocabulary, DIM),
        "sigma_map.mlp.0.weight": (COND, 256),
        "sigma_map.mlp.0.bias": (COND,),
        "sigma_map.mlp.2.weight": (COND, COND),
        "sigma_map.mlp.2.bias": (COND,),
    }
    for i in range(LAYERS):
        shapes |= {
            f"blocks.{i}.norm1.weight": (DIM,),
            f"blocks.{i}.attn_qkv.weight": (3 * DIM, DIM),
            f"blocks.{i}.attn_out.weight": (DIM, DIM),
            f"blocks.{i}.norm2.weight": (DIM,),
            f"blocks.{i}.mlp.0.weight": (4 * DIM, DIM),
            f"blocks.{i}.mlp.0.bias": (4 * DIM,),
            f"blocks.{i}.mlp.2.weight": (DIM, 4 * DIM),
            f"blocks.{i}.mlp.2.bias": (DIM,),
            f"blocks.{i}.adaLN_modulation.weight": (6 * DIM, COND),
            f"blocks.{i}.adaLN_modulation.bias": (6 * DIM,),
        }
    shapes |= {
        "output_layer.norm_final.weight": (DIM,),
        "output_layer.linear.weight": (vocabulary, DIM),
        "output_layer.linear.bias": (vocabulary,),
        "output_layer.adaLN_modulation.weight": (2 * DIM, COND),
        "output_layer.adaLN_modulation.bias": (2 * DIM,),
    }
    return {
        name: torch.randn(shape, generator=generator) * (0.3 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }


def time_embedding(w: dict[str, Tensor], sigma: Tensor) -> Tensor:
    """sigma [N] -> c [N, COND]."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(128) / 128)
    angle = sigma[:, None] * frequency
    features = torch.cat([angle.cos(), angle.sin()], 1)
    hidden = F.silu(features @ w["sigma_map.mlp.0.weight"].T + w["sigma_map.mlp.0.bias"])
    return F.silu(hidden @ w["sigma_map.mlp.2.weight"].T + w["sigma_map.mlp.2.bias"])


def rotary(x: Tensor, position: Tensor) -> Tensor:
    """x [N, H, L, dh], position [L]: rotate the pairs (i, i + dh / 2)."""
    half = x.shape[-1] // 2
    frequency = 1 / 10_000 ** (torch.arange(half) / half)
    angle = position[:, None] * frequency
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


def modulated_norm(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    normal = F.layer_norm(x, (DIM,), eps=1e-5) * weight
    return normal * (1 + scale[:, None]) + shift[:, None]


def dit_logits(w: dict[str, Tensor], ids: Tensor, position: Tensor, mask: Tensor) -> Tensor:
    """ids [N, L], position [L], mask bool [L, L] -> logits [N, L, VOCABULARY], at sigma 0."""
    c = time_embedding(w, torch.zeros(len(ids)))
    x = w["vocab_embed.embedding"][ids]
    for i in range(LAYERS):
        b = {name.removeprefix(f"blocks.{i}."): tensor for name, tensor in w.items()}
        modulation = c @ b["adaLN_modulation.weight"].T + b["adaLN_modulation.bias"]
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = modulation.chunk(6, 1)
        normal = modulated_norm(x, b["norm1.weight"], shift, scale)
        qkv = normal @ b["attn_qkv.weight"].T
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, 2))
        scores = rotary(q, position) @ rotary(k, position).transpose(2, 3) / math.sqrt(DIM // HEADS)
        mixed = scores.masked_fill(~mask, -torch.inf).softmax(3) @ v
        x = x + gate[:, None] * (mixed.transpose(1, 2).flatten(2) @ b["attn_out.weight"].T)
        normal = modulated_norm(x, b["norm2.weight"], mlp_shift, mlp_scale)
        hidden = F.gelu(normal @ b["mlp.0.weight"].T + b["mlp.0.bias"], approximate="tanh")
        x = x + mlp_gate[:, None] * (hidden @ b["mlp.2.weight"].T + b["mlp.2.bias"])
    modulation = c @ w["output_layer.adaLN_modulation.weight"].T
    shift, scale = (modulation + w["output_layer.adaLN_modulation.bias"]).chunk(2, 1)
    normal = modulated_norm(x, w["output_layer.norm_final.weight"], shift, scale)
    return normal @ w["output_layer.linear.weight"].T + w["output_layer.linear.bias"]


def block_diffusion_mask(length: int, block_size: int) -> Tensor:
    """Their mask of [x_t, x_0], bool [2 * length, 2 * length], by its definition in the paper."""
    allowed = torch.zeros(2 * length, 2 * length, dtype=torch.bool)
    for q in range(2 * length):
        for k in range(2 * length):
            q_clean, k_clean = q >= length, k >= length
            q_block, k_block = q % length // block_size, k % length // block_size
            diagonal = q_block == k_block and q_clean == k_clean
            offset = q_block > k_block and k_clean and not q_clean
            causal = q_block >= k_block and k_clean and q_clean
            allowed[q, k] = diagonal or offset or causal
    return allowed
