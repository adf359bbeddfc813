"""What a language model is asked for when it writes a plan: template files and their rendering.

A template is a YAML file; ``prompts/default.yaml`` explains its keys. Rendering is a pure function
of (template, problem, round of repair, faults of the last attempt).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hbd3lm.data.annotations import strip_annotations
from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.files import read_text
from hbd3lm.plans.engines.engine import Message
from hbd3lm.plans.judge import FAULTS

PROMPTS = Path(__file__).parent / "prompts"
DEFAULT, QUESTION_ONLY = PROMPTS / "default.yaml", PROMPTS / "question_only.yaml"

_KEYS = ("system", "user", "user_without_solution", "examples", "reminders", "insist", "faults")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KNOWN = ("question", "solution")


@dataclass(frozen=True)
class Shot:
    """A problem with a good plan, shown as a turn of the chat."""

    question: str
    solution: str
    plan: str


@dataclass(frozen=True)
class Prompt:
    """A template that was checked; the attributes are the keys of ``prompts/default.yaml``."""

    name: str
    system: str
    user: str
    user_without_solution: str
    examples: tuple[Shot, ...]
    reminders: tuple[Shot, ...]
    insist: tuple[str, ...]
    faults: Mapping[str, str]
    digest: str
    """SHA-256 of everything that decides what is asked (comments and file name do not)."""

    @property
    def shows_solution(self) -> bool:
        """Whether requests hold the gold solution, so that plans may leak it."""
        return "{solution}" in self.user

    @functools.cached_property
    def instructions(self) -> str:
        """What requests say of plans in general, a line a sentence: rules, emphasis, refusals."""
        return "\n".join([self.system, *self.insist, *self.faults.values()])

    def messages(
        self, problem: Problem, round: int = 0, faults: Collection[str] = ()
    ) -> tuple[Message, ...]:
        """The chat that asks for the plan of ``problem``.

        Args:
            problem: its solution is shown without annotations and without the ``####`` line.
            round: 0 is the first request; every round of repair insists more and shows one
                more reminder.
            faults: of the attempt before.
        """
        emphasis = self.insist[min(round, len(self.insist)) - 1] if round and self.insist else ""
        system = self.system
        if system and emphasis:
            system, emphasis = f"{system}\n\n{emphasis}", ""
        last = [self._request(problem.question, shown_solution(problem))]
        last += [self.faults[fault] for fault in faults if self.faults.get(fault)]
        last += [emphasis] if emphasis else []
        chat = [{"role": "system", "content": system}] if system else []
        for shot in self.examples + self.reminders[:round]:
            chat.append({"role": "user", "content": self._request(shot.question, shot.solution)})
            chat.append({"role": "assistant", "content": shot.plan})
        chat.append({"role": "user", "content": "\n\n".join(last)})
        return tuple(chat)

    def _request(self, question: str, solution: str) -> str:
        if not solution and self.user_without_solution:
            template = self.user_without_solution
        else:
            template = self.user
        values = {"question": question.strip(), "solution": solution}
        # One pass: braces in a problem's text are text.
        return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def shown_solution(problem: Problem) -> str:
    """The worked steps without annotations and final ``####`` line; "" if none are published."""
    lines = strip_annotations(problem.solution).splitlines()
    return "\n".join(line for line in lines if not line.startswith("####")).strip()


def load_prompt(path: str | Path | None = None, question_only: bool = False) -> Prompt:
    """The shipped template, or the user's file.

    Raises:
        UserError: unreadable or not a template, an unknown key or placeholder, a missing
            ``{question}``, or a file that shows the solution although ``question_only`` is asked.
    """
    if path is None:
        path = QUESTION_ONLY if question_only else DEFAULT
    path = Path(path)
    where = f"--prompt_file {path}"
    content = _read(path, where)
    for key in ("reminders", "insist", "faults"):
        if key not in content and path != DEFAULT:
            content[key] = _read(DEFAULT, str(DEFAULT))[key]
    texts = {key: _text(content, key, where) for key in _KEYS[:3]}
    _check_placeholders(texts, where)
    shows_solution = "{solution}" in texts["user"]
    if question_only and shows_solution:
        raise UserError(
            f"{where} shows the solution ({{solution}} in its user text), --question_only forbids "
            f"that; leave one of them out (a template that keeps it hidden: {QUESTION_ONLY})"
        )
    shots = {
        key: tuple(_shots(content.get(key) or [], key, shows_solution, where))
        for key in ("examples", "reminders")
    }
    insist = content.get("insist") or []
    if not isinstance(insist, list) or not all(isinstance(line, str) for line in insist):
        raise UserError(f"{where}: insist must be a list of sentences")
    faults = content.get("faults") or {}
    if not isinstance(faults, dict) or not all(isinstance(v, str) for v in faults.values()):
        raise UserError(f"{where}: faults must map kinds of fault to sentences")
    for kind in faults:
        if kind not in FAULTS:
            raise UserError(f"{where}: faults knows no {kind!r}; its keys: {', '.join(FAULTS)}")
    parts = {**texts, **shots, "insist": tuple(line.strip() for line in insist)}
    faults = {kind: text.strip() for kind, text in sorted(faults.items())}
    canonical = json.dumps([parts, faults], default=vars, sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    # Not the path: the same file by another route is the same prompt.
    name = path.stem if path.parent == PROMPTS else path.name
    return Prompt(name=name, **parts, faults=faults, digest=digest)


def _read(path: Path, where: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(path, where.partition(" ")[0]))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise UserError(
            f"{where}{place}: not valid YAML ({getattr(error, 'problem', None) or error}); "
            f"start from a copy of {DEFAULT}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{where} holds no keys; start from a copy of {DEFAULT}")
    for key in content:
        if key not in _KEYS:
            raise UserError(f"{where}: there is no key {key!r}; the keys: {', '.join(_KEYS)}")
    return content


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key) or ""
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} must be a text, not a {type(value).__name__}")
    return value.strip()


def _check_placeholders(texts: Mapping[str, str], where: str) -> None:
    for key, text in texts.items():
        allowed = {"system": (), "user": _KNOWN}.get(key, _KNOWN[:1])
        for name in _PLACEHOLDER.findall(text):
            if name not in allowed:
                may = " and ".join(f"{{{one}}}" for one in allowed) or "none"
                raise UserError(f"{where}: {key} has the placeholder {{{name}}}; it may have {may}")
    for key in ("user", "user_without_solution"):
        if "{question}" not in texts[key] and (key == "user" or texts[key]):
            raise UserError(
                f"{where}: {key} lacks the placeholder {{question}}, where the problem goes"
            )


def _shots(entries: Sequence[Any], key: str, with_solution: bool, where: str):
    if not isinstance(entries, list):
        raise UserError(f"{where}: {key} must be a list of question, solution, plan")
    needed = ("question", "solution", "plan") if with_solution else ("question", "plan")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise UserError(f"{where}: {key}, entry {number} must have {', '.join(needed)}")
        for name in needed:
            if not isinstance(entry.get(name), str) or not entry[name].strip():
                raise UserError(f"{where}: {key}, entry {number} has no text {name!r}")
        solution = entry["solution"].strip() if with_solution else ""
        yield Shot(entry["question"].strip(), solution, " ".join(entry["plan"].split()))


_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ENUMERATOR = re.compile(r"^\s*(?:[-*•]\s+|\(?\d{1,2}[.)]\s+|step\s*\d{1,2}\s*[:.)]\s*)+", re.I)
_HEADING = re.compile(
    r"^(?:[\w',! ]{0,40}?\b(?:plan|here)\b[\w' ]{0,30}:|\*\*[\w ]*plan[\w ]*:?\*\*:?)\s*", re.I
)


def clean_plan(text: str) -> str:
    """A model's answer as a plan: one paragraph without thoughts, heading and list marks.

    What the model said is left alone otherwise: whether it is abstract is judged, not hidden.
    """
    text = _THOUGHTS.sub(" ", text)
    lines = [_ENUMERATOR.sub("", line) for line in text.strip().splitlines()]
    text = " ".join(" ".join(lines).split())
    text = _ENUMERATOR.sub("", _HEADING.sub("", text, count=1))
    return text.strip("\"'* ")
