"""Where tables are printed."""

from __future__ import annotations

import os

from rich.console import Console

PIPED_WIDTH = 100  # columns, where no terminal says how many it has
LEAST_WIDTH = 80  # a narrower table loses its numbers; a terminal wraps what does not fit


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Called while the error is handled: ``run_command`` does so for all that is printed."""
        raise


def make_console() -> Console:
    """rich's console, wide enough for our tables in a file or a pipe as well."""
    console = _Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    console.width = max(console.width, LEAST_WIDTH)
    return console
