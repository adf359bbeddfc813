"""From problems to a finished file of examples: batches, progress, a journal to resume from.

Knows no backend: a planner is anything with ``plan(problems) -> list[str]``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbd3lm.data.annotations import execution_text
from hbd3lm.data.records import FIELDS, HierarchicalExample, Problem, write_examples
from hbd3lm.errors import UserError
from hbd3lm.plans.planner import Planner

_JOURNAL_VERSION = 1


def journal_path(output: str | Path) -> Path:
    """Where an unfinished run for ``output`` keeps what it has so far."""
    output = Path(output)
    return output.with_name(output.name + ".partial.jsonl")


def fingerprint(
    problems: Sequence[Problem], settings: Mapping[str, Any], keep_annotations: bool
) -> str:
    """A hash of everything that decides the contents of the output file."""
    digest = hashlib.sha256()
    settings = {**settings, "keep_annotations": keep_annotations, "version": _JOURNAL_VERSION}
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for problem in problems:
        digest.update(json.dumps(asdict(problem), sort_keys=True).encode())
    return digest.hexdigest()


def generate_plans(
    problems: Sequence[Problem],
    planner: Planner | Callable[[], Planner],
    output: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    keep_annotations: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> list[HierarchicalExample]:
    """Plan every problem and write the examples to ``output``, in the order of ``problems``.

    After each batch its examples are appended to a journal beside ``output``. A run that is
    repeated after an interruption continues there; when all is done ``output`` is replaced
    atomically and the journal removed. An ``output`` of an earlier run stays as it is until then.

    Args:
        problems: with unique ids.
        planner: or a function that builds it, called only if there is something left to plan.
        output: JSON array, or JSON Lines if the name ends in ``.jsonl``.
        settings: what else decides the plans (planner, model, temperature, data set, ...); a
            journal written under other settings or for other problems is not continued.
        batch_size: how many problems go to the planner at a time.
        keep_annotations: leave GSM8K's ``<<48/2=24>>`` in the executions.
        overwrite: discard a journal instead of continuing it.
        progress: show a progress bar on stderr.

    Raises:
        UserError: nothing to plan, a repeated id, a journal of another run, an empty plan, or
            what the planner raises.
    """
    output = Path(output)
    _check(problems, output, batch_size)
    journal = journal_path(output)
    mark = fingerprint(problems, settings or {}, keep_annotations)
    if overwrite:
        journal.unlink(missing_ok=True)
    examples = _read_journal(journal, mark, problems)
    if len(examples) < len(problems):
        writer = planner if isinstance(planner, Planner) else planner()
        with _open_journal(journal, mark, examples) as file, _progress(progress) as bar:
            task = bar.add_task(
                f"planning ({writer.name})", total=len(problems), completed=len(examples)
            )
            for start in range(len(examples), len(problems), batch_size):
                batch = problems[start : start + batch_size]
                finished = _plan_batch(batch, writer, keep_annotations)
                for example in finished:
                    file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
                file.flush()
                examples += finished
                bar.update(task, completed=len(examples))
    write_examples(output, examples)
    journal.unlink(missing_ok=True)
    return examples


def _check(problems: Sequence[Problem], output: Path, batch_size: int) -> None:
    if not problems:
        raise UserError("there are no problems to plan; check --dataset, --split and --data_dir")
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}: at least 1 problem a batch is needed")
    if output.is_dir():
        raise UserError(f"--output_path {output} is a folder; name a file in it")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise UserError(f"two problems have the id {problem.id!r}; ids must be unique")
        seen.add(problem.id)


def _plan_batch(
    batch: Sequence[Problem], planner: Planner, keep_annotations: bool
) -> list[HierarchicalExample]:
    plans = planner.plan(batch)
    if len(plans) != len(batch):
        raise RuntimeError(f"planner {planner.name}: {len(plans)} plans for {len(batch)} problems")
    for problem, plan in zip(batch, plans):
        if not plan.strip():
            raise UserError(
                f"planner {planner.name} wrote an empty plan for problem {problem.id}; raise "
                "--max_tokens, change --temperature or --seed, or use --planner rules"
            )
    return [
        HierarchicalExample(
            id=problem.id,
            question=problem.question,
            plan=plan.strip(),
            execution=execution_text(problem, keep_annotations),
            answer_numerical=problem.answer,
        )
        for problem, plan in zip(batch, plans)
    ]


def _open_journal(journal: Path, mark: str, examples: Sequence[HierarchicalExample]):
    """The journal, rewritten as far as it was readable and open at its end."""
    journal.parent.mkdir(parents=True, exist_ok=True)
    file = journal.open("w", encoding="utf-8", newline="\n")
    file.write(json.dumps({"fingerprint": mark}) + "\n")
    for example in examples:
        file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")
    file.flush()
    return file


def _read_journal(
    journal: Path, mark: str, problems: Sequence[Problem]
) -> list[HierarchicalExample]:
    """What an interrupted run of the same settings finished; a line cut off by a crash is
    dropped with everything after it, and planned again."""
    if not journal.is_file():
        return []
    header, *lines = journal.read_text(encoding="utf-8").split("\n")
    try:
        known = json.loads(header).get("fingerprint")
    except (json.JSONDecodeError, AttributeError):
        known = None
    if known != mark:
        raise UserError(
            f"{journal} holds an unfinished run with other settings or problems; repeat that run's "
            "command to finish it, or give --overwrite to discard it and start anew"
        )
    examples: list[HierarchicalExample] = []
    for line, problem in zip(lines, problems):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if not isinstance(row, dict) or set(row) != set(FIELDS) or row["id"] != problem.id:
            break
        examples.append(HierarchicalExample(**row))
    return examples


def _progress(show: bool):
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not show,
    )
