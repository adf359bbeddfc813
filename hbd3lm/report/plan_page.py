"""The page of a plan analysis: verdicts, figure, tables and every problem, to read and to judge.

One HTML file that loads nothing. Tables are rendered here, escaped; the problems travel as JSON in
a data block and are shown by ``templates/plan_page.js`` through ``textContent`` alone. The only
script that may run is that one: the page's policy names its hash.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hbd3lm.data.annotations import strip_annotations
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import printable
from hbd3lm.plans.compare import Comparison, Difference, PlanSet
from hbd3lm.plans.numbers import (
    cardinal_value,
    find_numbers,
    number_spans,
    number_value,
    spelled_number_spans,
)
from hbd3lm.plans.quality import (
    CATEGORIES,
    EMPTY_PLAN,
    NGRAM,
    NO_PLAN_NUMBERS,
    PlanMetrics,
    Threshold,
    results_of,
)
from hbd3lm.plans.review import FORMAT, VERSION, fingerprint_examples
from hbd3lm.report.data_page import embed, page_script
from hbd3lm.report.page import Picture, Table, render_template, write_html
from hbd3lm.report.values import number, percent

LONG_WORDS = 100  # about the 128 tokens a plan may have by default
SAMPLE = 20  # of the checklist: "manual inspection of 20+ examples"

# What may be wrong with a plan: key, short label, explanation.
FAULTS: tuple[tuple[str, str, str], ...] = (
    ("answer", "answer in plan", "The plan holds the final answer, in digits or in words."),
    ("result", "result in plan", "The plan holds an intermediate result of the solution."),
    ("spelled", "numbers in words", "The plan spells numbers out: three, half, twice."),
    ("duplicate", "repeated plan", "Another problem has the same plan, case and signs aside."),
    (
        "operations",
        "other operations",
        "The plan names operations, but not those of the solution (in whatever order).",
    ),
    ("long", "long", f"The plan has more than {LONG_WORDS} words."),
    ("empty", "empty", "The plan has no text."),
)


def write_plan_page(
    path: str | Path,
    plans: PlanSet,
    picture: Picture,
    *,
    data_path: str,
    seed: int = 0,
    other: tuple[PlanSet, Comparison, str] | None = None,
) -> None:
    """Write the page of ``plans`` to ``path``, whole or not at all.

    Args:
        picture: the four panels.
        data_path: the file analysed, as the user named it.
        seed: of the sample the page offers first.
        other: a second set, its comparison with the first, and its file.

    Raises:
        UserError: ``path`` cannot be written.
    """
    script, script_hash = page_script("plan_page.js")
    names = _short_names(data_path, other[2]) if other else ()
    html = render_template(
        "plan_page.html",
        name=printable(Path(data_path).name),
        metrics=plans.metrics,
        verdicts=[_verdict(verdict) for verdict in plans.metrics.verdicts],
        picture=picture,
        tables=_tables(plans),
        comparison=_comparison(other[1], names) if other else None,
        sample=min(SAMPLE, len(plans.examples)),
        seed=seed,
        script=script,
        script_hash=script_hash,
        data=embed(_page_data(plans, data_path, seed, other, names)),
    )
    write_html(path, html)


def _short_names(this: str, other: str) -> tuple[str, str]:
    """How two files are called in a table: their names, or their paths if the names are equal."""
    names = (Path(this).name, Path(other).name)
    return tuple(map(printable, names if names[0] != names[1] else (this, other)))


# --- the problems ------------------------------------------------------------------------------


def _page_data(
    plans: PlanSet,
    data_path: str,
    seed: int,
    other: tuple[PlanSet, Comparison, str] | None,
    names: Sequence[str],
) -> dict[str, Any]:
    labels = [category.label for category in CATEGORIES] + [EMPTY_PLAN]
    theirs = {(e.id, e.question): e.plan for e in other[0].examples} if other else {}
    return {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint_examples(plans.examples),
        "data_path": data_path,
        "seed": seed,
        "other": names[1] if names else "",
        "categories": labels,
        "faults": [list(fault) for fault in FAULTS],
        "problems": [
            _problem(plans, index, labels, theirs) for index in range(len(plans.examples))
        ],
    }


def _problem(
    plans: PlanSet, index: int, labels: list[str], theirs: dict[tuple[str, str], str]
) -> dict[str, Any]:
    example, semantics = plans.examples[index], plans.semantics
    marks, held = _marks(example)
    agreement = semantics.agreements[index]
    wrong = {
        "answer": "a" in held,
        "result": "r" in held,
        "spelled": bool(semantics.spelled[index]),
        "duplicate": semantics.repeats[index] > 1,
        "operations": agreement is not None and not agreement.same,
        "long": plans.metrics.plan.words[index] > LONG_WORDS,
        "empty": not plans.metrics.plan.filled[index],
    }
    shared = semantics.shared[index]
    row = {
        "id": example.id,
        "question": example.question,
        "plan": example.plan,
        "execution": example.execution,
        "answer": example.answer_numerical,
        "category": labels.index(plans.metrics.labels[index]),
        "marks": marks,
        "faults": [position for position, (key, *_) in enumerate(FAULTS) if wrong[key]],
        "said": " → ".join(semantics.said[index]),
        "done": " → ".join(semantics.done[index]),
        "repeats": int(semantics.repeats[index]),
        "shared": None if math.isnan(shared) else round(float(shared), 3),
    }
    if (example.id, example.question) in theirs:
        row["other"] = theirs[example.id, example.question]
    return row


def _marks(example: HierarchicalExample) -> tuple[list[list], set[str]]:
    """The numbers of the plan: [start, end, kind], offsets in UTF-16 units as JavaScript counts.

    Kinds: ``d`` in digits, ``w`` in words, followed by ``a`` if the value is the answer, ``r`` if
    it is an intermediate result; the set of these letters comes along.
    """
    plan = example.plan
    answers = {number_value(text) for text in find_numbers(example.answer_numerical)[:1]}
    results = results_of(strip_annotations(example.execution)) - answers
    found = [(start, end, "d", number_value(plan[start:end])) for start, end in number_spans(plan)]
    found += [
        (start, end, "w", cardinal_value(plan[start:end]))
        for start, end in spelled_number_spans(plan)
    ]
    marks, held = [], set()
    for start, end, kind, value in sorted(found, key=lambda mark: mark[:2]):
        if marks and start < marks[-1][1]:  # "2 dozen": digits within words are marked once
            continue
        role = "a" if value in answers else "r" if value in results else ""
        held.update(role)
        marks.append([start, end, kind + role])
    if not plan.isascii():
        # Characters beyond the basic plane are two units; offsets of their text are corrected.
        units = [0]
        for character in plan:
            units.append(units[-1] + 1 + (ord(character) > 0xFFFF))
        marks = [[units[start], units[end], kind] for start, end, kind in marks]
    return marks, held


# --- the tables --------------------------------------------------------------------------------


def _verdict(verdict: Any) -> dict[str, Any]:
    threshold: Threshold = verdict.threshold
    share = threshold.unit == "share"
    return {
        "label": threshold.label,
        "required": f"{threshold.sign} {threshold.limit:.0%}"
        if share
        else f"{threshold.sign} {threshold.limit:g}×",
        "value": percent(verdict.value) if share else _times(verdict.value),
        "passed": verdict.passed,
    }


def _tables(plans: PlanSet) -> dict[str, Table]:
    metrics, semantics = plans.metrics, plans.semantics.to_dict()
    plan, execution = metrics.plan.summary(), metrics.execution.summary()

    def spread(label: str, key: str) -> tuple[str, ...]:
        cells = [
            (number(part[key]["mean"]), number(part[key]["median"], 0),
             number(part[key]["max"], 0))
            for part in (plan, execution)
        ]  # fmt: skip
        return (label, *cells[0], *cells[1])

    kinds = [
        (kind, *(number(part["operations_by_kind"][kind]["mean"]) for part in (plan, execution)))
        for kind in metrics.plan.operations
    ]
    leakage, agreement = metrics.leakage, semantics["operation_agreement"]
    diversity = plans.semantics.diversity
    expected = {category.label: category.expected for category in CATEGORIES}
    return {
        "categories": Table(
            ("category", "plans", "share", "expected"),
            [
                (label, f"{count:,}", percent(share), _expected(expected.get(label)))
                for label, (count, share) in metrics.categories.items()
                if label in expected or count
            ],
        ),
        "lengths": Table(
            ("per text", "plan mean", "median", "max", "execution mean", "median", "max"),
            [
                spread("numbers in digits", "numbers"),
                spread("numbers in words", "spelled_numbers"),
                spread("operations", "operations"),
                spread("words", "words"),
                spread("characters", "characters"),
                spread("sentences", "sentences"),
            ],
            f"Numbers, executions over plans: {_ratio(metrics)}. Blank texts are left out.",
        ),
        "operations": Table(
            ("operation, mean a text", "plan", "execution"),
            kinds,
            "Words and signs that name an operation.",
        ),
        "leakage": Table(
            ("of the solution, in the plan", "count", "of", "share"),
            [
                _share_row("final answer", len(leakage.answer_ids), leakage.checked),
                _share_row("  in digits", len(leakage.in_digits), leakage.checked),
                _share_row("  in words", len(leakage.in_words), leakage.checked),
                _share_row("intermediate results", leakage.results_in_plans, leakage.results),
            ],
            "Coincidences count: the word “two” in a plan whose answer is 2.",
        ),
        "semantics": Table(
            ("beyond digits", "value"),
            [
                (f"plan's word {NGRAM}-grams found in the execution", percent(metrics.overlap)),
                ("plan's content words found in the execution, mean",
                 percent(semantics["plan_words_in_solution"])),
                ("plans with numbers in words",
                 f"{semantics['plans_with_spelled_numbers']:,} of {len(metrics):,}"),
                ("distinct plans", f"{diversity.distinct:,} of {diversity.plans:,}"),
                ("plans that share their text with another", f"{diversity.repeated:,}"),
                ("most frequent plan occurs", f"{diversity.largest[0]:,} ×"),
                ("distinct first five words", percent(diversity.openings)),
                ("distinct words, distinct pairs of words",
                 f"{number(diversity.distinct_1, 3)}, {number(diversity.distinct_2, 3)}"),
            ],
        ),
        "agreement": Table(
            ("operations of plan and solution", "value"),
            [
                ("solutions with readable calculations",
                 f"{agreement['solutions_with_readable_calculations']:,} of {len(metrics):,}"),
                ("plans that name operations",
                 f"{agreement['plans_that_name_operations']:,} of {len(metrics):,}"),
                ("both, so compared", f"{agreement['compared']:,}"),
                ("same operations, same order", percent(agreement["exact"])),
                ("same operations, any order", percent(agreement["same_in_any_order"])),
                ("similarity (1 − edit distance / length)", number(agreement["similarity"], 3)),
            ],
            "Read off the annotations where they were kept, else off the visible calculations.",
        ),
    }  # fmt: skip


def _comparison(comparison: Comparison, names: Sequence[str]) -> dict[str, Any]:
    headers = ("", "problems", *names, "difference", "95% interval")
    return {
        "method": comparison.method,
        "names": names,
        "headers": headers,
        "rows": [{"cells": difference_cells(row), "clear": row.clear} for row in comparison.rows],
    }


def difference_cells(row: Difference) -> tuple[str, ...]:
    """A row of a comparison as texts: label, examples, both values, difference, interval."""
    ours, theirs = row.counts
    counts = f"{ours:,}" if ours == theirs else f"{ours:,} / {theirs:,}"
    if row.unit == "share":
        values = (percent(row.this), percent(row.other))
        change = (
            _signed(100 * row.difference, 1),
            *(_signed(100 * b, 1) for b in (row.low, row.high)),
        )
        suffix = " pp"
    else:
        values = (number(row.this), number(row.other))
        change = tuple(_signed(value, 2) for value in (row.difference, row.low, row.high))
        suffix = ""
    if math.isnan(row.difference):
        return (row.label, counts, *values, "-", "-")
    return (row.label, counts, *values, change[0] + suffix, f"{change[1]} to {change[2]}{suffix}")


def _share_row(label: str, count: int, total: int) -> tuple[str, ...]:
    return (label, f"{count:,}", f"{total:,}", percent(count / total if total else math.nan))


def _expected(bounds: tuple[float, float] | None) -> str:
    if bounds is None:
        return "none"
    return f"{bounds[0]:.0%}–{bounds[1]:.0%}" if bounds[0] else f"< {bounds[1]:.0%}"


def _ratio(metrics: PlanMetrics) -> str:
    if math.isinf(metrics.ratio):
        return NO_PLAN_NUMBERS
    low, high = metrics.ratio_interval
    return f"{_times(metrics.ratio)} (95% interval {_times(low)} to {_times(high)})"


def _times(value: float) -> str:
    return "∞" if math.isinf(value) else "-" if math.isnan(value) else f"{value:.2f}×"


def _signed(value: float, decimals: int) -> str:
    text = f"{value:+.{decimals}f}"
    return text[1:] if float(text) == 0 else text
