"""The analysis of plans on a terminal: tables, samples and the worst plans, at once.

Texts of the data are no markup here, and what in them would steer the terminal is spelled out.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from hbd3lm.commands.console import make_console
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import printable, some_of
from hbd3lm.plans.compare import Comparison, PlanSet
from hbd3lm.plans.numbers import number_spans, spelled_number_spans
from hbd3lm.plans.quality import CATEGORIES, NO_PLAN_NUMBERS, PlanMetrics
from hbd3lm.plans.semantics import Semantics
from hbd3lm.report.plan_page import difference_cells
from hbd3lm.report.values import number, percent

_PRINTED = 4_000  # characters printed of one text; the page shows all of it


def print_analysis(
    plans: PlanSet,
    other: tuple[PlanSet, Comparison, str] | None,
    args: argparse.Namespace,
    written: Sequence[Path],
) -> None:
    """Print the report and the names of the files ``written``.

    Args:
        other: a second set, its comparison with the first, and its file.
        args: of the command: ``data_path``, ``num_samples``, ``seed``.
    """
    console = make_console()
    _print_report(console, plans, other, args)
    for path in written:
        console.print(printable(f"written: {path}"), markup=False, soft_wrap=True)


def _print_report(
    console: Console,
    plans: PlanSet,
    other: tuple[PlanSet, Comparison, str] | None,
    args: argparse.Namespace,
) -> None:
    metrics = plans.metrics
    title = f"Plan analysis of {args.data_path}: {len(metrics):,} examples"
    console.print(printable(title), style="bold", markup=False, soft_wrap=True)
    if metrics.empty_ids:
        console.print(
            f"warning: plans without text: {len(metrics.empty_ids)} ({_ids(metrics.empty_ids)}); "
            "they count in no category but their own and in no mean",
            style="bold red",
            markup=False,
        )
    _print_metrics(console, metrics)
    _print_categories(console, metrics)
    _print_thresholds(console, metrics)
    _print_leakage(console, metrics)
    _print_semantics(console, plans.semantics)
    if other:
        _print_comparison(console, plans, *other, this_path=args.data_path)
    _print_examples(console, metrics, plans.examples, args)


def _table(title: str, *columns: str) -> Any:
    """A table whose first column is text and whose others are figures."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", overflow="fold")
    return table


def _print_metrics(console: Console, metrics: PlanMetrics) -> None:
    plan, execution = metrics.plan.summary(), metrics.execution.summary()
    table = _table("Plan vs Execution (mean / median / max)", "per text", "Plan", "Execution")

    def row(label: str, key: str) -> None:
        table.add_row(label, _spread(plan[key]), _spread(execution[key]))

    row("numbers (digits)", "numbers")
    table.add_row(
        "  95% interval of the mean",
        _interval(metrics.plan_interval),
        _interval(metrics.execution_interval),
    )
    table.add_row(
        "  per word", *(number(part["numbers_per_word"], 3) for part in (plan, execution))
    )
    row("numbers in words (three, half, twice)", "spelled_numbers")
    row("math operations", "operations")
    for kind in metrics.plan.operations:
        table.add_row(f"  {kind} (mean)", *(_mean(part, kind) for part in (plan, execution)))
    row("words", "words")
    row("characters", "characters")
    row("sentences", "sentences")
    console.print(table)
    low, high = metrics.ratio_interval
    ratio = NO_PLAN_NUMBERS if math.isinf(metrics.ratio) else _times(metrics.ratio)
    if math.isfinite(metrics.ratio):
        ratio += f"  (95% interval {_times(low)} to {_times(high)})"
    console.print(
        f"Plan: {number(plan['numbers']['mean'])} numbers\n"
        f"Exec: {number(execution['numbers']['mean'])} numbers\n"
        f"Ratio: {ratio}\n"
        f"Overlap: {percent(metrics.overlap)} of the plans' word 4-grams are in their execution\n",
        markup=False,
    )


def _print_categories(console: Console, metrics: PlanMetrics) -> None:
    table = _table("Abstraction quality", "category", "plans", "share", "expected")
    expected = {category.label: _expected(*category.expected) for category in CATEGORIES}
    for label, (count, share) in metrics.categories.items():
        if label in expected or count:
            table.add_row(label, f"{count:,}", percent(share), expected.get(label, "none"))
    console.print(table)


def _print_thresholds(console: Console, metrics: PlanMetrics) -> None:
    table = _table("Thresholds", "good plans have", "required", "measured", "verdict")
    for verdict in metrics.verdicts:
        threshold = verdict.threshold
        share = threshold.unit == "share"
        table.add_row(
            threshold.label,
            f"{threshold.sign}{threshold.limit:.0%}"
            if share
            else f"{threshold.sign}{threshold.limit:g}x",
            percent(verdict.value) if share else _times(verdict.value),
            Text("✓ PASS", "bold green") if verdict.passed else Text("✗ FAIL", "bold red"),
        )
    console.print(table)


def _print_leakage(console: Console, metrics: PlanMetrics) -> None:
    leakage = metrics.leakage
    table = _table("Leakage of the solution into the plan", "in the plan", "count", "of", "share")
    for label, count, total in (
        ("final answer", len(leakage.answer_ids), leakage.checked),
        ("  in digits", len(leakage.in_digits), leakage.checked),
        ("  in words", len(leakage.in_words), leakage.checked),
        ("intermediate results", leakage.results_in_plans, leakage.results),
    ):
        share = percent(count / total) if total else "-"
        table.add_row(label, f"{count:,}", f"{total:,}", share)
    console.print(table)
    if leakage.answer_ids:
        console.print(f"answer in the plan: {_ids(leakage.answer_ids)}\n", markup=False)


def _print_semantics(console: Console, semantics: Semantics) -> None:
    values, diversity = semantics.to_dict(), semantics.diversity
    agreement = values["operation_agreement"]
    table = _table("Beyond digits", "", "value")
    for label, value in (
        ("plans with numbers in words", f"{values['plans_with_spelled_numbers']:,}"),
        ("plan words found in the solution", percent(values["plan_words_in_solution"])),
        ("distinct plans", f"{diversity.distinct:,} of {diversity.plans:,}"),
        ("  most frequent plan occurs", f"{diversity.largest[0]:,} x"),
        ("  distinct first five words", percent(diversity.openings)),
        ("  distinct words / pairs of words",
         f"{number(diversity.distinct_1, 3)} / {number(diversity.distinct_2, 3)}"),
        ("solutions with readable calculations",
         f"{agreement['solutions_with_readable_calculations']:,} of {len(semantics.ids):,}"),
        ("plans that name operations",
         f"{agreement['plans_that_name_operations']:,} of {len(semantics.ids):,}"),
        (f"operations as in the solution ({agreement['compared']:,} compared)",
         percent(agreement["exact"])),
        ("  in any order", percent(agreement["same_in_any_order"])),
        ("  similarity (1 - edit distance / length)", number(agreement["similarity"], 3)),
    ):  # fmt: skip
        table.add_row(label, value)
    console.print(table)


def _print_comparison(
    console: Console,
    plans: PlanSet,
    other: PlanSet,
    comparison: Comparison,
    other_path: str,
    *,
    this_path: str,
) -> None:
    table = _table("Comparison", "", "problems", "this", "other", "this - other", "95% interval")
    for row in comparison.rows:
        style = "bold" if row.clear else ""
        table.add_row(*(Text(cell, style) for cell in difference_cells(row)))
    for verdict, theirs in zip(plans.metrics.verdicts, other.metrics.verdicts):
        marks = ("✓ PASS" if kept.passed else "✗ FAIL" for kept in (verdict, theirs))
        table.add_row(f"threshold: {verdict.threshold.label}", "", *marks, "", "")
    console.print(table)
    note = f"{comparison.method}; bold: the interval leaves out zero"
    console.print(
        printable(f"this: {this_path}\nother: {other_path}\n{note}\n"), markup=False, soft_wrap=True
    )


def _print_examples(
    console: Console,
    metrics: PlanMetrics,
    examples: Sequence[HierarchicalExample],
    args: argparse.Namespace,
) -> None:
    count = min(args.num_samples, len(examples))
    if not count:
        return
    console.rule(f"{count} sample problem{'s' if count > 1 else ''}", align="left")
    for index in sorted(random.Random(args.seed).sample(range(len(examples)), count)):
        _print_example(console, metrics, examples[index], index)

    plan = metrics.plan
    concrete = [index for index in range(len(examples)) if plan.numbers[index]]
    # Most numbers first; numbers in words, then the order of the file, break ties.
    concrete.sort(key=lambda index: (-plan.numbers[index], -plan.spelled[index], index))
    console.print()
    console.rule("Worst offenders: plans with the most numbers", align="left")
    if not concrete:
        console.print("none: no plan holds a number in digits\n")
    for index in concrete[:count]:
        _print_example(console, metrics, examples[index], index)


def _print_example(
    console: Console, metrics: PlanMetrics, example: HierarchicalExample, index: int
) -> None:
    digits, words = int(metrics.plan.numbers[index]), int(metrics.plan.spelled[index])
    console.print(
        Text.assemble((f"\n{_shown(example.id)}", "bold cyan"), f" · {metrics.labels[index]}"),
        Text(f"  {digits} in digits, {words} in words", "dim"),
        sep="\n",
    )
    console.print(Text.assemble(("Question: ", "bold"), _shown(example.question)))
    console.print(Text.assemble(("Plan: ", "bold"), _highlight(console, example.plan)))
    console.print(Text.assemble(("Execution: ", "bold"), _shown(example.execution)))
    console.print(Text.assemble(("Answer: ", "bold"), _shown(example.answer_numerical)))


def _shown(text: str) -> str:
    """``text`` without what would steer the terminal, cut where it is overlong."""
    rest = len(text) - _PRINTED
    end = f" ... ({rest:,} more characters)" if rest > 0 else ""
    return printable(text[:_PRINTED]) + end


def _ids(ids: Sequence[str]) -> str:
    return some_of([_shown(id_) for id_ in ids])


def _highlight(console: Console, plan: str) -> Text:
    """``plan`` with its numbers in colour, or in «guillemets» where there is none."""
    marks = [(*span, "bold red") for span in number_spans(plan)]
    marks += [(*span, "bold yellow") for span in spelled_number_spans(plan)]
    end = _PRINTED if len(plan) > _PRINTED else len(plan)
    coloured = console.color_system is not None and not console.no_color
    text, position = Text(), 0
    for start, stop, style in sorted(marks):
        if stop > end:
            break
        text.append(printable(plan[position:start]))
        text.append(plan[start:stop] if coloured else f"«{plan[start:stop]}»", style)
        position = stop
    return text.append(_shown(plan[position:]))


# --- figures as text ------------------------------------------------------------------------


def _times(value: float) -> str:
    return "inf" if math.isinf(value) else "-" if math.isnan(value) else f"{value:.2f}x"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{number(bounds[0])} to {number(bounds[1])}"


def _spread(values: dict[str, float]) -> str:
    return " / ".join(
        [number(values["mean"]), *(number(values[key], 0) for key in ("median", "max"))]
    )


def _mean(summary: dict[str, Any], kind: str) -> str:
    return number(summary["operations_by_kind"][kind]["mean"])


def _expected(low: float, high: float) -> str:
    return f"{low:.0%}-{high:.0%}" if low else f"<{high:.0%}"
