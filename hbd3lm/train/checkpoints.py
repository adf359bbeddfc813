"""The checkpoints of a run: when they are written, and which one a run goes on from.

A run's ``checkpoints`` folder holds ``last.ckpt`` (the latest state), ``previous.ckpt`` (the one
before) and ``best.ckpt`` (the lowest validation NELBO). A file that turns out damaged is set
aside as ``*.ckpt.damaged``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import (
    DamagedCheckpointError,
    ModelCard,
    read_checkpoint,
    write_checkpoint,
)
from hbd3lm.train.preemption import Preempted, StopSignals


class CheckpointNotWrittenError(Exception):
    """The disk refused a checkpoint; raised in every process."""


class SealedCheckpointIO(TorchCheckpointIO):
    """Lightning's reading and writing of checkpoints, by :mod:`hbd3lm.model.checkpoint`.

    Args:
        previous: for files that are kept for one more turn, their second name.
    """

    def __init__(self, previous: dict[Path, Path]) -> None:
        self.previous = previous
        self.failure: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path, storage_options=None) -> None:
        # Called by the first process alone, while the others wait for it: it must come back.
        if self.failure is not None:
            return
        try:
            write_checkpoint(checkpoint, path, self.previous.get(Path(path)))
        except OSError as error:
            self.failure = f"cannot write {path}: {error.strerror or error}"

    def load_checkpoint(self, path, map_location=None, weights_only=None) -> dict[str, Any]:
        return super().load_checkpoint(path, map_location, weights_only=True)


def save(trainer: L.Trainer, path: Path) -> None:
    """Write the whole state to ``path``; where that fails, stop every process.

    Raises:
        CheckpointNotWrittenError: in all processes, for one and the same reason.
    """
    io = trainer.strategy.checkpoint_io
    try:
        # First the log: a checkpoint must not say that steps are done which are not in it.
        trainer.lightning_module.flush_logs()
    except OSError as error:
        io.failure = f"cannot write the logs: {error.strerror or error}"
    trainer.save_checkpoint(path)
    failure = trainer.strategy.broadcast(io.failure)
    if failure is not None:
        raise CheckpointNotWrittenError(failure)


class LastCheckpoint(Checkpoint):
    """Saves the whole state every ``every`` optimiser steps, at the last, and when asked to stop.

    Where a validation follows the step it comes first: Lightning would not make up for it in a
    run that is resumed from a state before it.

    Args:
        path: the file; the one before is kept beside it.
        valid_every: optimiser steps between validations.
        signals: who may ask.

    Attributes:
        damaged: files that were found so, to be set aside when training starts.
    """

    def __init__(self, path: Path, every: int, valid_every: int, signals: StopSignals) -> None:
        self.path, self.every, self.valid_every, self.signals = path, every, valid_every, signals
        self.damaged: tuple[Path, ...] = ()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        for path in self.damaged:
            os.replace(path, path.with_name(path.name + ".damaged"))
        # What a killed process was writing.
        for leftover in self.path.parent.glob(".*.ckpt.*.tmp"):
            leftover.unlink()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.signals.listen()  # Lightning has put its own handlers in place

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx: int) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # in the middle of an optimiser step
        if trainer.global_step % self.valid_every:
            self._end_step(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._end_step(trainer)

    def _end_step(self, trainer: L.Trainer) -> None:
        step = trainer.global_step
        finished = step == trainer.max_steps
        stop = self.signals.received_anywhere(trainer) and not finished
        if step % self.every == 0 or finished or stop:
            save(trainer, self.path)
        if stop:
            raise Preempted(step)


class BestCheckpoint(Checkpoint):
    """Saves the state with the lowest validation NELBO.

    The value to beat is the one the file itself holds. What ``last.ckpt`` knows may be older: a
    run may break off long after it.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        self.path, self.warn, self.nelbo = path, warn, math.inf

    def state_dict(self) -> dict[str, float]:
        return {"nelbo": self.nelbo}

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero and self.path.exists():
            try:
                _, content = read_checkpoint(self.path, "run_dir")
                self.nelbo = content["callbacks"][self.state_key]["nelbo"]
            except DamagedCheckpointError as error:
                os.replace(self.path, self.path.with_name(self.path.name + ".damaged"))
                self.warn(f"{error}. It is set aside; the next validation writes a new one")
        self.nelbo = trainer.strategy.broadcast(self.nelbo)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        nelbo = float(trainer.callback_metrics["valid/nelbo"])  # the same in every process
        if nelbo < self.nelbo:
            self.nelbo = nelbo
            save(trainer, self.path)


@dataclass(frozen=True)
class Found:
    """The checkpoint a run goes on from, and the damaged ones that were passed over for it."""

    path: Path
    card: ModelCard
    step: int
    damaged: tuple[DamagedCheckpointError, ...]
    damaged_paths: tuple[Path, ...]

    @property
    def warning(self) -> str | None:
        """What to tell the user, if a damaged file was passed over."""
        if not self.damaged:
            return None
        return (
            f"{'; '.join(map(str, self.damaged))}. Going on from {self.path} instead: the steps "
            f"after {self.step} are trained again"
        )


def find_checkpoint(folder: Path) -> Found | None:
    """The latest whole checkpoint of a run; None where there is none yet.

    ``last.ckpt`` if it is whole; else the later one of the two others.

    Raises:
        UserError: all of them are damaged, or one is not of hbd3lm.
    """
    damaged, whole = {}, []
    for name in ("last", "previous", "best"):
        path = folder / f"{name}.ckpt"
        if not path.exists():
            continue
        try:
            card, content = read_checkpoint(path, "run_dir")
        except DamagedCheckpointError as error:
            damaged[path] = error
            continue
        whole.append((int(content["global_step"]), path, card))
        if name == "last":
            break
    if not whole:
        if damaged:
            raise UserError(
                f"run_dir: no checkpoint in {folder} is whole "
                f"({'; '.join(str(error) for error in damaged.values())}); choose another "
                "run_dir=..., or remove that folder to start again"
            )
        return None
    step, path, card = max(whole, key=lambda found: found[0])
    return Found(path, card, step, tuple(damaged.values()), tuple(damaged))
