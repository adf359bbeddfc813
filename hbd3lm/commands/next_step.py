"""What a command says comes next, as a line to copy."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path


def command_line(script: str, verb: str, arguments: Sequence[str]) -> str:
    """A command to copy: ``script`` where it can be seen from here, else ``hbd3lm`` with its verb.

    Args:
        script: path within the repository, with what it is given for its verb (``main.py mode=x``).
    """
    path, *mode = script.split()
    program = ["python", path, *mode] if Path(path).is_file() else ["hbd3lm", verb]
    return shlex.join([*program, *arguments])
