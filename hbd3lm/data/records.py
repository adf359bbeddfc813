"""The two records everything exchanges: a problem as published, and an example with its plan.

``Problem`` is what the readers and the generator produce. ``HierarchicalExample`` is the one
currency between plan generation, analysis, training and evaluation; its JSON (exactly five
string fields) is the data format documented in ``GSM8K_README.md``.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hbd3lm.errors import UserError, printable
from hbd3lm.files import atomic_write, load_json, load_json_lines, read_text


@dataclass(frozen=True, slots=True)
class Problem:
    """A word problem as its data set publishes it.

    Attributes:
        id: unique within its data set, e.g. ``gsm8k_train_0``.
        question: the text of the problem.
        solution: worked solution in GSM8K's format: one step a line with ``<<48/2=24>>``
            annotations, last line ``#### 72``. Data sets that publish no steps get the
            shortest solution their fields carry (SVAMP: its equation; MultiArith: ``####`` only).
        answer: the final number, normalised by :func:`hbd3lm.data.answers.normalize_number`.
        subquestions: one sub-question a step (GSM8K ``socratic`` only), else empty.
    """

    id: str
    question: str
    solution: str
    answer: str
    subquestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HierarchicalExample:
    """Question -> plan -> execution, with the final answer as text. All fields are strings."""

    id: str
    question: str
    plan: str
    execution: str
    answer_numerical: str


TEXTS = ("question", "plan", "execution")
FIELDS: tuple[str, ...] = tuple(field.name for field in fields(HierarchicalExample))


def read_examples(path: str | Path, what: str = "--data_path") -> list[HierarchicalExample]:
    """Read a JSON array (or JSON Lines, one object a line) of examples.

    Fields beyond the five are ignored, so that per-problem evaluation records can be read too.
    """
    return read_records(path, what)[0]


def read_records(
    path: str | Path, what: str = "--data_path"
) -> tuple[list[HierarchicalExample], list[dict]]:
    """As :func:`read_examples`, and every record as it stands in the file, further fields and all.

    Args:
        path: the file.
        what: the flag or config key that named it, for error messages.

    Raises:
        UserError: missing or empty file, broken JSON, a record that lacks a field or holds a
            non-string, or a repeated id; the message names the file and the record.
    """
    if not os.path.lexists(path):
        raise UserError(
            f"{what}: no such file: {path}; write it first (of test problems with "
            f"--split test): hbd3lm plans --output_path {shlex.quote(str(path))}"
        )
    rows = _parse_rows(read_text(path, what), f"{what}: {path}")
    if not rows:
        raise UserError(f"{what}: {path} holds no examples; write it with generate_gsm8k_plans.py")
    examples = [_to_example(row, index, path, what) for index, row in enumerate(rows)]
    seen: dict[str, int] = {}
    for index, example in enumerate(examples):
        if example.id in seen:
            raise UserError(
                f"{what}: {path}: records {seen[example.id]} and {index} both have the id "
                f"{example.id!r}; ids must be unique"
            )
        seen[example.id] = index
    return examples, list(rows)


def tell_empty(
    examples: Sequence[HierarchicalExample], where: str, needed: Sequence[str] = TEXTS
) -> None:
    """Warn on stderr, a line each, of questions, plans and executions without text.

    Args:
        where: begins the message: flag and file.
        needed: texts that not all examples may lack.

    Raises:
        UserError: a text of ``needed`` is empty in every example.
    """
    for name in TEXTS:
        empty = [example.id for example in examples if not getattr(example, name).strip()]
        if not empty:
            continue
        if len(empty) == len(examples) and name in needed:
            raise UserError(f"{where}: the {name} is empty in all {len(empty)} records; fill it in")
        found = f"{len(empty)} of {len(examples)} records, the first is {empty[0]!r}"
        text = f"warning: {where}: empty {name} in {found}; fill them in or leave them out"
        print(printable(text), file=sys.stderr)


def write_examples(path: str | Path, examples: Iterable[HierarchicalExample]) -> None:
    """Write a JSON array (JSON Lines if the name ends in ``.jsonl``), UTF-8, atomically."""
    rows = [asdict(example) for example in examples]
    with atomic_write(path) as file:
        if Path(path).suffix == ".jsonl":
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            json.dump(rows, file, ensure_ascii=False, indent=2)
            file.write("\n")


def _parse_rows(text: str, where: str) -> Sequence[object]:
    stripped = text.lstrip("\ufeff \t\r\n")
    if not stripped:
        raise UserError(f"{where} is empty")
    if stripped[0] == "[":
        remedy = "the file may be cut off: generate it again"
        return load_json(stripped, where, remedy)
    remedy = "expected an array of records or one record a line"
    return [row for _, row in load_json_lines(text, where, remedy)]


def _to_example(row: object, index: int, path: str | Path, what: str) -> HierarchicalExample:
    where = f"{what}: {path}, record {index}"
    if not isinstance(row, dict):
        raise UserError(
            f"{where} is a {type(row).__name__}, not an object with {', '.join(FIELDS)}"
        )
    if isinstance(row.get("id"), str):
        where += f" (id {row['id']!r})"
    for name in FIELDS:
        if name not in row:
            raise UserError(f"{where} has no field {name!r}; each record needs {', '.join(FIELDS)}")
        if not isinstance(row[name], str):
            raise UserError(
                f"{where}: field {name!r} is {type(row[name]).__name__}, expected a string"
            )
        check_characters(row[name], f"{where}: field {name!r}")
    return HierarchicalExample(**{name: row[name] for name in FIELDS})


def check_characters(text: str, where: str) -> None:
    """Refuse a surrogate without its other half, which JSON can spell but no file can hold.

    Raises:
        UserError: ``where`` begins the message.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise UserError(
            f"{where} holds {half}, half of a character, at position {error.start}; remove it or "
            "write the whole pair"
        ) from None
