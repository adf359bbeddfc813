"""Reading and writing files so that a crash never leaves half of one behind."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hbd3lm.errors import UserError

_TOO_SMALL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(UserError, OSError):
    """A place that cannot be written: a message for the user, and to code the OSError it was."""

    def __init__(self, what: str, path: str | Path, error: OSError) -> None:
        # EEXIST is how mkdir says that a file stands where a folder is needed.
        number = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno
        reason = os.strerror(number) if number else str(error)
        super().__init__(number, reason, str(path))
        self.what = what

    def __str__(self) -> str:
        remedy = "make room there, or name" if self.errno in _TOO_SMALL else "name"
        return f"{self.what}: cannot write {self.filename}: {self.strerror}; {remedy} another place"


@contextlib.contextmanager
def writing(path: str | Path, what: str = "output") -> Iterator[None]:
    """Make of the file system's refusals in the body a message that names flag and place.

    Args:
        path: what the body writes, where a refusal names nothing better.
        what: the flag or key that named it, e.g. ``"--output_json"``.

    Raises:
        WriteError: in place of any OSError but that of a reader who has left (``| head``).
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except WriteError as error:
        raise WriteError(what, error.filename, error) from None
    except OSError as error:
        raise WriteError(what, path, error) from None


def check_output(path: str | Path, what: str = "output") -> None:
    """Before the work, refuse what :func:`atomic_write` would refuse after it. Makes the folder.

    Raises:
        UserError: ``path`` is no regular file, or cannot be written.
    """
    with writing(path, what):
        _, handle, temporary = _temporary(path, what)
        os.close(handle)
        os.unlink(temporary)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w", what: str = "output") -> Iterator[IO]:
    """Open a temporary file beside ``path`` and move it into place on success.

    Parents are created. Text is UTF-8 with ``\\n`` line ends. A link stays one: the file it leads
    to is replaced. If the body raises, ``path`` keeps its old content and the temporary file is
    removed.

    Args:
        what: the flag or key that named ``path``, for messages.

    Raises:
        UserError: ``path`` is a folder, a device or the like, or (:class:`WriteError`) it cannot be
            written.
    """
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with writing(path, what):
        target, handle, temporary = _temporary(path, what)
        try:
            with os.fdopen(handle, mode, **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp makes files private; give ours the permissions an ordinary open() would.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def _temporary(path: str | Path, what: str) -> tuple[Path, int, str]:
    """The file that writing to ``path`` makes or replaces, and an open one beside it."""
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{what}: {path} is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise UserError(f"{what}: {path} is a device, pipe or socket; name a file")
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_hidden(target), suffix=".tmp")
    return target, handle, temporary


def _hidden(target: Path) -> str:
    """How temporary names begin; short enough that a name which fits has one which fits."""
    return f".{target.name[:50]}."


@contextlib.contextmanager
def atomic_folder(path: str | Path, what: str = "output") -> Iterator[Path]:
    """A new folder beside ``path``, moved into its place on success; what was there goes then.

    Parents are created. A link stays one, as with :func:`atomic_write`. If the body raises,
    ``path`` keeps its old content.

    Args:
        what: the flag or key that named ``path``, for messages.

    Raises:
        WriteError: it cannot be written.
    """
    with writing(path, what):
        target = Path(os.path.realpath(path))
        with contextlib.suppress(FileNotFoundError):
            os.stat(target)  # refuses, before the body, e.g. a name that is too long
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=_hidden(target), suffix=".tmp"))
        old = temporary.with_suffix(".old")
        try:
            try:
                yield temporary
            except WriteError as error:  # it names a file that nobody will find
                raise WriteError(what, path, error) from None
            os.chmod(temporary, 0o777 & ~_umask())
            if target.exists():
                os.rename(target, old)
            try:
                os.rename(temporary, target)
            except BaseException:
                if old.exists():
                    os.rename(old, target)
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)  # moved away, unless something failed
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def read_text(path: str | Path, what: str) -> str:
    """The UTF-8 text of ``path``; ``what`` names its role in the error, e.g. ``"--data_path"``.

    Raises:
        UserError: the file is missing, a folder, unreadable or not UTF-8.
    """
    path = Path(path)
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{what}: no such file: {path}") from None
    except IsADirectoryError:
        raise UserError(f"{what}: {path} is a folder, a file is needed") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what}: {path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror}") from None


def load_json(text: str, where: str, remedy: str) -> Any:
    """The value that ``text`` spells.

    Args:
        where: begins the message: flag, file, and line of JSON Lines, e.g. ``"--data_path: x"``.
        remedy: ends it.

    Raises:
        UserError: it is no JSON, or none that Python can hold.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}: " if "\n" in text else ""
        reason = f"{place}{error.msg}"
    except RecursionError:
        reason = "it nests its values too deeply"
    except ValueError:  # a safeguard of Python's: such numbers take it long to read
        reason = "it holds a number of thousands of digits"
    raise UserError(f"{where} is not valid JSON ({reason}); {remedy}")


def load_json_lines(text: str, where: str, remedy: str) -> list[tuple[int, Any]]:
    """The values of JSON Lines, each with the number of its line, from 1.

    Blank lines are skipped, and the byte order marks of files that were joined.

    Raises:
        UserError: as :func:`load_json`; the message names the line.
    """
    # Not splitlines(), which also cuts at U+2028 and other signs JSON allows inside strings.
    return [
        (number, load_json(line.lstrip("\ufeff"), f"{where}, line {number}", remedy))
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip("\ufeff \t\r")
    ]


def read_json(path: str | Path, what: str, remedy: str) -> dict[str, Any]:
    """The JSON object in a file; ``what`` names its role, ``remedy`` ends the message.

    Raises:
        UserError: see :func:`read_text` and :func:`load_json`, or it is no object.
    """
    content = load_json(read_text(path, what), f"{what}: {path}", remedy)
    if not isinstance(content, dict):
        raise UserError(f"{what}: {path} holds no JSON object; {remedy}")
    return content
