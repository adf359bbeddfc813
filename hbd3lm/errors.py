"""The one exception a user is meant to read, the one place that prints it, and texts for both."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import IO


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


HUNG_UP = 141
"""Exit status where the reader has left, as shells tell it of other programs (128 + SIGPIPE)."""
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT)


def run_command(main: Callable[[], int | None]) -> int:
    """Run ``main`` and turn a :class:`UserError` into one message on stderr and status 1.

    So is a refusal of the file system that nothing nearer to it has put into words. Where the
    reader of what is printed leaves (``| head``), the program ends in silence. Anything else is a
    bug of ours and keeps its traceback. Returns the exit status.
    """
    try:
        try:
            status = _run(main)
        except SystemExit:  # argparse's way out of --help
            _flush()
            raise
        _flush()
        return status
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not left:
            raise  # a pipe of something else
        for stream in left:
            _drop(stream)
        return HUNG_UP


def _run(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(place)}{error.strerror}", file=sys.stderr)
        return 1


def _flush() -> None:
    """Find out now, and not when the interpreter ends, whether what was printed gets anywhere."""
    print(end="", flush=True)  # sys.stdout.flush(), but there may be no stdout


def _has_no_reader(stream: IO[str] | None) -> bool:
    with contextlib.suppress(AttributeError, OSError):  # no stream, none of the system's
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    return False


def _drop(stream: IO[str]) -> None:
    """Let the flush when the interpreter ends find an open file, as Python's documentation says."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
