"""How far long work has come: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
SECONDS = 60.0
"""Between two lines in a log."""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress(contextlib.AbstractContextManager):
    """Counts what is done, on stderr.

    Args:
        what: the work, as in ``"scoring"``.
        total: how many ``units`` there are to do.
        units: their name.
        done: of them done before.
        bar: draw a bar, or else write lines; None: a bar if stderr is a terminal.
        say: writes a line.
    """

    def __init__(
        self,
        what: str,
        total: int,
        units: str,
        done: int = 0,
        bar: bool | None = None,
        say: Callable[[str], None] = _say,
    ) -> None:
        self.what, self.total, self.units, self.done = what, total, units, done
        self._say = say
        self._before, self._started = done, time.monotonic()
        self._said = self._started
        self._bar = None
        if bar if bar is not None else sys.stderr.isatty():
            self._bar = _make_bar()
            self._task = self._bar.add_task(what, total=total, completed=done)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, by: int = 1) -> None:
        """Count ``by`` more; 0 if only time has passed."""
        self.done += by
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done)
            return
        now = time.monotonic()
        if now - self._said >= SECONDS and self.done < self.total:
            self._said = now
            self._say(f"{self.what}: {self.done} of {self.total} {self.units}{self._left(now)}")

    def _left(self, now: float) -> str:
        """How long the rest takes at the pace so far."""
        return time_left(now - self._started, self.done - self._before, self.total - self.done)


def time_left(seconds: float, done: int, left: int) -> str:
    """``", about 3 min left"``: what ``left`` units take if ``done`` took ``seconds``.

    Empty where nothing has been done, or nothing is left.
    """
    if not done or not left:
        return ""
    return f", about {max(1, round(seconds / done * left / 60))} min left"


def track(items: Sequence[T], what: str, units: str) -> Iterator[T]:
    """The items one by one, counted."""
    with Progress(what, len(items), units) as progress:
        for item in items:
            yield item
            progress.advance()


def _make_bar():
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
