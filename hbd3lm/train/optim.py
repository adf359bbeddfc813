"""AdamW and Muon, their parameter groups, and the learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hbd3lm.model.precision import has_bf16
from hbd3lm.train.config import TrainingConfig

MUON_MOMENTUM = 0.95
"""Of Muon's Nesterov momentum (Jordan et al., 2024)."""


def make_optimizer(net: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser ``training.optimizer`` names; frozen weights are left out.

    Weight decay on matrices only (not on embeddings, norms, biases). ``adamw`` is fused AdamW for
    all weights; ``muon`` takes the matrices inside the blocks and leaves the rest to AdamW (all of
    it, where the matrices have adapters).
    """
    hidden, heads, free = [], [], []
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            continue
        partly = getattr(parameter, "partly_frozen", False)  # decay would reach all of it
        if parameter.dim() < 2 or ".embedding." in name or partly:
            free.append(parameter)
        else:
            (heads if ".head." in name else hidden).append(parameter)
    rest = [{"params": free, "weight_decay": 0.0}]
    betas = (config.beta1, config.beta2)
    adapted = any(".lora_" in name for name, _ in net.named_parameters())
    if config.optimizer == "adamw" or adapted:  # an adapter is a product: no matrix for Muon
        groups = [{"params": hidden + heads, "weight_decay": config.weight_decay}, *rest]
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)
    if heads:
        rest.append({"params": heads, "weight_decay": config.weight_decay})
    return OptimizerPair(
        torch.optim.AdamW(rest, lr=config.learning_rate, betas=betas, fused=True),
        Muon(
            hidden,
            lr=config.muon_scale * config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=MUON_MOMENTUM,
            # The orthogonal update has the size of AdamW's whatever the shape of the matrix (Liu
            # et al., 2025, arXiv 2502.16982), so one factor suits all model sizes.
            adjust_lr_fn="match_rms_adamw",
        ),
    )


class Muon(torch.optim.Muon):
    """torch's Muon, with float32 products where bf16 is not multiplied in hardware.

    torch rounds to bf16 to orthogonalise, which other processors emulate at a hundredth of the
    rate: half to four fifths of a step of ``nano``. For its ``match_rms_adamw`` and Nesterov's
    momentum, as :func:`make_optimizer` asks for.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        if all(has_bf16(p.device.type) for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
                buffer = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                update = orthogonalize(
                    p.grad.lerp(buffer, momentum),
                    group["ns_coefficients"],
                    group["ns_steps"],
                    group["eps"],
                )
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(update, alpha=-0.2 * math.sqrt(max(p.shape)) * lr)
        return loss


def orthogonalize(
    x: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """U S' V^T for x = U S V^T [m, n], with S' near 1: Newton-Schulz iterations in x's dtype.

    x <- a x + (b A + c A^2) x with A = x x^T, which is a polynomial of the singular values (Jordan
    et al., 2024). Rows are the shorter side.
    """
    a, b, c = coefficients
    turned = x.shape[0] > x.shape[1]
    x = x.T if turned else x
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if turned else x


class OptimizerPair(torch.optim.Optimizer):
    """Two optimisers of disjoint weights as one: one step, one state, one list of groups.

    Learning-rate schedulers, Lightning and checkpoints see an ordinary optimiser. The two share
    its state and group dicts, so what is loaded or scheduled here holds there.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self.parts = (first, second)
        super().__init__([*first.param_groups, *second.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on this optimiser's groups and state."""
        count = len(self.parts[0].param_groups)
        self.parts[0].param_groups = self.param_groups[:count]
        self.parts[1].param_groups = self.param_groups[count:]
        for part in self.parts:
            part.state = self.state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # load_state_dict ends here, with new dicts
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss


def learning_rate_factor(step: int, config: TrainingConfig) -> float:
    """Share of the peak learning rate at optimiser step ``step`` (0 is the first)."""
    warmup = config.resolved_warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    if config.lr_schedule == "constant":
        return 1.0
    if config.lr_schedule == "wsd":
        decay = max(1, round(config.decay_share * config.max_steps))
        progress = (step - (config.max_steps - decay)) / decay
        # 1 - sqrt: the best of the shapes tried by Haegele et al., 2024, arXiv 2405.18392.
        return 1 - math.sqrt(min(1.0, max(0.0, progress)))
    progress = min(1.0, (step - warmup) / max(1, config.max_steps - warmup))
    return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
