"""Where problems come from: a local folder, the Hugging Face hub or its cache, the generator.

A folder that is named is used or is an error. Only GSM8K, unnamed and with the hub out of reach,
gives way to embedded problems, and then says so where nobody can miss it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from hbd3lm.data.catalogue import DATASETS, GSM8K_COUNTS, PUBLISHED
from hbd3lm.data.hub_datasets import HubOutOfReachError, read_hub_rows
from hbd3lm.data.local_files import DATA_DIR_VARIABLE, REMEDY, local_folder, read_local_rows
from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError


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


def load_problems(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProblemSet:
    """As :func:`find_problems`, for those who do not look whether these are the problems meant.

    Warns:
        UserWarning: they are not; the sentence is the result's ``fallback``.
    """
    found = find_problems(dataset, split, data_dir, limit, seed)
    if found.fallback:
        warnings.warn(found.fallback, stacklevel=2)
    return found


def find_problems(
    dataset: str,
    split: str,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ProblemSet:
    """Problems of a data set, from ``data_dir``, else ``HBD3LM_DATA_DIR``, else the hub.

    Args:
        dataset: one of :data:`~hbd3lm.data.catalogue.DATASETS`; ``embedded`` generates problems
            and reads nothing.
        split: ``train`` or ``test`` (``multiarith``: ``test`` only, all 600).
        data_dir: local folder with ``gsm8k_train.jsonl``, ``gsm8k_test.jsonl``, the same names
            with ``_socratic`` before the dot, ``svamp.json`` and ``multiarith.jsonl``, or those
            of them that are asked for.
        limit: only the first ``limit`` problems.
        seed: of generated problems.

    Returns:
        Embedded ones, and a ``fallback`` that says so, where GSM8K is out of reach.

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

    spec = PUBLISHED[dataset]
    folder = local_folder(data_dir)
    if folder:
        named_by = "the data folder" if data_dir else DATA_DIR_VARIABLE
        rows, place = read_local_rows(spec, split, folder, named_by)
    else:
        try:
            rows, place = read_hub_rows(spec, split)
        except HubOutOfReachError as error:
            if not dataset.startswith("gsm8k"):
                raise UserError(
                    f"{spec.title}: {error}; {REMEDY} (file {spec.files[split]})"
                ) from None
            fallback = (
                f"{spec.title} {split} was asked for, but {error}: these are embedded "
                f"(generated) problems, NOT GSM8K; for the real ones {REMEDY}, holding "
                f"{spec.files[split]}."
            )
            embedded = _embedded(split, limit, seed)
            return ProblemSet(embedded.problems, embedded.origin, fallback)
    chosen = rows[:limit]
    problems = [spec.to_problem(row, f"{spec.id_prefix}_{split}_{row.index}") for row in chosen]
    count = str(len(rows)) if len(chosen) == len(rows) else f"first {len(chosen)} of {len(rows)}"
    return ProblemSet(problems, f"{spec.title}, {split}: {count} problems from {place}")


def _embedded(split: str, limit: int | None, seed: int) -> ProblemSet:
    from hbd3lm.data.synthetic import generate_problems

    problems = generate_problems(split, limit or GSM8K_COUNTS[split], seed)
    origin = f"embedded problems, {split}: {len(problems)} generated with seed {seed}"
    return ProblemSet(problems, origin)
