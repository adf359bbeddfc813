"""Callbacks of a training run: the weight average, stopping on a broken loss."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from hbd3lm.errors import UserError


class WarmEMA(WeightAveraging):
    """Exponential moving average whose decay warms up as min(decay, (1 + n) / (10 + n)).

    With a constant decay of 0.9999 the average of a short run would still be its random start.
    Validation runs with the average, and checkpoints hold it as ``state_dict`` (Lightning's
    callback sees to both).
    """

    def __init__(self, decay: float) -> None:
        def average(averages: list[Tensor], currents: list[Tensor], count: Tensor) -> None:
            n = float(count)
            rate = 1 - min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(averages, currents, rate)

        super().__init__(multi_avg_fn=average)


class StopOnBrokenLoss(L.Callback):
    """Stops before the optimiser uses a gradient that is not finite.

    The weights, and the checkpoints already written, are then still those of the last good step.
    """

    def on_before_optimizer_step(self, trainer, pl_module, optimizer) -> None:
        loss = pl_module.last_loss
        if torch.isfinite(loss):
            return
        checkpoint = trainer.checkpoint_callback
        kept = getattr(checkpoint, "last_model_path", "") if checkpoint else ""
        remedy = f"the last good checkpoint is {kept}" if kept else "no checkpoint was due before"
        raise UserError(
            f"the training loss became {float(loss)} at step {trainer.global_step}; {remedy}. "
            "Lower training.learning_rate, raise training.warmup_steps, or train with "
            "trainer.precision=32-true"
        )
