"""The losses of a training step, compiled: for batches of one shape (``batching=pack``)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hbd3lm.diffusion.objective import negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.train.config import TrainerConfig, TrainingConfig

BACKEND = "inductor"
"""Tests put a quicker one in its place."""


def compile_losses(
    training: TrainingConfig, trainer: TrainerConfig
) -> Callable[..., Tensor] | None:
    """:func:`negative_log_likelihood` compiled, where that is asked for; else None.

    Raises:
        UserError: compilation does not go with the other settings.
    """
    if not trainer.compile:
        return None
    if training.batching != "pack":
        raise UserError(
            "trainer.compile=true needs batches of one shape: set training.batching=pack as well"
        )
    if "fsdp" in trainer.strategy or "deepspeed" in trainer.strategy:
        raise UserError(
            f"trainer.compile=true does not go with trainer.strategy={trainer.strategy}, which "
            "gathers weights in the middle of the step; use trainer.strategy=ddp"
        )
    mode = {} if trainer.compile_mode == "default" else {"mode": trainer.compile_mode}
    return torch.compile(negative_log_likelihood, dynamic=False, backend=BACKEND, **mode)
