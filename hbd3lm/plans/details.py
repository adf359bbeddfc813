"""What is known about each plan beyond its text, one JSON line a problem, and the run's counts.

The side file keeps the data file at its five keys. It holds nothing that depends on time or
machine, so runs that should be equal have equal ones.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write, load_json_lines, read_text
from hbd3lm.plans.ask import Recipe
from hbd3lm.plans.journal import Attempt
from hbd3lm.plans.judge import FAULTS
from hbd3lm.plans.numbers import count_numbers, count_spelled_numbers
from hbd3lm.plans.prompt import clean_plan
from hbd3lm.plans.quality import plan_category

Row = dict[str, Any]
_KEYS = {"id", "status", "faults", "attempt", "numbers", "spelled_numbers", "attempts"}


def details_path(output: str | Path) -> Path:
    """The side file of ``output``."""
    output = Path(output)
    return output.with_name(output.name + ".details.jsonl")


def plan_details(problem: Problem, attempts: Sequence[Attempt], recipe: Recipe | None) -> Row:
    """The row of one problem: the chosen plan, whether it passed, and every attempt.

    Args:
        problem: whose attempts they are.
        attempts: at least one.
        recipe: that judged them; None: they were not judged (planners without a model).
    """
    chosen = attempts[0] if recipe is None else recipe.best(problem, attempts)
    tried = []
    for attempt in attempts:
        plan = clean_plan(attempt.text) if recipe else attempt.text.strip()
        row = {"number": attempt.number, "text": attempt.text, "category": plan_category(plan)}
        if recipe is not None:
            row |= {
                "faults": list(recipe.faults(problem, attempt)),
                "finished": attempt.finished,
                "error": attempt.error,
                "temperature": attempt.temperature,
                "seed": attempt.seed,
                "prompt_tokens": attempt.prompt_tokens,
                "completion_tokens": attempt.completion_tokens,
            }
        tried.append(row)
    plan = clean_plan(chosen.text) if recipe else chosen.text.strip()
    faults = tried[chosen.number].get("faults", [])
    return {
        "id": problem.id,
        "status": "failed" if faults else "ok",
        "faults": faults,
        "attempt": chosen.number,
        "numbers": count_numbers(plan),
        "spelled_numbers": count_spelled_numbers(plan),
        "attempts": tried,
    }


def chosen_plan(attempts: Sequence[Attempt], row: Row, recipe: Recipe | None) -> str:
    """The text that goes into the data file."""
    text = attempts[row["attempt"]].text
    return clean_plan(text) if recipe else text.strip()


def tally(rows: Iterable[Row]) -> dict[str, Any]:
    """The counts of a run, from its rows: how abstract before and after repair, what went wrong."""
    rows = list(rows)
    tried = [attempt for row in rows for attempt in row["attempts"]]

    def faults(of: Iterable[Sequence[str]]) -> dict[str, int]:
        counts = Counter(fault for kinds in of for fault in kinds)
        return {fault: counts[fault] for fault in FAULTS if counts[fault]}

    def tokens(kind: str) -> int | None:
        known = [attempt[kind] for attempt in tried if attempt.get(kind) is not None]
        return sum(known) if known else None

    return {
        "plans": len(rows),
        "attempts": len(tried),
        "retries": len(tried) - len(rows),
        "repaired": sum(row["status"] == "ok" and len(row["attempts"]) > 1 for row in rows),
        "failed": sum(row["status"] == "failed" for row in rows),
        "numbers_first": dict(Counter(row["attempts"][0]["category"] for row in rows)),
        "numbers_final": dict(Counter(row["attempts"][row["attempt"]]["category"] for row in rows)),
        "faults_first": faults(row["attempts"][0].get("faults", ()) for row in rows),
        "faults_all": faults(attempt.get("faults", ()) for attempt in tried),
        "faults_final": faults(row["faults"] for row in rows),
        "prompt_tokens": tokens("prompt_tokens"),
        "completion_tokens": tokens("completion_tokens"),
    }


def write_details(output: str | Path, rows: Iterable[Row]) -> None:
    """Write the side file of ``output``, atomically."""
    with atomic_write(details_path(output)) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_details(output: str | Path) -> list[Row]:
    """The rows of the side file of ``output``.

    Raises:
        UserError: it is missing or damaged.
    """
    path, remedy = details_path(output), f"generate {output} again"
    rows = []
    for number, row in load_json_lines(read_text(path, "details"), str(path), remedy):
        if not isinstance(row, dict) or not _KEYS.issubset(row):
            raise UserError(f"{path}, line {number} does not describe a plan; {remedy}")
        rows.append(row)
    return rows
