"""Overrides ``KEY=VALUE``, written so that Hydra reads what was meant."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hbd3lm.commands.settings import TEXT

_PLAIN = re.compile(
    r"(?!(null|true|false|nan|inf)$)(?!\.\d)[a-z_./][\w./-]*|\d+-[a-z]+", re.IGNORECASE | re.ASCII
)
"""Text that Hydra reads as text without quotes: names, paths, ``32-true``; ``.5`` is a number."""
_NUMBER = re.compile(r"[+-]?[\d._]+(e[+-]?\d+)?", re.IGNORECASE)
FREE_TEXT = ("sampling.question", "sampling.plan")


def quote_text(override: str) -> str:
    """Quote the text of ``sampling.question=...``: commas and brackets are Hydra's grammar.

    So is a number the name of a folder (``run_dir=2026``).
    """
    key, _, value = override.partition("=")
    if key in TEXT and _NUMBER.fullmatch(value):
        return f"{key}={quote(value)}"
    if key not in FREE_TEXT or value in ("", "null") or value[0] + value[-1] in ('""', "''"):
        return override
    return f"{key}={quote(value)}"


def quote(text: str) -> str:
    """Any text as a quoted value of Hydra's grammar."""
    # A backslash escapes, itself too, only before what ends the text or begins an interpolation.
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', escaped)
    escaped = re.sub(r"(\\+)\Z", r"\1\1", escaped)
    return f'"{escaped}"'


def override_value(value: Any) -> str:
    """A value as Hydra's grammar wants it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, (str, Path)) and not _PLAIN.fullmatch(str(value)):
        return quote(str(value))
    return str(value)
