"""Where the plans of a file come from, in rows for a reader of a model or data card.

It says what a stranger needs to judge the plans and nothing of the machine: no host, and of a local
model the name alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hbd3lm.data.catalogue import published_as
from hbd3lm.errors import UserError
from hbd3lm.files import read_json
from hbd3lm.plans.manifest import Manifest, file_digest, manifest_path, read_manifest

Rows = list[tuple[str, str]]


def plan_provenance(path: str | Path) -> Rows:
    """Rows (what, value) on the plans in ``path``; none where it has no manifest.

    Of a file that a reader's verdicts were merged into: those of the file before, and the verdicts.

    Raises:
        UserError: the manifest, or the record of the review, is damaged.
    """
    path = Path(path)
    if not manifest_path(path).is_file():
        review = _review(path)
        if review is None:
            return []
        counts = ", ".join(f"{review['counts'][n]} {n}" for n in ("good", "edited", "bad"))
        return [*plan_provenance(review["data_path"]), ("judged by a reader", counts)]
    manifest = read_manifest(path)
    settings, report = manifest["settings"], manifest.get("report") or {}
    rows = [("problems", _problems(settings, report)), ("plans by", _writer(settings))]
    rows += _of_the_model(manifest)
    if report.get("failed"):
        rows.append(("plans with faults left", f"{report['failed']} of {report['plans']}"))
    categories = report.get("numbers_final") or {}
    if categories:
        counts = ", ".join(f"{label}: {count}" for label, count in categories.items())
        rows.append(("numbers in the plans", counts))
    rows.append(("made", f"{manifest.get('finished')}, hbd3lm {manifest.get('hbd3lm')}"))
    if path.is_file() and manifest.get("sha256") != file_digest(path):
        rows.append(("since then", "the file was changed: it is not the one that was generated"))
    return rows


def source_dataset(path: str | Path) -> str | None:
    """The data set whose problems a plan file holds; None where it has no manifest."""
    path = Path(path)
    if not manifest_path(path).is_file():
        review = _review(path)
        return review and source_dataset(review["data_path"])
    return read_manifest(path)["settings"].get("dataset")


def _review(path: Path) -> dict[str, Any] | None:
    """What ``plans apply-review`` wrote beside ``path``; None where it wrote nothing."""
    file = path.with_name(f"{path.name}.review.json")
    if not file.is_file():
        return None
    content = read_json(file, "review", "apply it again")
    try:
        source = Path(content["data_path"])
        counts = {name: int(content["counts"][name]) for name in ("good", "edited", "bad")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} is no record of a review ({error!r}); apply it again") from None
    # As written, from the folder the command ran in; else beside the file.
    source = source if source.exists() else path.with_name(source.name)
    return None if source == path else {"data_path": source, "counts": counts}


def _problems(settings: dict[str, Any], report: dict[str, Any]) -> str:
    title, _ = published_as(str(settings.get("dataset")))
    return f"{title}, {settings.get('split')}: {report.get('plans', '?')}"


def _writer(settings: dict[str, Any]) -> str:
    planner = settings.get("planner")
    if "model" not in settings:
        return f"`{planner}`, without a language model"
    solution = settings.get("shows_solution")
    seen = "saw the solution" if solution else "did not see the solution"
    return f"`{_name(settings['model'])}` through `{planner}`; it {seen}"


def _of_the_model(manifest: Manifest) -> Rows:
    """How a language model was asked, and what it cost."""
    settings, engine = manifest["settings"], manifest.get("engine") or {}
    report = manifest.get("report") or {}
    if "model" not in settings:
        return []
    rows = []
    if engine.get("revision"):
        rows.append(("model revision", str(engine["revision"])))
    versions = engine.get("versions") or {}
    if versions:
        rows.append(("engine", ", ".join(f"{k} {v}" for k, v in versions.items())))
    digest = str(settings.get("prompt_sha256", ""))[:16]
    rows.append(("prompt", f"{_name(settings.get('prompt'))} (sha256 {digest}...)"))
    names = ("temperature", "top_p", "max_tokens", "seed")
    rows.append(("sampling", ", ".join(f"{n} {settings[n]}" for n in names if n in settings)))
    rows.append(("constrained decoding", "yes" if engine.get("constrained") else "no"))
    rows.append(
        ("asked again", f"{report.get('retries', '?')} times; {report.get('repaired')} mended")
    )
    return rows


def _name(value: Any) -> str:
    """Of a local path its last part."""
    text = str(value)
    return Path(text).name if Path(text).is_absolute() else text
