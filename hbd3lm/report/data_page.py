"""Data and script in a page: neither can do more than it is meant to.

Data travels as JSON in a data block and is shown through ``textContent`` alone; the only script
that may run is the page's own: its policy names the hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any


def embed(value: Any) -> str:
    """``value`` as JSON that can stand in a ``<script type="application/json">`` of any page.

    Nothing in it can end the element or begin a comment, and no control character is left.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub(
        "[<>&\\x7f-\\x9f\\u2028\\u2029\\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", text
    )


def page_script(name: str) -> tuple[str, str]:
    """The script of a page, ``reader.js`` before it, and the hash its policy must name."""
    folder = Path(__file__).parent / "templates"
    script = "".join((folder / file).read_text("utf-8") for file in ("reader.js", name))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return script, f"sha256-{digest}"
