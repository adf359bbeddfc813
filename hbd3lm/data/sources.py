"""Where problems come from: a local folder, the Hugging Face hub or its cache, the generator.

A folder that is named is used or is an error. Only GSM8K, unnamed and with the hub out of reach,
gives way to embedded problems, and then says so where nobody can miss it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbd3lm.data.annotations import (
    Annotation,
    check_annotation,
    format_expression,
    parse_expression,
)
from hbd3lm.data.answers import normalize_number, strict_answer
from hbd3lm.data.hub import hub_endpoint, hub_reachable
from hbd3lm.data.records import Problem, check_characters
from hbd3lm.errors import UserError
from hbd3lm.files import read_text

DATA_DIR_VARIABLE = "HBD3LM_DATA_DIR"
GSM8K_COUNTS = {"train": 7473, "test": 1319}
SUBQUESTION_MARK = " ** "  # GSM8K socratic: "How many clips in May? ** Natalia sold 48/2 = ..."
_SVAMP_ROWS, _SVAMP_TRAIN_ROWS = 1000, 700
_REMEDY = f"give their folder with --data_dir DIR, data.dir=DIR or {DATA_DIR_VARIABLE}=DIR"


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems and their provenance.

    Attributes:
        problems: in the order of their file.
        origin: one line for people: data set, split, count, and the file or address.
        fallback: None, or one sentence saying that these are not the problems asked for, why,
            and how to get those.
    """

    problems: list[Problem]
    origin: str
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A record as read, its index within its file and the place to blame in errors."""

    fields: object
    index: int
    where: str


@dataclass(frozen=True, slots=True)
class _Dataset:
    """How one published data set is found and read.

    Attributes:
        title: its name in origins.
        id_prefix: what the ids of its problems begin with. GSM8K's two versions share theirs, as
            they are the same problems.
        repo, config: its address on the hub.
        files: for each split the name of its local file.
        hub_splits: for each split those of the hub that make it up.
        to_problem: from a row and the problem's id.
        take: of all rows of the *local* file at a path, those of a split.
        note: what to say about the local split.
        licence: of its texts, as the hub writes it.
    """

    title: str
    id_prefix: str
    repo: str
    config: str | None
    files: dict[str, str]
    hub_splits: dict[str, tuple[str, ...]]
    to_problem: Callable[[_Row, str], Problem]
    take: Callable[[list[_Row], str, Path], list[_Row]] = lambda rows, split, path: rows
    note: str = ""
    licence: str = "mit"


def load_problems(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProblemSet:
    """Problems of a data set, from ``data_dir``, else ``HBD3LM_DATA_DIR``, else the hub.

    Args:
        dataset: one of :data:`DATASETS`; ``embedded`` generates problems and reads nothing.
        split: ``train`` or ``test`` (``multiarith``: ``test`` only, all 600).
        data_dir: local folder with ``gsm8k_train.jsonl``, ``gsm8k_test.jsonl``, the same names
            with ``_socratic`` before the dot, ``svamp.json`` and ``multiarith.jsonl``, or those
            of them that are asked for.
        limit: only the first ``limit`` problems.
        seed: of generated problems.

    Warns:
        UserWarning: GSM8K was asked for and embedded problems are returned; the same sentence
            is the result's ``fallback``.

    Raises:
        UserError: unknown data set or split, ``limit`` below 1, a named folder without the file,
            a malformed row, or a hub out of reach for a data set without replacement.
    """
    if dataset not in DATASETS:
        raise UserError(f"unknown data set {dataset!r}; choose one of {', '.join(DATASETS)}")
    if split not in DATASETS[dataset]:
        valid = ", ".join(DATASETS[dataset])
        raise UserError(f"data set {dataset!r} has no split {split!r}; choose one of {valid}")
    if limit is not None and limit < 1:
        raise UserError(f"{limit} problems were asked for; at least 1 is needed (or no limit)")
    if dataset == "embedded":
        return _embedded(split, limit, seed)

    spec = _PUBLISHED[dataset]
    folder = local_folder(data_dir)
    if folder:
        named_by = "the data folder" if data_dir else DATA_DIR_VARIABLE
        rows, place = _local_rows(spec, split, folder, named_by)
    else:
        try:
            rows, place = _hub_rows(spec, split)
        except _HubOutOfReachError as error:
            if not dataset.startswith("gsm8k"):
                raise UserError(
                    f"{spec.title}: {error}; {_REMEDY} (file {spec.files[split]})"
                ) from None
            fallback = (
                f"{spec.title} {split} was asked for, but {error}: these are embedded "
                f"(generated) problems, NOT GSM8K; for the real ones {_REMEDY}, holding "
                f"{spec.files[split]}."
            )
            warnings.warn(fallback, stacklevel=2)
            embedded = _embedded(split, limit, seed)
            return ProblemSet(embedded.problems, embedded.origin, fallback)
    chosen = rows[:limit]
    problems = [spec.to_problem(row, f"{spec.id_prefix}_{split}_{row.index}") for row in chosen]
    count = str(len(rows)) if len(chosen) == len(rows) else f"first {len(chosen)} of {len(rows)}"
    return ProblemSet(problems, f"{spec.title}, {split}: {count} problems from {place}")


def local_folder(data_dir: str | Path | None = None) -> Path | None:
    """The folder that published data sets are read from; None: from the hub."""
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(folder).expanduser() if folder else None


def _embedded(split: str, limit: int | None, seed: int) -> ProblemSet:
    from hbd3lm.data.synthetic import generate_problems

    problems = generate_problems(split, limit or GSM8K_COUNTS[split], seed)
    origin = f"embedded problems, {split}: {len(problems)} generated with seed {seed}"
    return ProblemSet(problems, origin)


# --- Local files ------------------------------------------------------------------------------


def _local_rows(spec: _Dataset, split: str, folder: Path, named_by: str) -> tuple[list[_Row], str]:
    if not folder.is_dir():
        raise UserError(f"{named_by} {folder} is not a folder; {_REMEDY}")
    path = folder / spec.files[split]
    if not path.is_file():
        raise UserError(
            f"{named_by} {folder} has no file {path.name}, which {spec.title} {split} is read "
            "from; add it, or name another folder"
        )
    text = read_text(path, named_by).removeprefix("\ufeff")
    parse = _array_rows if path.suffix == ".json" else _line_rows
    rows = spec.take(parse(text, path), split, path)
    if not rows:
        raise UserError(f"{path} holds no {split} problems; download it again")
    return rows, f"{path}{spec.note}"


def _line_rows(text: str, path: Path) -> list[_Row]:
    rows: list[_Row] = []
    # Not splitlines(), which also cuts at U+2028 and other signs JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            rows.append(_Row(json.loads(line), len(rows), where))
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not valid JSON ({error.msg}); download it again") from None
    return rows


def _array_rows(text: str, path: Path) -> list[_Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}, line {error.lineno} is not valid JSON ({error.msg}); download it again"
        ) from None
    if not isinstance(values, list):
        raise UserError(f"{path}, line 1: expected a JSON array of problems")
    # An array has no line per record; the index is what finds it.
    return [_Row(value, index, f"{path}, row {index}") for index, value in enumerate(values)]


def _svamp_split(rows: list[_Row], split: str, path: Path) -> list[_Row]:
    """The first 700 rows train, the last 300 test; by position, so the file must be whole."""
    if len(rows) != _SVAMP_ROWS:
        raise UserError(
            f"{path} holds {len(rows)} problems, SVAMP has {_SVAMP_ROWS}: its split goes by "
            "position; use the whole published file"
        )
    return rows[:_SVAMP_TRAIN_ROWS] if split == "train" else rows[_SVAMP_TRAIN_ROWS:]


# --- The hub ----------------------------------------------------------------------------------


class _HubOutOfReachError(Exception):
    """The hub does not answer and its cache lacks the data set; the message says so."""


def _hub_rows(spec: _Dataset, split: str) -> tuple[list[_Row], str]:
    address = f"{spec.repo} {spec.config}" if spec.config else spec.repo
    cache = _hub_cache()
    if offline := _wants_offline() or not hub_reachable():
        if not _is_cached(spec.repo, cache):
            state = "is switched off" if _wants_offline() else "cannot be reached"
            raise _HubOutOfReachError(
                f"the hub ({hub_endpoint()}) {state} and its cache {cache} has no {spec.repo}"
            )
        place, mode = f"the hub's cache: {address}", _offline()
    else:
        place, mode = f"the hub: {address}", contextlib.nullcontext()
    with mode:
        values = _download(spec, split, cache, offline)
    rows = [_Row(value, index, f"{address}, row {index}") for index, value in enumerate(values)]
    if not rows:
        raise UserError(f"{address} holds no {split} problems; {_REMEDY}")
    return rows, place


def _download(spec: _Dataset, split: str, cache: Path, offline: bool) -> list[object]:
    import datasets

    try:
        return [
            row
            for hub_split in spec.hub_splits[split]
            for row in datasets.load_dataset(
                spec.repo, spec.config, split=hub_split, cache_dir=str(cache)
            )
        ]
    except Exception as error:  # any library below may raise its own; none is swallowed
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if offline:  # e.g. another configuration of the data set is all the cache has
            raise _HubOutOfReachError(
                f"the hub ({hub_endpoint()}) cannot be reached and its cache {cache} is of no "
                f"use: {reason}"
            ) from error
        if _is_network_failure(error):
            raise _HubOutOfReachError(f"the hub ({hub_endpoint()}) failed: {reason}") from error
        raise UserError(
            f"{spec.repo} cannot be loaded from the hub: {reason}; {_REMEDY}"
        ) from error


def _is_network_failure(error: BaseException | None) -> bool:
    while error is not None:
        library = type(error).__module__.partition(".")[0]
        if isinstance(error, (ConnectionError, TimeoutError)) or library in ("httpx", "requests"):
            return True
        error = error.__cause__
    return False


def _hub_cache() -> Path:
    from huggingface_hub import constants

    folder = os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME) / "datasets"
    return Path(folder).expanduser()


def _is_cached(repo: str, cache: Path) -> bool:
    """Whether ``datasets`` has prepared ``repo`` before; asked without importing it."""

    def letters(name: str) -> str:
        # The library writes ChilleD/MultiArith as ChilleD___multi_arith.
        return re.sub(r"[/_]", "", name).lower()

    return cache.is_dir() and any(letters(entry.name) == letters(repo) for entry in cache.iterdir())


def _wants_offline() -> bool:
    names = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Offline mode, which the libraries otherwise only read from the environment at import.

    Without it they would retry for minutes a hub that we already know to be out of reach.
    """
    import datasets.config
    import huggingface_hub.constants

    switches = (datasets.config, huggingface_hub.constants)
    before = [module.HF_HUB_OFFLINE for module in switches]
    try:
        for module in switches:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(switches, before):
            module.HF_HUB_OFFLINE = value


# --- Rows to problems -------------------------------------------------------------------------


def _field(row: _Row, *names: str) -> object:
    """The first of ``names`` that the row has (data sets name a field differently in places)."""
    if not isinstance(row.fields, dict):
        raise UserError(f"{row.where} is a {type(row.fields).__name__}, not a record of fields")
    for name in names:
        if name in row.fields:
            return row.fields[name]
    raise UserError(f"{row.where} has no field {' or '.join(map(repr, names))}")


def _text(row: _Row, *names: str) -> str:
    value = _field(row, *names)
    if not isinstance(value, str):
        raise UserError(
            f"{row.where}: field {names[0]!r} is {type(value).__name__}, expected a string"
        )
    if not value.strip():
        raise UserError(f"{row.where}: field {names[0]!r} is empty")
    check_characters(value, f"{row.where}: field {names[0]!r}")
    return value


def _number(row: _Row, *names: str) -> str:
    value = _field(row, *names)
    try:
        return normalize_number(str(value))
    except ValueError:
        raise UserError(f"{row.where}: field {names[0]!r} is {value!r}, not a number") from None


def _gsm8k_problem(row: _Row, problem_id: str) -> Problem:
    question, solution = _text(row, "question"), _text(row, "answer")
    return Problem(problem_id, question, solution, _gold(row, solution))


def _socratic_problem(row: _Row, problem_id: str) -> Problem:
    question, answer = _text(row, "question"), _text(row, "answer")
    subquestions, lines = [], []
    *steps, last = answer.split("\n")
    for step in steps:
        subquestion, mark, line = step.partition(SUBQUESTION_MARK)
        if not mark:
            raise UserError(
                f"{row.where}: step {step!r} has no sub-question; this is not GSM8K's socratic "
                "version"
            )
        lines.append(line)
        # Where the plain solution has a blank line, the published file repeats a sub-question.
        if line.strip():
            subquestions.append(subquestion.strip())
    solution = "\n".join([*lines, last])
    return Problem(problem_id, question, solution, _gold(row, solution), tuple(subquestions))


def _gold(row: _Row, solution: str) -> str:
    last_line = solution.rpartition("\n")[2]
    gold = strict_answer(last_line) if last_line.startswith("#### ") else None
    if gold is None:
        raise UserError(f"{row.where}: the last line of 'answer' is not '#### NUMBER'")
    return gold


def _svamp_problem(row: _Row, problem_id: str) -> Problem:
    body, question = _text(row, "Body").strip(), _text(row, "Question").strip()
    answer = _number(row, "Answer")
    end = "" if body.endswith((".", "!", "?")) else "."
    solution = _svamp_solution(row, answer)
    return Problem(problem_id, f"{body}{end} {question}", solution, answer)


def _svamp_solution(row: _Row, answer: str) -> str:
    """``( 76.0 - 25.0 )`` -> ``76 - 25 = <<76-25=51>>51`` and the ``####`` line.

    Only that line where the equation is no calculation (``8.0``) or does not give the published
    answer (row 679 of the published file): a wrong step is worse than none.
    """
    equation = _text(row, "Equation")
    try:
        spaced = format_expression(parse_expression(equation))
    except ValueError as error:
        raise UserError(f"{row.where}: field 'Equation': {error}") from None
    compact = spaced.replace(" ", "")
    if " " not in spaced or not check_annotation(Annotation(compact, answer, 0, 0)):
        return f"#### {answer}"
    return f"{spaced} = <<{compact}={answer}>>{answer}\n#### {answer}"


def _multiarith_problem(row: _Row, problem_id: str) -> Problem:
    # The file of the PAL project says input and target, the hub's version the latter names.
    question, answer = _text(row, "input", "question").strip(), _number(row, "target", "final_ans")
    return Problem(problem_id, question, f"#### {answer}", answer)


def _gsm8k(config: str, suffix: str, to_problem: Callable[[_Row, str], Problem]) -> _Dataset:
    return _Dataset(
        title=f"GSM8K {config}",
        id_prefix="gsm8k",
        repo="openai/gsm8k",
        config=config,
        files={split: f"gsm8k_{split}{suffix}.jsonl" for split in GSM8K_COUNTS},
        hub_splits={split: (split,) for split in GSM8K_COUNTS},
        to_problem=to_problem,
    )


_PUBLISHED: dict[str, _Dataset] = {
    "gsm8k": _gsm8k("main", "", _gsm8k_problem),
    "gsm8k_socratic": _gsm8k("socratic", "_socratic", _socratic_problem),
    "svamp": _Dataset(
        title="SVAMP",
        id_prefix="svamp",
        repo="ChilleD/SVAMP",
        config=None,
        files={"train": "svamp.json", "test": "svamp.json"},
        hub_splits={"train": ("train",), "test": ("test",)},
        to_problem=_svamp_problem,
        take=_svamp_split,
        note=" (no official split: the first 700 rows are train, the last 300 test)",
    ),
    "multiarith": _Dataset(
        title="MultiArith",
        id_prefix="multiarith",
        repo="ChilleD/MultiArith",
        config=None,
        files={"test": "multiarith.jsonl"},
        hub_splits={"test": ("train", "test")},  # its own halves; we only ever test on it
        to_problem=_multiarith_problem,
        licence="apache-2.0",  # of the project it was published by
    ),
}
DATASETS: dict[str, Sequence[str]] = {
    **{name: tuple(spec.files) for name, spec in _PUBLISHED.items()},
    "embedded": tuple(GSM8K_COUNTS),
}
"""Names of the data sets, each with its splits."""


def licence_of(dataset: str) -> str | None:
    """The licence of a data set's problems, as the hub writes it; None: not known."""
    if dataset in _PUBLISHED:
        return _PUBLISHED[dataset].licence
    return "mit" if dataset in DATASETS else None  # generated: as this package


def published_as(dataset: str) -> tuple[str, str | None]:
    """A data set's title, and its name on the hub (None: it has none)."""
    spec = _PUBLISHED.get(dataset)
    if spec is None:
        return (f"{dataset} (generated) problems" if dataset in DATASETS else dataset), None
    return spec.title, spec.repo
