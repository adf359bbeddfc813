"""What a study keeps: JSON files, and digests that name what they were made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hbd3lm.files import load_json_lines, read_json, read_text


def read_kept(path: Path) -> dict[str, Any]:
    """A JSON file of ours; empty where there is none."""
    return read_json(path, "experiment.output_dir", "remove it") if path.exists() else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    text = read_text(path, "experiment.output_dir")
    return [row for _, row in load_json_lines(text, str(path), "remove it")]


def digest(value: Any) -> str:
    """8 hex digits that name a plain value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
