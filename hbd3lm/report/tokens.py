"""Tokens under way as HTML, for where no script of ours draws them (the demo)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from hbd3lm.errors import printable

DRAWN = {"end": "end", "fill": "·"}


def token_style() -> str:
    """The rules :func:`segment_html` needs inside an element of the class ``hbd3lm``."""
    folder = Path(__file__).parent / "templates"
    return "".join((folder / name).read_text("utf-8") for name in ("tokens.css", "demo.css"))


def segment_html(
    tokens: Sequence[tuple[str, str, float] | None], fresh: set[int], block_size: int
) -> str:
    """A segment's tokens: every text escaped, undecided ones as masks, a mark where a block begins.

    Args:
        tokens: text, kind (as in a trajectory) and confidence, in order; None: not decided yet.
        fresh: positions that the last pass decided.
    """
    several = " several" if block_size > 1 else ""
    parts = []
    for start in range(0, len(tokens), block_size):
        block = enumerate(tokens[start : start + block_size], start=start)
        inner = "".join(_token_html(token, position in fresh) for position, token in block)
        parts.append(f'<span class="block{several}">{inner}</span>')
    return f'<div class="canvas" dir="auto">{"".join(parts)}</div>'


def _token_html(token: tuple[str, str, float] | None, fresh: bool) -> str:
    if token is None:
        return '<span class="tok masked"> </span>'
    text, kind, confidence = token
    classes = " ".join(["tok", *([kind] if kind != "text" else []), *(["fresh"] if fresh else [])])
    doubt = (1 - min(1.0, confidence)) ** 0.7
    shown = DRAWN.get(kind) or printable(text)
    return (
        f'<span class="{classes}" style="--u: {doubt:.3f}" title="{confidence:.1%} sure">'
        f"{escape(shown)}</span>"
    )
