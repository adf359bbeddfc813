"""Every answer of a planner, written down the moment it is there: what a run resumes from.

A journal is a file of JSON lines that only grows: a header with the settings, a line a session,
and one a finished attempt, failed ones too. Which plan is done, and what is asked next, follows
from the attempts alone, so a run that was killed anywhere goes on as if nothing had happened.
Attempts may come in any order of problems.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hbd3lm.errors import UserError

_VERSION = 2
ENGINE_IDENTITY = ("model", "revision", "fingerprint", "constrained")
"""Of an engine's description: where these differ, another model answers."""
_SYNC_SECONDS = 5.0  # a power cut may cost the plans of so many; a killed process costs none


@dataclass(frozen=True)
class Attempt:
    """One answer for one problem.

    Attributes:
        id: of the problem.
        number: 0 is the first request, each repair one more.
        text: as the planner wrote it.
        finished, error, prompt_tokens, completion_tokens: of the completion.
        seed, temperature: of the request; None for planners without a language model.
    """

    id: str
    number: int
    text: str
    finished: bool = True
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None


_FIELDS = {field.name for field in fields(Attempt)}


def journal_path(output: str | Path) -> Path:
    """Where an unfinished run for ``output`` keeps what it has so far."""
    output = Path(output)
    return output.with_name(output.name + ".partial.jsonl")


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A hash of everything that decides the contents of an output file."""
    canonical = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], where: tuple[str, str] = ("there", "here")
) -> str:
    """``"temperature (0.7 there, 0.9 here), prompt (...)"``: the settings that are not the same."""

    def show(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return text if len(text) <= 40 else text[:10] + "..."

    return ", ".join(
        f"{key} ({show(old.get(key))} {where[0]}, {show(new.get(key))} {where[1]})"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    )


class Journal:
    """The journal of one output, open for appending; hold the output's lock while it is.

    Attributes:
        attempts: by problem id, numbers 0, 1, ... without a gap.
        sessions: one entry a process that wrote to it, the last is ours; ``seconds`` is how long
            it had worked at its last attempt.
        engine: what the language model said of itself; None: none has answered yet.
        unreadable: lines damaged from outside, left where they are; what they held is made again.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], session: Mapping[str, Any]) -> None:
        """Open ``path``, or begin it. One that no answer ever reached is begun anew.

        Raises:
            UserError: it belongs to a run with other settings; the message names them.
            OSError: it cannot be read or written.
        """
        self.path = path
        self.attempts: dict[str, list[Attempt]] = {}
        self.sessions: list[dict[str, Any]] = []
        self.unreadable = 0
        self.engine: dict[str, Any] | None = None
        # As it reads back, so that tuples equal the lists they became.
        settings = json.loads(json.dumps(settings, default=str))
        header = {"version": _VERSION, "settings": settings}
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._end = self._read(settings)
            os.ftruncate(self._handle, self._end)  # the line that a crash cut off
            if not self._end:
                self._write(header)
            self.sessions.append({**session, "seconds": 0.0, "attempts": 0})
            self._write({"session": session})
        except BaseException:
            os.close(self._handle)
            raise
        self._started = self._synced = time.monotonic()

    def add(self, attempt: Attempt) -> None:
        """Append an attempt; it survives this process from here on.

        Raises:
            OSError: e.g. no space left; the journal stays whole.
        """
        known = self.attempts.setdefault(attempt.id, [])
        if attempt.number != len(known):
            raise ValueError(f"attempt {attempt.number} at {attempt.id} after {len(known)}")
        seconds = time.monotonic() - self._started
        self._write({"attempt": asdict(attempt), "at": round(seconds, 3)})
        known.append(attempt)
        self.sessions[-1]["seconds"] = round(seconds, 3)
        self.sessions[-1]["attempts"] += 1
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            os.fsync(self._handle)
            self._synced = time.monotonic()

    def note_engine(self, description: Mapping[str, Any]) -> None:
        """Note which model answers, after comparing it with the one that did before.

        The session's seconds count from here: loading a model is no part of a speed.

        Raises:
            UserError: it is another one.
        """
        description = json.loads(json.dumps(description, default=str))
        self._started = time.monotonic()
        if self.engine is None:
            self.engine = description
            self._write({"engine": description})
            return
        old, new = (
            {key: engine.get(key) for key in ENGINE_IDENTITY}
            for engine in (self.engine, description)
        )
        if old != new:
            raise _refusal(self.path, differences(old, new))

    def close(self) -> None:
        """Let go of the file. One that no answer ever reached is removed: a model that could not be
        loaded is no unfinished run."""
        os.close(self._handle)
        if not any(self.attempts.values()) and not self.unreadable:
            self.path.unlink(missing_ok=True)

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = (json.dumps(entry, ensure_ascii=False) + "\n").encode()
        try:
            while line:
                line = line[os.write(self._handle, line) :]
        except BaseException:  # half a line, e.g. on a full disk
            os.ftruncate(self._handle, self._end)
            raise
        self._end = os.lseek(self._handle, 0, os.SEEK_END)

    def _read(self, settings: Mapping[str, Any]) -> int:
        """Take in what is there; returns how many bytes are whole lines."""
        with self.path.open("rb") as file:
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        header, *lines = whole.split(b"\n")[:-1] or [b""]
        if not whole:
            return 0
        entry = _parse(header)
        if entry.get("version") != _VERSION or not isinstance(entry.get("settings"), dict):
            raise _refusal(self.path, "it was written by another version, or is damaged")
        entries = [_parse(line) for line in lines]
        if all("session" in entry or "engine" in entry for entry in entries):
            return 0  # e.g. killed while the model was loaded
        if entry["settings"] != settings:
            raise _refusal(self.path, differences(entry["settings"], settings))
        found: dict[str, dict[int, Attempt]] = {}
        for entry in entries:
            if isinstance(entry.get("session"), dict):
                self.sessions.append({**entry["session"], "seconds": 0.0, "attempts": 0})
            elif isinstance(entry.get("engine"), dict):
                self.engine = entry["engine"]
            elif isinstance(entry.get("attempt"), dict) and set(entry["attempt"]) == _FIELDS:
                attempt = Attempt(**entry["attempt"])
                found.setdefault(attempt.id, {})[attempt.number] = attempt
                if self.sessions:
                    self.sessions[-1]["seconds"] = entry.get("at", 0.0)
                    self.sessions[-1]["attempts"] += 1
            else:
                self.unreadable += 1
        for name, numbered in found.items():
            series: list[Attempt] = []
            while len(series) in numbered:
                series.append(numbered[len(series)])
            self.attempts[name] = series
        return len(whole)


def _parse(line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


def _refusal(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path} holds an unfinished run with other settings or problems: {reason}; repeat that "
        "run's command to finish it, or give --overwrite to discard it and start anew"
    )
