"""From problems to a finished file of examples: lock, journal, resuming, side files.

Knows no backend: who writes is a planner (``plan(problems) -> list[str]``) or an engine, a language
model that is asked by :mod:`hbd3lm.plans.ask`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hbd3lm.data.annotations import execution_text
from hbd3lm.data.records import HierarchicalExample, Problem, read_examples, write_examples
from hbd3lm.errors import UserError
from hbd3lm.files import WriteError, check_output, writing
from hbd3lm.lock import output_lock
from hbd3lm.plans.ask import Recipe, ask_for_plans
from hbd3lm.plans.details import Row, chosen_plan, plan_details, tally, write_details
from hbd3lm.plans.engines.engine import Engine
from hbd3lm.plans.journal import Attempt, Journal, journal_path
from hbd3lm.plans.manifest import (
    build_manifest,
    is_finished,
    new_session,
    write_manifest,
)
from hbd3lm.plans.planner import Planner
from hbd3lm.progress import Progress

Writer = Planner | Engine


def problems_digest(problems: Sequence[Problem]) -> str:
    """A hash of a problem set: every text of every problem, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(json.dumps(asdict(problem), sort_keys=True).encode())
    return digest.hexdigest()


def run_settings(
    problems: Sequence[Problem],
    settings: Mapping[str, Any],
    keep_annotations: bool,
    recipe: Recipe | None,
) -> dict[str, Any]:
    """Everything that decides the contents of the output file, flat."""
    return {
        **settings,
        **(recipe.settings() if recipe else {}),
        "keep_annotations": keep_annotations,
        "problems_sha256": problems_digest(problems),
    }


def generate_plans(
    problems: Sequence[Problem],
    planner: Writer | Callable[[], Writer],
    output: str | Path,
    *,
    recipe: Recipe | None = None,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    keep_annotations: bool = False,
    overwrite: bool = False,
    wait: bool = False,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> list[HierarchicalExample]:
    """Plan every problem and write the examples to ``output``, in the order of ``problems``.

    Each answer is journalled as it comes. A run that is repeated after an interruption continues
    there and ends with the same file; when all is done ``output``, its details and its manifest
    are replaced atomically and the journal removed. An ``output`` of an earlier run stays as it is
    until then. What a language model has finished is left as it is.

    Args:
        problems: with unique ids.
        planner: a planner, an engine, or a function that builds one, called only if there is
            something left to plan. An engine is closed at the end.
        output: JSON array, or JSON Lines if the name ends in ``.jsonl``.
        recipe: how an engine is asked and judged; needed for engines, and for them only.
        settings: what else decides the plans (planner, model, data set, ...); a journal written
            under other settings or for other problems is not continued.
        about: further facts for the manifest.
        batch_size: problems that go to a planner at a time; an engine's requests in flight.
        keep_annotations: leave GSM8K's ``<<48/2=24>>`` in the executions.
        overwrite: discard a journal, or a finished file, instead of continuing it.
        wait: for another run on the same output to end, instead of refusing.
        progress: show a progress bar on stderr.
        say: takes a line for the user.

    Raises:
        UserError: nothing to plan, a repeated id, a journal of another run, another run on this
            output, an empty plan of a planner, no space left, or what planner or engine raise.
    """
    output = Path(output)
    _check(problems, output, batch_size)
    settings = run_settings(problems, settings or {}, keep_annotations, recipe)
    with contextlib.ExitStack() as stack:
        with _writing(output):
            stack.enter_context(output_lock(output, wait))
            if overwrite:
                journal_path(output).unlink(missing_ok=True)
            elif recipe is not None and is_finished(output, settings):
                journal_path(output).unlink(missing_ok=True)
                say(f"{output} is finished: this very run wrote it (--overwrite to plan anew)")
                return read_examples(output, "--output_path")
            journal = Journal(journal_path(output), settings, new_session())
            stack.callback(journal.close)
        if journal.attempts:
            say(f"continuing the unfinished run in {journal.path}: {len(journal.attempts)} begun")
        if output.is_file():
            say(f"note: {output} exists and is replaced when all plans are written")
        if journal.unreadable:
            say(f"warning: {journal.unreadable} damaged lines in {journal.path}; planned again")
        try:
            _fill(journal, problems, planner, recipe, batch_size, output, progress, say)
        except UserError as error:
            raise UserError(f"{error}{_kept(journal)}") from error
        except KeyboardInterrupt:
            say(f"stopped{_kept(journal)}")
            raise
        with _writing(output):
            return _write(journal, problems, output, recipe, settings, about or {})


def _check(problems: Sequence[Problem], output: Path, batch_size: int) -> None:
    if not problems:
        raise UserError("there are no problems to plan; check --dataset, --split and --data_dir")
    if batch_size < 1:
        raise UserError(f"--batch_size {batch_size}: at least 1 problem a batch is needed")
    check_output(output, "--output_path")  # before a lock and a journal lie beside it
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise UserError(f"two problems have the id {problem.id!r}; ids must be unique")
        seen.add(problem.id)


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """A file that cannot be written is a message for the user, which tells where the journal is."""
    try:
        with writing(output, "--output_path"):
            yield
    except WriteError as error:
        journal = journal_path(output)
        if not journal.exists():
            raise
        raise UserError(
            f"{error}; what is done is kept in {journal}, repeat the command"
        ) from error


def _kept(journal: Journal) -> str:
    done = sum(any(a.error is None for a in series) for series in journal.attempts.values())
    if not done:
        return ""
    return (
        f"; the answers for {done} problems are kept in {journal.path}, repeat the command to go on"
    )


def _fill(
    journal: Journal,
    problems: Sequence[Problem],
    planner: Writer | Callable[[], Writer],
    recipe: Recipe | None,
    batch_size: int,
    output: Path,
    progress: bool,
    say: Callable[[str], None],
) -> None:
    """Get every attempt that is missing into the journal."""

    def is_done(problem: Problem) -> bool:
        attempts = journal.attempts.get(problem.id, ())
        return recipe.is_done(problem, attempts) if recipe else bool(attempts)

    left = [problem for problem in problems if not is_done(problem)]
    if not left:
        return
    writer = planner if isinstance(planner, (Planner, Engine)) else planner()
    if isinstance(writer, Engine) != (recipe is not None):
        raise TypeError(f"{writer.name}: an engine needs a recipe, a planner takes none")
    with contextlib.ExitStack() as stack:
        if isinstance(writer, Engine):
            stack.callback(writer.close)
            with _writing(output):
                journal.note_engine({"constrained": writer.constrained, **writer.describe()})
            answers = ask_for_plans(writer, recipe, left, journal.attempts, batch_size)
        else:
            answers = _plan_batches(left, writer, batch_size)
        before = len(problems) - len(left)
        count = stack.enter_context(
            Progress(f"planning ({writer.name})", len(problems), "problems", before, progress, say)
        )
        by_id = {problem.id: problem for problem in left}
        for attempt in answers:
            with _writing(output):
                journal.add(attempt)
            count.advance(int(is_done(by_id[attempt.id])))


def _plan_batches(
    problems: Sequence[Problem], planner: Planner, batch_size: int
) -> Iterator[Attempt]:
    for start in range(0, len(problems), batch_size):
        batch = problems[start : start + batch_size]
        plans = planner.plan(batch)
        if len(plans) != len(batch):
            raise RuntimeError(
                f"planner {planner.name}: {len(plans)} plans for {len(batch)} problems"
            )
        for problem, plan in zip(batch, plans):
            if not plan.strip():
                raise UserError(
                    f"planner {planner.name} wrote an empty plan for problem {problem.id}; use "
                    "another --planner, or take the problem out"
                )
            yield Attempt(problem.id, 0, plan)


def _write(
    journal: Journal,
    problems: Sequence[Problem],
    output: Path,
    recipe: Recipe | None,
    settings: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[HierarchicalExample]:
    """Data file, details and manifest, from the journal alone; the journal goes last."""
    rows: list[Row] = []
    examples = []
    for problem in problems:
        attempts = journal.attempts[problem.id]
        row = plan_details(problem, attempts, recipe)
        rows.append(row)
        examples.append(
            HierarchicalExample(
                id=problem.id,
                question=problem.question,
                plan=chosen_plan(attempts, row, recipe),
                execution=execution_text(problem, settings["keep_annotations"]),
                answer_numerical=problem.answer,
            )
        )
    # The manifest names the data file's hash: until it is written the run is not finished.
    write_examples(output, examples)
    write_details(output, rows)
    manifest = build_manifest(
        output, settings, tally(rows), journal.engine, journal.sessions, about
    )
    write_manifest(output, manifest)
    journal.path.unlink()
    return examples
