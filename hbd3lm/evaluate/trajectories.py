"""Trajectories that can be read: the text and confidence of every token, pass by pass.

A file of them is JSON Lines: what all problems share, then the record of each problem (as in
``samples_full.jsonl``) with its ``trajectory``. ``hbd3lm view`` makes a page of such a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbd3lm.data.tokenizer import FILL, MASK, SEGMENT_END, ProblemTokenizer
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write, load_json_lines, read_text
from hbd3lm.model.layout import Layout
from hbd3lm.sample.trajectory import Event, written_tokens

FORMAT, VERSION = "hbd3lm trajectories", 1
KINDS = ("text", "end", "fill", "dropped")


@dataclass(frozen=True)
class Token:
    """A decided token.

    Attributes:
        position: in its segment, from 0.
        text: its share of the segment's text; a special token's name. A character that is written
            by several tokens is the text of the last of them.
        confidence: the probability it was given.
        kind: ``text``; ``end`` (the segment's end token); ``fill``; ``dropped``: no part of the
            text because it follows the end, or is a special token out of place.
    """

    position: int
    text: str
    confidence: float
    kind: str = "text"


@dataclass(frozen=True)
class Step:
    """A network pass that decided tokens of this problem; see :class:`Event`.

    Attributes:
        segment: ``plan`` or ``execution``.
        block: of the segment, from 0.
        step: denoising step of the block, from 1.
        tokens: what was decided, in order of position.
        evaluations: network passes so far, this one included.
        commits: whether the pass also put the block before this one into the cache.
    """

    segment: str
    block: int
    step: int
    tokens: tuple[Token, ...]
    evaluations: int
    commits: bool


@dataclass(frozen=True)
class Trajectory:
    """How plan and execution of one problem came about."""

    steps: tuple[Step, ...]

    def text(self, segment: str, steps: int | None = None, mask: str = "") -> str:
        """The text of a segment after the first so many steps; None: all of them.

        Args:
            mask: what stands for a position of an opened block that is not decided yet.
        """
        found: dict[int, str] = {}
        for step in self.steps[:steps]:
            if step.segment == segment:
                found |= {t.position: t.text for t in step.tokens if t.kind == "text"}
                found |= {t.position: "" for t in step.tokens if t.kind != "text"}
        return "".join(found.get(i, mask) for i in range(max(found, default=-1) + 1))

    def __str__(self) -> str:
        """One line a step: where, what was decided, and how sure the model was."""
        return "\n".join(
            f"{step.evaluations:4} {step.segment} block {step.block} step {step.step}: "
            + " ".join(f"{t.position}:{t.text!r} {t.confidence:.2f}" for t in step.tokens)
            for step in self.steps
        )


def describe_trajectory(events: Sequence[Event], tokenizer: ProblemTokenizer) -> Trajectory:
    """Events with texts for ids. Of a sample under way, too."""
    shown = {
        name: _describe_tokens(name, ids, tokenizer) for name, ids in written_tokens(events).items()
    }
    steps = []
    for event in events:
        tokens = []
        for position, confidence in zip(event.positions, event.confidence):
            text, kind = shown[event.segment][position]
            tokens.append(Token(position, text, confidence, kind))
        place = (event.segment, event.block, event.step)
        steps.append(Step(*place, tuple(tokens), event.evaluations, event.commits))
    return Trajectory(tuple(steps))


def _describe_tokens(
    name: str, ids: Sequence[int | None], tokenizer: ProblemTokenizer
) -> list[tuple[str, str]]:
    """Text and kind of each token of a segment; joined, the texts are the decoded segment."""
    specials = {tokenizer.fill_id: FILL, tokenizer.mask_id: MASK}
    specials |= {tokenizer.end_ids[segment]: token for segment, token in SEGMENT_END.items()}
    end = ids.index(tokenizer.end_ids[name]) if tokenizer.end_ids[name] in ids else len(ids)
    described: list[tuple[str, str]] = []
    # A token may hold a part of a character, and some tokenizers drop the blank before the first
    # one they decode: each is decoded behind the ones before it, back to the last whole text.
    text_ids, start, read, last = [], 0, 0, -1
    for position, token in enumerate(ids):
        if token is None:
            described.append(("", "text"))
        elif token in specials:
            kind = "end" if position == end else "fill" if token == tokenizer.fill_id else "dropped"
            described.append((specials[token], kind))
        elif position > end:
            described.append((tokenizer.decode([token]), "dropped"))
        else:
            text_ids.append(token)
            last, text = position, tokenizer.decode(text_ids[start:])
            if text.endswith("\ufffd"):
                described.append(("", "text"))
            else:
                before = tokenizer.decode(text_ids[start:read])
                described.append((text[len(before) :], "text"))
                start, read = read, len(text_ids)
    if read < len(text_ids):  # half a character at the end stays one
        before = tokenizer.decode(text_ids[start:read])
        described[last] = (tokenizer.decode(text_ids[start:])[len(before) :], "text")
    return described


# --- files --------------------------------------------------------------------------------------


def describe_run(
    layout: Layout, checkpoint: str | Path, problem_set: str, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What all problems of a file share: the model, how it sampled, and the segments' blocks."""
    return {
        "checkpoint": str(checkpoint),
        "problem_set": problem_set,
        "settings": dict(settings),
        "has_plan": layout.has_plan,
        "segments": [{"name": s.name, "block_size": s.block_size} for s in layout.segments],
    }


def trajectory_to_json(trajectory: Trajectory) -> list[dict[str, Any]]:
    """A list of steps, their tokens as [position, text, confidence, kind]."""
    return [
        {
            "segment": step.segment,
            "block": step.block,
            "step": step.step,
            "evaluations": step.evaluations,
            "commits": step.commits,
            "tokens": [[t.position, t.text, round(t.confidence, 4), t.kind] for t in step.tokens],
        }
        for step in trajectory.steps
    ]


def write_trajectories(
    path: str | Path,
    about: Mapping[str, Any],
    records: Iterable[Mapping[str, Any]],
    trajectories: Iterable[Trajectory],
) -> None:
    """Write a file for ``hbd3lm view``, whole or not at all.

    Args:
        about: what all problems share; see :func:`describe_run`.
        records: of :func:`hbd3lm.evaluate.answers.make_records`.
    """
    with atomic_write(path) as file:
        header = {"format": FORMAT, "version": VERSION, **about}
        file.write(json.dumps(header, ensure_ascii=False) + "\n")
        for record, trajectory in zip(records, trajectories, strict=True):
            row = {**record, "trajectory": trajectory_to_json(trajectory)}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class TrajectoryFile:
    """What :func:`write_trajectories` wrote: the shared part, and records with trajectories."""

    about: dict[str, Any]
    records: list[dict[str, Any]]


def read_trajectories(path: str | Path, what: str = "FILE") -> TrajectoryFile:
    """Read and check a file of :func:`write_trajectories`; trajectories stay plain JSON.

    Raises:
        UserError: no such file, another kind of file, or a record that is not whole.
    """
    rows = load_json_lines(read_text(path, what), f"{what}: {path}", _REMEDY)
    if not rows:
        raise UserError(f"{what}: {path} is empty; {_REMEDY}")
    (_, about), *records = rows
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{what}: {path} is no file of trajectories; {_REMEDY}")
    if about.get("version") != VERSION:
        raise UserError(
            f"{what}: {path} is of version {about.get('version')}, this program reads {VERSION}; "
            f"{_REMEDY}"
        )
    if not records:
        raise UserError(f"{what}: {path} holds no problems; {_REMEDY}")
    fault = _fault_of_header(about)
    if fault:
        raise UserError(f"{what}: {path}, line 1: {fault}; {_REMEDY}")
    for number, record in records:
        fault = _fault_of_record(record, about)
        if fault:
            raise UserError(f"{what}: {path}, line {number}: {fault}; {_REMEDY}")
    return TrajectoryFile(about, [record for _, record in records])


_REMEDY = "make one with mode=sample_eval sampling.trajectory=true"
_TEXTS = ("id", "question", "plan", "execution", "answer_numerical", "gold_plan", "gold_execution")

_VERDICTS = [
    *((f"predicted_{kind}", str, "neither text nor null") for kind in ("strict", "flexible")),
    *((f"correct_{kind}", bool, "neither true, false nor null") for kind in ("strict", "flexible")),
]


def _fault_of_header(about: Mapping[str, Any]) -> str | None:
    segments = about.get("segments")
    whole = isinstance(segments, list) and bool(segments) and all(
        isinstance(s, dict) and isinstance(s.get("name"), str)
        and type(s.get("block_size")) is int and s["block_size"] > 0
        for s in segments
    )  # fmt: skip
    if not whole:
        return "segments are missing"
    if not isinstance(about.get("settings"), dict):
        return "settings are missing"
    for name in ("checkpoint", "problem_set"):
        if not isinstance(about.get(name), str):
            return f"{name} is no text"
    return None


def _fault_of_record(record: Any, about: Mapping[str, Any]) -> str | None:
    """What is wrong with a record, in words; None if it can be shown."""
    if not isinstance(record, dict):
        return "no object"
    for name in _TEXTS:
        if not isinstance(record.get(name), str):
            return f"field {name!r} is no text"
    evaluations = record.get("network_evaluations")
    if type(evaluations) is not int or evaluations < 1:
        return "field 'network_evaluations' is no whole number of at least 1"
    for name, kind, what in _VERDICTS:
        if not isinstance(record.get(name), (kind, type(None))):
            return f"field {name!r} is {what}"
    if not isinstance(record.get("ended", {}), dict):
        return "field 'ended' is no object"
    names = {segment["name"] for segment in about["segments"]}
    steps = record.get("trajectory")
    if not isinstance(steps, list) or not steps:
        return "field 'trajectory' is no list of steps"
    seen: dict[str, set[int]] = {}
    for index, step in enumerate(steps):
        try:
            fits = step["segment"] in names and all(
                type(step[name]) is int for name in ("block", "step", "evaluations")
            )
            for position, text, confidence, kind in step["tokens"]:
                positions = seen.setdefault(step["segment"], set())
                fits &= type(position) is int and position >= 0 and position not in positions
                fits &= isinstance(text, str) and kind in KINDS
                fits &= isinstance(confidence, (int, float)) and 0 <= confidence <= 1
                positions.add(position)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits or not step["tokens"]:
            return f"step {index} of the trajectory is not as it is written"
    for name, positions in seen.items():
        if positions != set(range(len(positions))):
            return f"the trajectory leaves out tokens of the {name}"
    return None
