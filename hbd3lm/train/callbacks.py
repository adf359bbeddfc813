"""Callbacks of a training run: the weight average, checkpoints, progress without a terminal."""

from __future__ import annotations

import math
import time
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor

from hbd3lm.model.checkpoint import read_checkpoint


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


class LastCheckpoint(Checkpoint):
    """Saves the whole state every ``every`` optimiser steps, and at the last one, to one file.

    Lightning writes to a temporary file first: a crash while saving leaves the old file whole.
    A step that is validated is saved after its validation: Lightning takes a checkpoint of such a
    step for one that has it behind it, and what a validation decides (the best value, the clipped
    schedule) would be lost to the resumed run.
    """

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every = path, every

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of an optimiser step
        if (batch_idx + 1) % trainer.val_check_interval:  # of batches; else validation comes next
            self._save_if_due(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save_if_due(trainer)

    def _save_if_due(self, trainer: L.Trainer) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.path)


class BestCheckpoint(Checkpoint):
    """Saves the state with the lowest validation NELBO.

    The value to beat is the one the file itself holds. What ``last.ckpt`` knows may be older:
    it is written before this file, and a run may break off long after it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.nelbo = path, math.inf

    def state_dict(self) -> dict[str, float]:
        return {"nelbo": self.nelbo}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.path.exists():
            _, content = read_checkpoint(self.path, "run_dir")
            self.nelbo = content["callbacks"][self.state_key]["nelbo"]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        nelbo = float(trainer.callback_metrics["valid/nelbo"])  # the same in every process
        if nelbo < self.nelbo:
            self.nelbo = nelbo
            trainer.save_checkpoint(self.path)


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
