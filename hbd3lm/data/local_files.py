"""Published data sets in a local folder: which folder, and the rows of its files."""

from __future__ import annotations

import os
from pathlib import Path

from hbd3lm.data.catalogue import Dataset
from hbd3lm.data.rows import Row
from hbd3lm.errors import UserError
from hbd3lm.files import load_json, load_json_lines, read_text

DATA_DIR_VARIABLE = "HBD3LM_DATA_DIR"
REMEDY = f"give their folder with --data_dir DIR, data.dir=DIR or {DATA_DIR_VARIABLE}=DIR"


def local_folder(data_dir: str | Path | None = None) -> Path | None:
    """The folder that published data sets are read from; None: from the hub."""
    folder = data_dir or os.environ.get(DATA_DIR_VARIABLE)
    return Path(folder).expanduser() if folder else None


def read_local_rows(
    spec: Dataset, split: str, folder: Path, named_by: str
) -> tuple[list[Row], str]:
    """All rows of a split, and the file they are read from, for people.

    Args:
        named_by: who named ``folder``, for messages.

    Raises:
        UserError: no such folder, no such file in it, a file that is not valid, or no rows.
    """
    if not folder.is_dir():
        raise UserError(f"{named_by} {folder} is not a folder; {REMEDY}")
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


def _line_rows(text: str, path: Path) -> list[Row]:
    values = load_json_lines(text, str(path), "download it again")
    return [
        Row(value, index, f"{path}, line {number}") for index, (number, value) in enumerate(values)
    ]


def _array_rows(text: str, path: Path) -> list[Row]:
    values = load_json(text, str(path), "download it again")
    if not isinstance(values, list):
        raise UserError(f"{path}, line 1: expected a JSON array of problems")
    # An array has no line per record; the index is what finds it.
    return [Row(value, index, f"{path}, row {index}") for index, value in enumerate(values)]
