"""One run an output: a lock that dies with its process and says who holds it."""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hbd3lm.errors import UserError
from hbd3lm.files import writing


class LockedError(UserError):
    """Another run holds the lock."""


def lock_path(output: str | Path) -> Path:
    """The lock file of ``output``; without a living holder it means nothing."""
    output = Path(output)
    return output.with_name(output.name + ".lock")


@contextlib.contextmanager
def output_lock(
    output: str | Path, wait: bool | float = False, what: str = "--output_path"
) -> Iterator[None]:
    """Hold the right to write ``output``, its journal and its side files.

    The kernel releases the lock with the process, killed or not, so nothing is ever to be cleaned
    up by hand. On a file system without locks a warning is printed and the run goes on.

    Args:
        output: its folder is created.
        wait: for another holder to end, instead of refusing; a number: so many seconds.
        what: the flag or key that named ``output``, for messages.

    Raises:
        LockedError: another run holds it; the message names that run.
        WriteError: the file cannot be created.
    """
    path = lock_path(output)
    with writing(output, what):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = _acquire(path, wait, what)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        os.close(handle)


def _acquire(path: Path, wait: bool | float, what: str) -> int:
    deadline = time.monotonic() + wait
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait is True else fcntl.LOCK_NB))
        except BlockingIOError:
            holder = os.read(handle, 1000).decode("utf-8", "replace").strip()
            os.close(handle)
            if time.monotonic() < deadline:
                time.sleep(0.2)
                continue
            raise LockedError(
                f"{what}: another run is writing {path.with_suffix('')}: "
                f"{holder or 'it has not said who it is'}; wait for it, end it, or choose another "
                f"{what}"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                os.close(handle)
                raise
            print(
                f"warning: the file system of {path.parent} has no locks; see to it yourself that "
                "no second run writes the same output",
                file=sys.stderr,
            )
        if _is_current(handle, path):
            break
        os.close(handle)  # its last holder removed the file before we got hold of it
    started = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}, since {started}\n".encode())
    return handle


def _is_current(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
