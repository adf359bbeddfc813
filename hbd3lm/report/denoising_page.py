"""The denoising viewer: sampled problems, played block by block and step by step.

One HTML file that loads nothing. ``templates/denoising_page.js`` plays the trajectories, which
travel as JSON in a data block; see :mod:`hbd3lm.report.data_page`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbd3lm.errors import printable
from hbd3lm.report.data_page import embed, page_script
from hbd3lm.report.page import Fact, render_template, write_html
from hbd3lm.report.values import number, percent

KINDS = ("text", "end", "fill", "dropped")
"""Of tokens, as in a trajectory; the page has their indices."""


@dataclass(frozen=True)
class EditCommands:
    """How a plan edited in the page is run: the page holds no model.

    Attributes:
        one: command for a single problem, to which the page adds question and plan.
        view_one: what then makes a page of it.
        many: command for a file of edited plans, ``view_many`` for its page.
        file: name of that file, as the page saves it.
    """

    one: str
    view_one: str
    many: str
    view_many: str
    file: str


def write_denoising_page(
    path: str | Path,
    about: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    commands: EditCommands,
) -> None:
    """Write the page of some sampled problems to ``path``, whole or not at all.

    Args:
        about, records: a file of trajectories, as ``evaluate.trajectories`` reads it.

    Raises:
        UserError: ``path`` cannot be written.
    """
    script, script_hash = page_script("denoising_page.js")
    names = [segment["name"] for segment in about["segments"]]
    problems = [_problem(record, about, names) for record in records]
    data = {
        "segments": about["segments"],
        "commands": asdict(commands),
        "problems": problems,
    }
    data["fingerprint"] = hashlib.sha256(embed(data).encode()).hexdigest()[:16]
    html = render_template(
        "denoising_page.html",
        title="Solved step by step" if names[0] == "plan" else "Written step by step",
        lead=printable(_describe(about)),
        facts=_facts(problems),
        script=script,
        script_hash=script_hash,
        data=embed(data),
    )
    write_html(path, html)


def _problem(
    record: Mapping[str, Any], about: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    steps = record["trajectory"]
    written = list(dict.fromkeys(step["segment"] for step in steps))
    tokens: dict[str, dict[int, list]] = {name: {} for name in written}
    for index, step in enumerate(steps):
        for position, text, confidence, kind in step["tokens"]:
            token = [text, KINDS.index(kind), confidence, index]
            tokens[step["segment"]][position] = token
    confidences = [token[2] for segment in tokens.values() for token in segment.values()]
    has_plan = "plan" in names
    return {
        "id": record["id"],
        "question": record["question"],
        "plan": record["plan"] if has_plan else None,
        "plan_given": has_plan and "plan" not in written,
        "execution": record["execution"] if "execution" in written else "",
        "solved": "execution" in written,
        "gold": {
            "plan": record["gold_plan"] if "plan" in written else "",
            "execution": record["gold_execution"],
        },
        "answer": {
            "gold": record["answer_numerical"],
            "strict": record.get("predicted_strict"),
            "flexible": record.get("predicted_flexible"),
            "correct": record.get("correct_strict"),
            "loose": record.get("correct_flexible"),
        },
        "cut": [name for name, ended in record.get("ended", {}).items() if not ended],
        "evaluations": record["network_evaluations"],
        "sure": sum(confidences) / len(confidences),
        "segments": [
            {"of": names.index(name), "tokens": [segment[i] for i in range(len(segment))]}
            for name, segment in tokens.items()
        ],
        "passes": [
            [written.index(s["segment"]), s["block"], s["step"], s["evaluations"], s["commits"]]
            for s in steps
        ],
    }


def _describe(about: Mapping[str, Any]) -> str:
    """Model, problems and how it sampled, in one line."""
    settings = about["settings"]
    how = [str(settings.get("method", "?"))]
    how += [f"{name} {settings[name]}" for name in ("steps", "threshold") if settings.get(name)]
    how.append(f"temperature {settings.get('temperature', '?')}")
    return f"{about['checkpoint']}, {about['problem_set']}; sampling: {', '.join(how)}"


def _facts(problems: Sequence[Mapping[str, Any]]) -> list[Fact]:
    n = len(problems)
    facts = [Fact("problems", f"{n:,}")]
    scored = [p["answer"]["correct"] for p in problems if p["answer"]["correct"] is not None]
    if scored:
        right = sum(scored)
        facts.append(
            Fact("correct", percent(right / len(scored)), f"({right:,} of {len(scored):,})")
        )
    passes = sum(p["evaluations"] for p in problems)
    tokens = sum(len(s["tokens"]) for p in problems for s in p["segments"])
    confidence = sum(p["sure"] for p in problems) / n
    facts.append(Fact("network evaluations", number(passes / n, 1), "a problem"))
    facts.append(Fact("tokens, fill included", number(tokens / passes, 2), "an evaluation"))
    facts.append(Fact("mean confidence", percent(confidence)))
    return facts
