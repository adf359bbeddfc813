"""Being asked to stop: SIGTERM and SIGUSR1 end a run after the optimiser step it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import lightning as L
import torch

EXIT_STATUS = 75
"""Of a program that was asked to stop and saved its state (EX_TEMPFAIL: try again)."""


class Preempted(Exception):  # noqa: N818  not an error: the run is saved
    """Training was asked to stop; what it has done is saved.

    Attributes:
        step: optimiser steps done and saved.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


class StopSignals:
    """Notes SIGTERM and SIGUSR1 instead of dying of them, as long as the context lasts.

    Nothing is saved inside a handler: it may run in the middle of an update, and other processes
    would not be at the same place.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.getsignal(number) for number in self.SIGNALS}
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def listen(self) -> None:
        """Put the handlers in place, over whatever is there (only the main thread can)."""
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)

    def received_anywhere(self, trainer: L.Trainer) -> bool:
        """Has any process been asked to stop? A collective operation: all get the same answer."""
        return trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)


def leave_processes() -> None:
    """Leave the group of processes that trained together, if this process is in one.

    The threads of a group that is still there when the interpreter ends now and then abort it
    ("terminate called without an active exception").
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def ignore_in_worker(worker: int) -> None:
    """Of a data loader's worker: who signals the whole job means the training process."""
    for number in StopSignals.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
