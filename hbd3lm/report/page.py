"""Self-contained HTML pages: one file with its pictures inside, readable anywhere, offline.

A page is plain data (the classes below) and one template, which escapes every text. The
functions at the end turn the results of the evaluations, plain dicts as in their JSON files,
into such data.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write
from hbd3lm.report.values import number, percent

TEMPLATE = "page.html"
_MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Fact:
    """A figure worth a headline."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image, stored in the page itself."""

    data: str
    """A ``data:`` address."""
    alt: str
    caption: str = ""
    kind = "picture"


@dataclass(frozen=True)
class Table:
    """Rows of texts; the first column is read from the left, the others are figures."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    kind = "table"


@dataclass(frozen=True)
class Card:
    """A problem: what the model wrote beside the gold, and whether its answer is right.

    Attributes:
        parts: (name, model's text, gold text), e.g. of the plan and of the execution.
        answers: the model's answer and the gold one, as text.
        notes: short remarks, e.g. how many numbers the plan holds.
    """

    id: str
    question: str
    parts: Sequence[tuple[str, str, str]]
    correct: bool
    answers: tuple[str, str]
    notes: Sequence[str] = ()
    kind = "card"


@dataclass(frozen=True)
class Commands:
    """What to type to repeat something: (what it does, command)."""

    items: Sequence[tuple[str, str]]
    kind = "commands"


@dataclass(frozen=True)
class Links:
    """Where files lie: (what it is, path as shown, address relative to the page)."""

    items: Sequence[tuple[str, str, str]]
    kind = "links"


Block = Picture | Table | Card | Commands | Links


@dataclass(frozen=True)
class Section:
    """A heading, an introduction and blocks."""

    title: str
    blocks: Sequence[Block]
    text: str = ""

    @property
    def anchor(self) -> str:
        """What the table of contents points to."""
        return "-".join("".join(c if c.isalnum() else " " for c in self.title.lower()).split())


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        notice: what must not be overlooked, e.g. that other data was used than asked for.
        footer: how and by what the page was made.
    """

    title: str
    lead: str
    facts: Sequence[Fact]
    sections: Sequence[Section]
    notice: str = ""
    footer: str = ""


def render_page(page: Page) -> str:
    """The HTML of ``page``. All its texts are escaped; it holds no script and loads nothing."""
    return render_template(TEMPLATE, page=page)


def render_template(template: str, /, **values: Any) -> str:
    """A template of this room, every text in ``values`` escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hbd3lm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def write_page(path: str | Path, page: Page) -> None:
    """Write :func:`render_page` to ``path``, whole or not at all.

    Raises:
        UserError: ``path`` cannot be written.
    """
    write_html(path, render_page(page))


def write_html(path: str | Path, html: str) -> None:
    """Write a finished page, whole or not at all.

    Raises:
        UserError: ``path`` cannot be written.
    """
    with atomic_write(path, what="page") as file:
        file.write(html)


def picture(path: str | Path, alt: str, caption: str = "") -> Picture:
    """The image file at ``path``, read now.

    Raises:
        UserError: it is missing, or neither PNG, SVG nor JPEG by its name.
    """
    path = Path(path)
    if path.suffix.lower() not in _MEDIA:
        raise UserError(f"picture {path}: the name must end in {', '.join(_MEDIA)}")
    try:
        content = base64.b64encode(path.read_bytes()).decode("ascii")
    except OSError as error:
        raise UserError(f"picture {path} cannot be read: {error.strerror}") from None
    return Picture(f"data:{_MEDIA[path.suffix.lower()]};base64,{content}", alt, caption)


def links(page_path: str | Path, items: Iterable[tuple[str, str | Path]]) -> Links:
    """Files as links relative to the page, so that the folder can be moved as a whole."""
    folder = Path(page_path).parent
    return Links(
        [
            (what, str(path), quote(Path(os.path.relpath(path, folder)).as_posix()))
            for what, path in items
        ]
    )


# --- results as blocks ------------------------------------------------------------------------


def accuracy_table(scores: Mapping[str, Any], chance: Mapping[str, float], total: int) -> Table:
    """Exact match by both extractions, then what guessing would reach.

    Args:
        scores: with ``accuracy_strict`` and ``accuracy_flexible`` of ``sample_eval``.
        chance: what each guesser does -> its accuracy.
        total: problems scored.
    """
    rows = []
    for kind, what in (
        ("strict", "model, answer after ####"),
        ("flexible", "model, last number written"),
    ):
        score = scores[f"accuracy_{kind}"]
        interval = f"{percent(score['low'])} to {percent(score['high'])}"
        rows.append((what, percent(score["value"]), interval, f"{score['correct']} of {total}"))
    rows += [(f"guess: {what}", percent(value), "", "") for what, value in chance.items()]
    return Table(
        ("answers", "accuracy", "95% interval", "correct"),
        rows,
        "Exact match on held-out problems (Wilson interval) beside what guessing reaches.",
    )


def perplexity_table(result: Mapping[str, Any]) -> Table:
    """``mode=ppl_eval``'s result by segment."""
    rows = [
        (
            f"{name}: {part['of']}",
            f"{number(part['nats_per_token'], 4)} ± {number(part['standard_error'], 4)}",
            number(part["perplexity"]),
            f"{number(part['perplexity_low'])} to {number(part['perplexity_high'])}",
            f"{part['tokens']:,}",
        )
        for name, part in result["segments"].items()
    ]
    caption = f"{result['kind']}; token set: {result['token_set']}"
    return Table(("", "nats/token", "perplexity", "95% interval", "tokens"), rows, caption)


def plan_table(columns: Mapping[str, Mapping[str, Any]]) -> Table:
    """How abstract plans are, one column for each analysis (gold, the model's own, ...)."""
    analyses = list(columns.values())

    def row(label: str, values: Iterable[str]) -> tuple[str, ...]:
        return (label, *values)

    rows = [
        row("plans", (f"{a['examples']:,}" for a in analyses)),
        row("numbers a plan", (number(a["plan"]["numbers"]["mean"], 3) for a in analyses)),
        row("numbers an execution", (number(a["execution"]["numbers"]["mean"]) for a in analyses)),
        row(
            "numbers in words a plan",
            (number(a["plan"]["spelled_numbers"]["mean"], 3) for a in analyses),
        ),
        row("words a plan", (number(a["plan"]["words"]["mean"], 1) for a in analyses)),
        *(
            row(label, (percent(a["categories"][label]["share"]) for a in analyses))
            for label in analyses[0]["categories"]
        ),
        row("final answer in the plan", (percent(a["answer_leakage"]["share"]) for a in analyses)),
        row(
            "thresholds kept",
            (
                f"{sum(t['passed'] for t in a['thresholds'].values())} of {len(a['thresholds'])}"
                for a in analyses
            ),
        ),
    ]
    return Table(("", *columns), rows)


def length_table(report: Mapping[str, Any]) -> Table:
    """The token lengths ``gsm8k_dataloader.py --analyze --output_json`` wrote."""
    rows = [
        (
            name,
            number(stats["mean"], 1),
            number(stats["p95"], 0),
            str(stats["max"]),
            str(stats["cap"]),
            percent(stats["truncated_share"], 2),
        )
        for name, stats in report["lengths"].items()
    ]
    caption = f"Tokenizer {report['tokenizer']} ({report['vocab_size']:,} ids), end tokens counted."
    return Table(("tokens", "mean", "95th %", "max", "cap", "truncated"), rows, caption)


def problem_card(record: Mapping[str, Any]) -> Card:
    """One of ``sample_eval``'s records. The verdict is the strict one."""
    from hbd3lm.plans.numbers import count_numbers

    parts, notes = [], []
    if record["plan"] or "plan" in record["ended"]:
        parts.append(("Plan", record["plan"], record["gold_plan"]))
        count = count_numbers(record["plan"])
        notes.append(f"{count} number{'' if count == 1 else 's'} in the plan")
    parts.append(("Execution", record["execution"], record["gold_execution"]))
    notes += [f"{name} cut off at its cap" for name, ended in record["ended"].items() if not ended]
    if record["predicted_strict"] is None:
        notes.append("no line with ####")
    return Card(
        record["id"],
        record["question"],
        parts,
        record["correct_strict"],
        (record["predicted_strict"] or "none", record["answer_numerical"]),
        notes,
    )
