"""What a study keeps: JSON files, and digests that name what they were made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def read_kept(path: Path) -> dict[str, Any]:
    """A JSON file of ours; empty where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON lines."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def digest(value: Any) -> str:
    """8 hex digits that name a plain value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
