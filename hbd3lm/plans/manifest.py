"""Where a plan file comes from: model, prompt, sampling, versions, tokens and time, in one JSON.

It lies beside the data file and names its SHA-256, so that a file which was edited or half copied
is noticed where it matters.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hbd3lm import __version__
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write, read_json
from hbd3lm.plans.journal import fingerprint

Manifest = dict[str, Any]


def manifest_path(output: str | Path) -> Path:
    """The manifest of ``output``."""
    output = Path(output)
    return output.with_name(output.name + ".manifest.json")


def now() -> str:
    """This moment, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def new_session() -> dict[str, Any]:
    """What is worth knowing about the process that works now."""
    return {
        "started": now(),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "python": platform.python_version(),
        "hbd3lm": __version__,
    }


def build_manifest(
    output: Path,
    settings: Mapping[str, Any],
    report: Mapping[str, Any],
    engine: Mapping[str, Any] | None,
    sessions: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> Manifest:
    """The manifest of a plan file that is written.

    Args:
        output: the file; it is hashed.
        settings: what decided its contents.
        report: the counts of :func:`hbd3lm.plans.details.tally`.
        engine: what the language model said of itself; None: there was none.
        sessions: the processes that took part, with the seconds each spent.
        about: further facts, e.g. the source of the problems.
    """
    seconds = round(sum(session["seconds"] for session in sessions), 3)
    tokens = report.get("completion_tokens")
    return {
        "file": output.name,
        "sha256": file_digest(output),
        "fingerprint": fingerprint(settings),
        "finished": now(),
        "hbd3lm": __version__,
        "settings": dict(settings),
        "engine": None if engine is None else dict(engine),
        **about,
        "report": dict(report),
        "seconds": seconds,
        "tokens_per_second": round(tokens / seconds, 1) if tokens and seconds else None,
        "sessions": [dict(session) for session in sessions],
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(output: str | Path, manifest: Manifest) -> None:
    """Write it beside ``output``, atomically."""
    with atomic_write(manifest_path(output)) as file:
        json.dump(manifest, file, ensure_ascii=False, indent=2, default=str)
        file.write("\n")


def read_manifest(output: str | Path) -> Manifest:
    """The manifest of ``output``.

    Raises:
        UserError: it is missing or damaged.
    """
    path, remedy = manifest_path(output), f"generate {output} again"
    manifest = read_json(path, "manifest", remedy)
    if not isinstance(manifest.get("settings"), dict):
        raise UserError(f"{path} is no manifest of a plan file; {remedy}")
    return manifest


def is_finished(output: Path, settings: Mapping[str, Any]) -> bool:
    """Whether ``output`` already is what a run with ``settings`` would write."""
    if not output.is_file() or not manifest_path(output).is_file():
        return False
    try:
        manifest = read_manifest(output)
    except UserError:  # damaged: written anew
        return False
    same = manifest.get("fingerprint") == fingerprint(settings)
    return same and manifest.get("sha256") == file_digest(output)
