"""Plans and generations as a folder that ``datasets.load_dataset`` reads, with a data card.

README.md                    the card; its front matter names configurations, splits and features
plans/SPLIT.parquet          examples with plans, the five fields of the data format
generations/SPLIT.parquet    what a model wrote for each problem, and how it was scored
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.data.records import FIELDS
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_folder, atomic_write
from hbd3lm.hub.directory import check_target

if TYPE_CHECKING:
    import pyarrow

SIGN = ("README.md", "tags:\n- hbd3lm\n- hbd3lm-data\n")
"""By which a folder of this kind is known."""

PLANS, GENERATIONS = "plans", "generations"
FEATURES: dict[str, dict[str, str]] = {
    PLANS: dict.fromkeys(FIELDS, "string"),
    GENERATIONS: {
        **dict.fromkeys((*FIELDS, "gold_plan", "gold_execution"), "string"),
        "predicted_strict": "string",
        "predicted_flexible": "string",
        "correct_strict": "bool",
        "correct_flexible": "bool",
        "plan_ended": "bool",
        "execution_ended": "bool",
        "network_evaluations": "int64",
    },
}
"""Columns of each configuration and their types."""
MEANINGS = {
    PLANS: {
        "id": "of the problem, e.g. `gsm8k_train_0`",
        "question": "the problem",
        "plan": "how to solve it, in words, without its numbers",
        "execution": "the worked solution; its last line is `#### ANSWER`",
        "answer_numerical": "the final number, as text",
    },
    GENERATIONS: {
        "id, question, answer_numerical": "of the problem; the answer is the right one",
        "plan, execution": "written by the model (or given to it, see below)",
        "gold_plan, gold_execution": "those of the problem's own data",
        "predicted_strict, predicted_flexible": "the number after `####`; the last number of all; "
        "null: there is none",
        "correct_strict, correct_flexible": "whether it is the right one; null: not scored",
        "plan_ended, execution_ended": "whether the model ended the text itself; null: not written",
        "network_evaluations": "passes of the network it took",
    },
}


@dataclass(frozen=True, eq=False)
class DataSplit:
    """One file of the folder.

    Attributes:
        config: ``plans`` or ``generations``.
        name: of the split.
        rows: records as JSON holds them.
        source: the file they come from, for messages.
        facts: rows of a table (what, value) on where they come from.
    """

    config: str
    name: str
    rows: Sequence[Mapping[str, Any]]
    source: str
    facts: Sequence[tuple[str, str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class DataCard:
    """What the card says beside the splits.

    Attributes:
        title: of the data set.
        licence: as the hub writes it; None: not said.
        datasets: names on the hub of those the problems come from.
        notes: paragraphs a reader must not miss.
    """

    title: str
    licence: str | None = None
    datasets: Sequence[str] = ()
    notes: Sequence[str] = ()


def write_dataset(
    folder: str | Path, splits: Sequence[DataSplit], card: DataCard, overwrite: bool = False
) -> None:
    """Write the folder: all of it, or (if anything fails) nothing.

    Raises:
        UserError: a value of the wrong type, or see
            :func:`hbd3lm.hub.directory.check_target`.
    """
    folder = Path(folder)
    check_target(folder, overwrite, SIGN, "data set written by hbd3lm")
    from pyarrow import parquet

    tables = {split: _table_of(split) for split in splits}
    sizes = {split: table.nbytes for split, table in tables.items()}
    with atomic_folder(folder, "--output_dir") as temporary:
        for split in splits:
            with atomic_write(temporary / _place(split), "wb") as file:
                parquet.write_table(tables[split], file)
        with atomic_write(temporary / "README.md") as file:
            file.write(data_card(sizes, card))


def _place(split: DataSplit) -> str:
    return f"{split.config}/{split.name}.parquet"


def _table_of(split: DataSplit) -> pyarrow.Table:
    import pyarrow

    columns = FEATURES[split.config]
    rows = [_flat(row) for row in split.rows]
    checks = {"string": str, "bool": bool, "int64": int}
    for number, row in enumerate(rows):
        for name, kind in columns.items():
            value = row.get(name)
            required = split.config == PLANS or name in FIELDS
            # A bool is an int to Python.
            if (value is None and not required) or type(value) is checks[kind]:
                continue
            raise UserError(
                f"{split.source}, record {number}: {name!r} is {value!r}, expected a {kind}; "
                "write the file anew"
            )
    types = {"string": pyarrow.string(), "bool": pyarrow.bool_(), "int64": pyarrow.int64()}
    schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
    return pyarrow.Table.from_pylist(rows, schema)


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record with ``ended`` as two columns."""
    ended = row.get("ended")
    ended = ended if isinstance(ended, Mapping) else {}
    return {**row, **{f"{name}_ended": ended.get(name) for name in ("plan", "execution")}}


# -- the card ---------------------------------------------------------------------------------


def data_card(splits: Mapping[DataSplit, int], card: DataCard) -> str:
    """The text of ``README.md``; ``splits``: each with its bytes in memory."""
    from huggingface_hub import DatasetCardData

    configs = [name for name in (PLANS, GENERATIONS) if any(s.config == name for s in splits)]
    matter = DatasetCardData(
        language="en",
        license=card.licence,
        pretty_name=card.title,
        task_categories=["text-generation"],
        tags=["hbd3lm", "hbd3lm-data", "math"],
        source_datasets=list(card.datasets) or None,
        configs=[_config(name, splits, default=name == configs[0]) for name in configs],
        dataset_info=[_info(name, splits) for name in configs],
    )
    parts = [_about(name, [s for s in splits if s.config == name]) for name in configs]
    notes = "".join(f"{note}\n\n" for note in card.notes)
    first = next(s for s in splits if s.config == configs[0])
    return f"""---
{matter.to_yaml()}
---

# {card.title}

```python
from datasets import load_dataset

data = load_dataset("PATH OR ID OF THIS DATA SET", "{first.config}", split="{first.name}")
```

{notes}{"".join(parts)}## Licence

{_licence(card)}
"""


def _config(name: str, splits: Iterable[DataSplit], default: bool) -> dict[str, Any]:
    files = [{"split": s.name, "path": _place(s)} for s in splits if s.config == name]
    return {"config_name": name, "data_files": files} | ({"default": True} if default else {})


def _info(name: str, splits: Mapping[DataSplit, int]) -> dict[str, Any]:
    mine = {split: size for split, size in splits.items() if split.config == name}
    return {
        "config_name": name,
        "features": [{"name": n, "dtype": kind} for n, kind in FEATURES[name].items()],
        "splits": [
            {"name": split.name, "num_bytes": size, "num_examples": len(split.rows)}
            for split, size in mine.items()
        ],
        "dataset_size": sum(mine.values()),
    }


def _about(name: str, splits: Sequence[DataSplit]) -> str:
    titles = {PLANS: "Plans", GENERATIONS: "Generations"}
    text = f"## {titles[name]}\n\n{_table('field', 'what it is', MEANINGS[name].items())}\n\n"
    for split in splits:
        rows = [("records", f"{len(split.rows):,}"), *split.facts]
        text += f"### `{split.name}`\n\n{_table('', '', rows)}\n\n"
    return text


def _table(left: str, right: str, rows: Any) -> str:
    def cell(text: str) -> str:
        return " ".join(str(text).split()).replace("|", "\\|")

    lines = [f"| {left} | {right} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {cell(name)} | {cell(value)} |" for name, value in rows)])


def _licence(card: DataCard) -> str:
    if card.licence is None:
        return (
            "Not stated: the licence of the problems is not known to the program that wrote this."
        )
    named = " and ".join(card.datasets)
    return f"`{card.licence}`" + (f", as the problems, which come from {named}." if named else ".")
