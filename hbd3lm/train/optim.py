"""AdamW, its parameter groups and its learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from hbd3lm.train.config import TrainingConfig


def make_optimizer(net: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """Fused AdamW; weight decay on matrices only (not on embeddings, norms, biases)."""
    decayed, free = [], []
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            matrix = parameter.dim() >= 2 and ".embedding." not in name
            (decayed if matrix else free).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at optimiser step ``step`` (0 is the first)."""
    warmup = config.resolved_warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if config.lr_schedule == "constant":
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, config.max_steps - warmup))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
