"""The one exception a user is meant to read, and the one place that prints it."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Bad input or a missing prerequisite.

    The message names the file, record or flag at fault and the remedy; it is printed
    without a traceback and the program exits with status 1.
    """


def run_command(main: Callable[[], int | None]) -> int:
    """Run ``main`` and turn a :class:`UserError` into one message on stderr and status 1.

    Anything else is a bug of ours and keeps its traceback. Returns the exit status.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
