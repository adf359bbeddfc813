"""Cutting a problem set into shards for several jobs, and merging what they wrote.

The merged file is byte for byte the one a single run would have written; whatever would make it
another one (a missing, repeated or foreign problem, another prompt or model) is refused by name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hbd3lm.data.records import HierarchicalExample, Problem, read_examples, write_examples
from hbd3lm.errors import UserError, some_of
from hbd3lm.files import check_output, writing
from hbd3lm.lock import output_lock
from hbd3lm.plans.details import read_details, tally, write_details
from hbd3lm.plans.generate import problems_digest
from hbd3lm.plans.journal import ENGINE_IDENTITY, differences, journal_path
from hbd3lm.plans.manifest import (
    Manifest,
    build_manifest,
    file_digest,
    manifest_path,
    read_manifest,
    write_manifest,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``: every ``count``-th problem, so that parts are alike."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/4"``.

        Raises:
            UserError: anything else.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            count = max(1, int(match[2])) if match else 4
            raise UserError(
                f"--shard {text}: write I/N, counted from 1: 1/{count} to {count}/{count}"
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def take(self, items: Sequence[T]) -> Sequence[T]:
        """This shard's share."""
        return items[self.index - 1 :: self.count]

    def path(self, output: str | Path) -> Path:
        """Where this shard of ``output`` is: ``plans.json`` -> ``plans.shard-2-of-4.json``."""
        output = Path(output)
        return output.with_name(f"{output.stem}.shard-{self.index}-of-{self.count}{output.suffix}")


def find_shards(output: str | Path) -> list[Path]:
    """The shards of ``output`` that lie beside it, all of them.

    Raises:
        UserError: there are none, some are missing or unfinished, or they belong to different
            cuts (of 3, of 4).
    """
    output = Path(output)
    name = re.compile(re.escape(output.stem) + r"\.shard-(\d+)-of-(\d+)" + re.escape(output.suffix))
    folder = output.parent
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    # Journals count as well: an unfinished shard is a shard.
    stripped = {journal.removesuffix(".partial.jsonl") for journal in names}
    found = {Shard(int(m[1]), int(m[2])) for m in map(name.fullmatch, stripped) if m}
    if not found:
        raise UserError(
            f"--output_path {output}: there are no {output.stem}.shard-*-of-*{output.suffix} "
            "beside it; write them with --shard 1/N ... --shard N/N, or name the files"
        )
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise UserError(
            f"--output_path {output}: beside it lie shards of cuts into "
            f"{' and '.join(map(str, counts))}; remove the old ones, or name the files to merge"
        )
    shards = [Shard(index, counts[0]) for index in range(1, counts[0] + 1)]
    for shard in shards:
        if not shard.path(output).is_file():
            state = "unfinished" if journal_path(shard.path(output)).is_file() else "missing"
            raise UserError(
                f"shard {shard} of {output} is {state}; run its command (--shard {shard}) to its "
                "end, then merge again"
            )
    return [shard.path(output) for shard in shards]


def read_shard_manifests(paths: Sequence[Path]) -> list[Manifest]:
    """The manifests of shards that belong together.

    Raises:
        UserError: a shard without a manifest, changed since it was written, or written by another
            model, prompt or setting than the first.
    """
    manifests = []
    for path in paths:
        if not path.is_file():
            raise UserError(f"there is no shard {path}")
        if not manifest_path(path).is_file():
            raise UserError(
                f"{path} has no manifest {manifest_path(path).name}; generate it with --shard"
            )
        manifest = read_manifest(path)
        if manifest.get("sha256") != file_digest(path):
            raise UserError(
                f"{path} is not the file its manifest describes (changed or cut off since); "
                "generate it again, or copy it again"
            )
        if manifest.get("shard") is None:
            raise UserError(f"{path} is no shard but a whole file; name files made with --shard")
        if not isinstance(manifest.get("problems"), dict) or "sessions" not in manifest:
            raise UserError(
                f"{manifest_path(path)} does not say which problems were planned, and when; "
                "generate the shard again"
            )
        manifests.append(manifest)
    first = manifests[0]
    for path, manifest in zip(paths, manifests):
        difference = differences(
            _common(first), _common(manifest), ("in the first", "in the second")
        )
        if difference:
            raise UserError(
                f"{paths[0]} and {path} are not shards of one run: {difference}; generate one of "
                "them again with the other's settings"
            )
    return manifests


def _common(manifest: Manifest) -> dict[str, Any]:
    """What all shards of a run share."""
    settings = {k: v for k, v in manifest["settings"].items() if k != "problems_sha256"}
    engine = manifest.get("engine") or {}
    return {
        **settings,
        **{f"engine's {key}": engine.get(key) for key in ENGINE_IDENTITY},
        "problem set": manifest["problems"]["sha256"],
    }


def merge_shards(
    paths: Sequence[Path], problems: Sequence[Problem], output: str | Path
) -> list[HierarchicalExample]:
    """Write ``output``, its details and its manifest from the files of all shards.

    Args:
        paths: the shards, in any order.
        problems: the whole set, in order.
        output: the whole file.

    Raises:
        UserError: shards that do not belong together or not to ``problems``, ids missing, repeated
            or unexpected; each named.
    """
    output = Path(output)
    if output.resolve() in {path.resolve() for path in paths}:
        raise UserError(f"--output_path {output} is one of the shards; name the whole file")
    manifests = read_shard_manifests(paths)
    whole = problems_digest(problems)
    if manifests[0]["problems"]["sha256"] != whole:
        raise UserError(
            f"{paths[0]} was written for other problems ({manifests[0]['problems']['origin']}) "
            "than those found now; give the --data_dir it was made with"
        )
    examples: dict[str, HierarchicalExample] = {}
    owners: dict[str, list[str]] = {}
    rows = {}
    for path in paths:
        for example in read_examples(path, "shard"):
            owners.setdefault(example.id, []).append(path.name)
            examples[example.id] = example
        rows |= {row["id"]: row for row in read_details(path)}
    _check_ids(problems, owners, manifests)
    ordered = [examples[problem.id] for problem in problems]
    missing = [problem.id for problem in problems if problem.id not in rows]
    if missing:
        raise UserError(
            f"the details of {some_of(missing)} are missing; generate their shard again"
        )
    ordered_rows = [rows[problem.id] for problem in problems]
    settings = {**manifests[0]["settings"], "problems_sha256": whole}
    check_output(output, "--output_path")
    with writing(output, "--output_path"), output_lock(output, wait=True):
        write_examples(output, ordered)
        write_details(output, ordered_rows)
        manifest = build_manifest(
            output,
            settings,
            tally(ordered_rows),
            manifests[0]["engine"],
            [session for manifest in manifests for session in manifest["sessions"]],
            {
                "problems": manifests[0]["problems"],
                "shard": None,
                "merged_from": {m["file"]: m["sha256"] for m in manifests},
            },
        )
        write_manifest(output, manifest)
    return ordered


def _check_ids(
    problems: Sequence[Problem], owners: dict[str, list[str]], manifests: Sequence[Manifest]
) -> None:
    repeated = {name: files for name, files in owners.items() if len(files) > 1}
    if repeated:
        name, files = next(iter(repeated.items()))
        raise UserError(
            f"{len(repeated)} ids are in more than one file: {some_of(list(repeated))}; "
            f"{name} is in {' and '.join(files)}; name every shard once, all of one cut"
        )
    expected = [problem.id for problem in problems]
    unexpected = sorted(set(owners) - set(expected))
    if unexpected:
        raise UserError(
            f"{len(unexpected)} ids are not in the problem set: {some_of(unexpected)}; they belong "
            "to another data set, split or --num_examples"
        )
    missing = [name for name in expected if name not in owners]
    if missing:
        counts = Counter(Shard.parse(manifest["shard"]).count for manifest in manifests)
        count = counts.most_common(1)[0][0]
        present = {manifest["shard"] for manifest in manifests}
        absent = [f"{i}/{count}" for i in range(1, count + 1) if f"{i}/{count}" not in present]
        raise UserError(
            f"{len(missing)} of {len(expected)} ids are in no file: {some_of(missing)}"
            + (f"; run --shard {', --shard '.join(absent)}" if absent else "")
        )
