"""Callbacks of a training run: the weight average, held memory, progress without a terminal."""

from __future__ import annotations

import math
import time

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from hbd3lm.allocator import HeldMemory


class WarmEMA(WeightAveraging):
    """Exponential moving average whose decay warms up as min(decay, (1 + n) / (10 + n)).

    n counts the optimiser steps after the first, whose weights start the average. With a constant
    decay of 0.9999 the average of a short run would still be its random start. Validation runs
    with the average, and checkpoints hold it as ``state_dict`` (Lightning's callback sees to
    both).
    """

    def __init__(self, decay: float) -> None:
        def average(averages: list[Tensor], currents: list[Tensor], count: Tensor) -> None:
            n = float(count)
            rate = 1 - min(decay, (1 + n) / (10 + n))
            torch._foreach_lerp_(averages, currents, rate)

        super().__init__(multi_avg_fn=average)


class BoundMemory(L.Callback):
    """On the CPU: memory that steps have freed goes back to the system where it is too much."""

    def __init__(self) -> None:
        self._memory = HeldMemory()

    def on_before_backward(self, trainer, pl_module, loss: Tensor) -> None:
        self._memory.note()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        self._memory.release()


class PrintProgress(L.Callback):
    """A line now and then, for logs, where a progress bar would be thousands of lines."""

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds, self._printed = seconds, -math.inf

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if "loss" in trainer.callback_metrics and time.monotonic() - self._printed >= self.seconds:
            self._printed = time.monotonic()
            self._print(trainer, loss=trainer.callback_metrics["loss"])

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._print(trainer, valid_nelbo=trainer.callback_metrics["valid/nelbo"])

    @staticmethod
    def _print(trainer: L.Trainer, **values: Tensor) -> None:
        if trainer.is_global_zero:
            shown = ", ".join(f"{name} {float(value):.4f}" for name, value in values.items())
            print(f"step {trainer.global_step}/{trainer.max_steps}: {shown}", flush=True)
