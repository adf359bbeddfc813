"""The published data sets: their files, their address on the hub, their splits, their licence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbd3lm.data.records import Problem
from hbd3lm.data.rows import (
    Row,
    gsm8k_problem,
    multiarith_problem,
    socratic_problem,
    svamp_problem,
    svamp_split,
)

GSM8K_COUNTS = {"train": 7473, "test": 1319}


@dataclass(frozen=True, slots=True)
class Dataset:
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
    to_problem: Callable[[Row, str], Problem]
    take: Callable[[list[Row], str, Path], list[Row]] = lambda rows, split, path: rows
    note: str = ""
    licence: str = "mit"


def _gsm8k(config: str, suffix: str, to_problem: Callable[[Row, str], Problem]) -> Dataset:
    return Dataset(
        title=f"GSM8K {config}",
        id_prefix="gsm8k",
        repo="openai/gsm8k",
        config=config,
        files={split: f"gsm8k_{split}{suffix}.jsonl" for split in GSM8K_COUNTS},
        hub_splits={split: (split,) for split in GSM8K_COUNTS},
        to_problem=to_problem,
    )


PUBLISHED: dict[str, Dataset] = {
    "gsm8k": _gsm8k("main", "", gsm8k_problem),
    "gsm8k_socratic": _gsm8k("socratic", "_socratic", socratic_problem),
    "svamp": Dataset(
        title="SVAMP",
        id_prefix="svamp",
        repo="ChilleD/SVAMP",
        config=None,
        files={"train": "svamp.json", "test": "svamp.json"},
        hub_splits={"train": ("train",), "test": ("test",)},
        to_problem=svamp_problem,
        take=svamp_split,
        note=" (no official split: the first 700 rows are train, the last 300 test)",
    ),
    "multiarith": Dataset(
        title="MultiArith",
        id_prefix="multiarith",
        repo="ChilleD/MultiArith",
        config=None,
        files={"test": "multiarith.jsonl"},
        hub_splits={"test": ("train", "test")},  # its own halves; we only ever test on it
        to_problem=multiarith_problem,
        licence="apache-2.0",  # of the project it was published by
    ),
}
DATASETS: dict[str, Sequence[str]] = {
    **{name: tuple(spec.files) for name, spec in PUBLISHED.items()},
    "embedded": tuple(GSM8K_COUNTS),
}
"""Names of the data sets, each with its splits."""


def licence_of(dataset: str) -> str | None:
    """The licence of a data set's problems, as the hub writes it; None: not known."""
    if dataset in PUBLISHED:
        return PUBLISHED[dataset].licence
    return "mit" if dataset in DATASETS else None  # generated: as this package


def published_as(dataset: str) -> tuple[str, str | None]:
    """A data set's title, and its name on the hub (None: it has none)."""
    spec = PUBLISHED.get(dataset)
    if spec is None:
        return (f"{dataset} (generated) problems" if dataset in DATASETS else dataset), None
    return spec.title, spec.repo
