"""The one exception a user is meant to read, the one place that prints it, and texts for both."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Bad input or a missing prerequisite.

    The message names the file, record or flag at fault and the remedy; it is printed
    without a traceback and the program exits with status 1.
    """


# Control characters but line ends and tabs, what turns the direction of text, half characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: str) -> str:
    """``text`` for a terminal: what would steer it is spelled out, ``\\x1b`` or ``\\u202e``."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def some_of(names: Sequence[str], most: int = 5) -> str:
    """``names`` for a message, of many the first ``most``: ``a, b and 3 more``."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def run_command(main: Callable[[], int | None]) -> int:
    """Run ``main`` and turn a :class:`UserError` into one message on stderr and status 1.

    Anything else is a bug of ours and keeps its traceback. Returns the exit status.
    """
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
