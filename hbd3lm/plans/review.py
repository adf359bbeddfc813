"""Verdicts of a reader on a plan file: read back from ``review.json`` and merged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.files import read_json

FORMAT = "hbd3lm-plan-review"
VERSION = 1
VERDICTS: tuple[str, ...] = ("good", "bad", "edited")
_REMEDY = "save it again with the page's button 'Save review.json'"


def fingerprint_examples(examples: Sequence[HierarchicalExample]) -> str:
    """A hash of all five fields of all examples, in order; however the file is laid out."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(list(asdict(example).values())).encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True)
class Review:
    """What a reader decided.

    Attributes:
        fingerprint: of the examples that were read.
        verdicts: id -> (one of ``VERDICTS``, the new plan of an edited one, else None).
    """

    fingerprint: str
    verdicts: dict[str, tuple[str, str | None]]


def read_review(path: str | Path, what: str = "--review") -> Review:
    """Read the file the page saves.

    Raises:
        UserError: missing, no JSON, or not what the page writes; the message names the place.
    """
    content = read_json(path, what, _REMEDY)
    if content.get("format") != FORMAT:
        raise UserError(f"{what}: {path} is no review of plans; {_REMEDY}")
    if content.get("version") != VERSION:
        raise UserError(
            f"{what}: {path} has version {content.get('version')!r}, this program reads {VERSION}; "
            "make the page again with this version of hbd3lm and save the review from it"
        )
    rows, mark = content.get("verdicts"), content.get("fingerprint")
    if not isinstance(rows, list) or not isinstance(mark, str):
        raise UserError(f"{what}: {path} lacks 'verdicts' or 'fingerprint'; {_REMEDY}")
    verdicts: dict[str, tuple[str, str | None]] = {}
    for index, row in enumerate(rows):
        where = f"{what}: {path}, verdict {index}"
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise UserError(f"{where} has no id; {_REMEDY}")
        where += f" (id {row['id']!r})"
        if row.get("verdict") not in VERDICTS:
            raise UserError(
                f"{where}: {row.get('verdict')!r} is none of {', '.join(VERDICTS)}; {_REMEDY}"
            )
        if row["id"] in verdicts:
            raise UserError(f"{where}: a second verdict on this id; {_REMEDY}")
        verdicts[row["id"]] = (row["verdict"], _plan(row, where))
    return Review(mark, verdicts)


def _plan(row: dict[str, Any], where: str) -> str | None:
    if row["verdict"] != "edited":
        return None
    plan = row.get("plan")
    if not isinstance(plan, str) or not plan.strip():
        raise UserError(f"{where}: an edited plan needs its text in 'plan'; {_REMEDY}")
    try:
        plan.encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: 'plan' holds half a character; edit it again") from None
    return plan.strip()


@dataclass(frozen=True)
class Merged:
    """Examples after a review, and what it changed.

    Attributes:
        examples: in their order, edited plans in place, bad ones dropped or kept.
        changes: one record for each verdict: ``id``, ``verdict``, ``done`` (``kept``, ``dropped``,
            ``replaced``, ``unchanged``), and of a replaced plan ``before`` and ``after``.
    """

    examples: list[HierarchicalExample]
    changes: list[dict[str, str]]

    def count(self, done: str) -> int:
        """How many verdicts led to ``done``."""
        return sum(change["done"] == done for change in self.changes)


def apply_review(
    examples: Sequence[HierarchicalExample], review: Review, *, keep_bad: bool = False
) -> Merged:
    """Merge ``review`` into the examples it was made on.

    Raises:
        UserError: the review was made on other examples, names an unknown id, or leaves none.
    """
    known = {example.id for example in examples}
    unknown = [id_ for id_ in review.verdicts if id_ not in known]
    if unknown:
        raise UserError(
            f"--review: there is no example with the id {unknown[0]!r}"
            + (f" (nor {len(unknown) - 1} others)" if len(unknown) > 1 else "")
            + "; give the file the page was made of with --data_path"
        )
    if review.fingerprint != fingerprint_examples(examples):
        raise UserError(
            "--review: the review was made on other examples or another version of them "
            "(fingerprints differ); give the file the page was made of with --data_path, or make a "
            "page of this file and review that"
        )
    kept, changes = [], []
    for example in examples:
        verdict, plan = review.verdicts.get(example.id, (None, None))
        if verdict is None:
            kept.append(example)
            continue
        change = {"id": example.id, "verdict": verdict, "done": "kept"}
        if verdict == "bad" and not keep_bad:
            change["done"] = "dropped"
        elif plan is not None and plan != example.plan:
            kept.append(replace(example, plan=plan))
            change |= {"done": "replaced", "before": example.plan, "after": plan}
        else:
            kept.append(example)
            change["done"] = "unchanged" if verdict == "edited" else "kept"
        changes.append(change)
    if not kept:
        raise UserError("--review: every example is bad; nothing is left (--bad keep keeps them)")
    return Merged(kept, changes)
