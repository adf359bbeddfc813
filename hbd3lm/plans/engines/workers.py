"""Threads that each wait for one answer at a time, for engines whose calls block."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from hbd3lm.plans.engines.engine import Completion, Request


class Workers:
    """At most ``count`` calls of ``work`` at once; further requests wait in line.

    The threads are daemons: a server that never answers must not keep the program from ending.
    """

    def __init__(self, work: Callable[[Request], Completion], count: int) -> None:
        self._work = work
        self._count = count
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Completion | BaseException] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self.pending = 0

    def submit(self, request: Request) -> None:
        """Put ``request`` in line."""
        self.pending += 1
        self._waiting.put(request)
        if len(self._threads) < min(self._count, self.pending):
            self._threads.append(threading.Thread(target=self._run, daemon=True))
            self._threads[-1].start()

    def take(self) -> list[Completion]:
        """All that have ended, at least one if any is pending; waits for it.

        Raises:
            Exception: what ``work`` raised, once everything that ended well has been taken.
        """
        completions: list[Completion] = []
        while self.pending and self._failure is None:
            try:
                result = self._done.get(block=not completions)
            except queue.Empty:
                break
            self.pending -= 1
            if isinstance(result, BaseException):
                self._failure = result
            else:
                completions.append(result)
        if self._failure is not None and not completions:
            raise self._failure
        return completions

    def close(self, wait: bool = False) -> None:
        """Forget what waits in line and let the threads end; ``wait`` for calls that are going."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
        self._threads = []

    def _run(self) -> None:
        while (request := self._waiting.get()) is not None:
            try:
                self._done.put(self._work(request))
            except BaseException as error:  # handed to take(), which raises it
                self._done.put(error)
