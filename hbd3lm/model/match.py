"""Separate modules of a fair size: those that hold as many weights as a shared stack.

Two modules of the shared stack's own sizes cost the same per token, since every token runs through
one of them, but hold twice the weights. To hold as many weights they must be smaller; then they
cost less. Neither comparison is fair alone, so there are both.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cost import parameters_by_module

MULTIPLE = 8
"""Of the widths chosen here: what matrix products like."""


def count(config: ModelConfig) -> int:
    """All weights."""
    return sum(module.total for module in parameters_by_module(config).values())


def match_parameters(config: ModelConfig) -> ModelConfig:
    """Separate modules that together hold the weights of ``config`` with a shared stack.

    Depth, heads and family stay. The width is the permitted one (a multiple of 8, and of twice
    the heads, for even head widths) at which modules of the same proportions come closest; the
    MLP's width, in multiples of 8, takes up the rest. Embeddings count: each module has its own.

    Raises:
        UserError: the shared stack is too small to be divided.
    """
    target = count(replace(config, modules="shared"))
    proportion = config.resolved_hidden_dim / config.dim
    step = MULTIPLE if config.head_dim else math.lcm(MULTIPLE, 2 * config.n_heads)

    def modules(dim: int, hidden: float) -> ModelConfig:
        hidden = max(MULTIPLE, round(hidden / MULTIPLE) * MULTIPLE)
        return replace(config, dim=dim, hidden_dim=hidden)

    def excess(dim: int) -> int:
        return count(modules(dim, proportion * dim)) - target

    widths = range(step, config.dim + 1, step)
    low, high = 0, len(widths) - 1
    if high < 1 or excess(widths[0]) > 0:
        raise UserError(
            f"hierarchical.match=parameters: a shared model of model.dim={config.dim} is too small "
            f"for two modules with {config.n_heads} heads; use hierarchical.match=operations, or a "
            "larger model"
        )
    while high - low > 1:  # the weights grow with the width: bisection
        middle = (low + high) // 2
        low, high = (middle, high) if excess(widths[middle]) <= 0 else (low, middle)
    dim = min(widths[low], widths[high], key=lambda d: abs(excess(d)))
    # The count is linear in the MLP's width.
    one, two = (count(modules(dim, MULTIPLE * k)) for k in (1, 2))
    return modules(dim, MULTIPLE * (1 + (target - one) / (two - one)))
