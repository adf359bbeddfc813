"""Report how abstract the plans of a data file are: tables, a figure, a page, a metrics JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.errors import UserError, printable
from hbd3lm.files import atomic_write

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.plans.compare import Comparison, PlanSet
    from hbd3lm.plans.quality import PlanMetrics
    from hbd3lm.plans.semantics import Semantics

_PIPED_WIDTH = 100  # columns, where no terminal says how many it has
_PRINTED = 4_000  # characters printed of one text; the page shows all of it


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog="analyze_gsm8k_plans.py",
        description="Analyse how abstract plans are: numbers, operations, lengths, answer leakage, "
        "and write a page to read and judge them problem by problem. "
        "Reads the output of generate_gsm8k_plans.py and the per-problem records of an evaluation.",
    )
    parser.add_argument(
        "--data_path", required=True, metavar="FILE", help="examples: JSON array or JSON Lines"
    )
    parser.add_argument(
        "--output_plot",
        default="gsm8k_analysis.png",
        metavar="FILE",
        help="the four-panel figure: .png, .pdf or .svg (default: %(default)s)",
    )
    parser.add_argument(
        "--num_samples",
        type=_count,
        default=5,
        metavar="N",
        help="problems to print, and at most as many worst plans (default: %(default)s)",
    )
    parser.add_argument(
        "--output_json",
        metavar="FILE",
        help="the metrics (default: the name of the figure, ending in .json)",
    )
    parser.add_argument(
        "--output_page",
        metavar="FILE",
        help="one HTML file with everything, to read and judge the plans in a browser "
        "(default: the name of the figure, ending in .html; none with --no_plot)",
    )
    parser.add_argument(
        "--compare",
        metavar="FILE",
        help="a second plan file to set beside this one: other planner, other prompt, before a "
        "change",
    )
    parser.add_argument(
        "--no_plot", action="store_true", help="draw no figure, and no page unless --output_page"
    )
    parser.add_argument("--no_page", action="store_true", help="write no page")
    parser.add_argument(
        "--seed",
        type=_count,
        default=0,
        help="of the confidence intervals and of the problems chosen (default: %(default)s)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 if a threshold is missed"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the analysis; 0, or 1 with ``--strict`` if a threshold is missed.

    Raises:
        UserError: unreadable data, a figure name without a known suffix, an output that cannot be
            written or would overwrite the data.
    """
    args = build_parser().parse_args(argv)
    from hbd3lm.data.records import read_examples
    from hbd3lm.plans.compare import compare_plans, measure_plans
    from hbd3lm.plans.quality import finite
    from hbd3lm.report.style import figure_format

    plot, json_path, page = _outputs(args)
    if plot is not None:
        figure_format(plot)

    examples = read_examples(args.data_path)
    plans = measure_plans(examples, seed=args.seed)
    metrics = plans.metrics
    report = {"data_path": args.data_path, **metrics.to_dict()}
    report["semantics"] = finite(plans.semantics.to_dict())
    other = None
    if args.compare:
        their_plans = measure_plans(read_examples(args.compare, "--compare"), seed=args.seed)
        comparison = compare_plans(plans, their_plans, seed=args.seed)
        other = (their_plans, comparison, args.compare)
        report["comparison"] = {
            "compare": args.compare,
            "other_thresholds": their_plans.metrics.to_dict()["thresholds"],
            **comparison.to_dict(),
        }

    # The files first: they are complete even if nobody reads the printout to its end.
    _write_json(report, json_path)
    if plot is not None:
        from hbd3lm.report.plan_figure import draw_plan_figure

        draw_plan_figure(metrics, plot, source=args.data_path)
    if page is not None:
        _write_page(plans, page, plot, args, other)
    _print_all(plans, other, args, [path for path in (plot, json_path, page) if path is not None])
    return 1 if args.strict and not metrics.passed else 0


def _outputs(args: argparse.Namespace) -> tuple[Path | None, Path, Path | None]:
    """Where figure, metrics and page go; None: nowhere."""
    from hbd3lm.plans.manifest import manifest_path

    plot = None if args.no_plot else Path(args.output_plot)
    json_path = Path(args.output_json or Path(args.output_plot).with_suffix(".json"))
    page = Path(args.output_page) if args.output_page else None
    if args.no_page and page is not None:
        raise UserError(f"--output_page {page} and --no_page contradict each other; give one")
    if page is None and plot is not None and not args.no_page:
        page = plot.with_suffix(".html")
    named = {"--output_plot": plot, "--output_json": json_path, "--output_page": page}
    taken: dict[Path, str] = {}
    for flag, path in named.items():
        if path is None:
            continue
        for data in filter(None, (args.data_path, args.compare)):
            if path.resolve() == Path(data).resolve():
                raise UserError(
                    f"{flag}: {path} is the data itself; choose another name with {flag}"
                )
        if manifest_path(path).is_file():
            raise UserError(f"{flag}: {path} holds plans; choose another name with {flag}")
        if path.resolve() in taken:
            raise UserError(f"{flag}: {path} is {taken[path.resolve()]}, too; choose another name")
        taken[path.resolve()] = flag
    return plot, json_path, page


def _write_page(
    plans: PlanSet,
    page: Path,
    plot: Path | None,
    args: argparse.Namespace,
    other: tuple[PlanSet, Comparison, str] | None,
) -> None:
    from hbd3lm.report.page import picture
    from hbd3lm.report.plan_figure import draw_plan_figure
    from hbd3lm.report.plan_page import write_plan_page

    alt = (
        "Four panels: distribution of numbers, operations by kind, lengths, and numbers of plan "
        "against execution; the tables below hold their values."
    )
    with tempfile.TemporaryDirectory() as folder:
        figure = plot
        if plot is None or plot.suffix.lower() != ".png":
            figure = Path(folder) / "figure.png"
            draw_plan_figure(plans.metrics, figure, source=args.data_path)
        panels = picture(figure, alt)
    write_plan_page(page, plans, panels, data_path=args.data_path, seed=args.seed, other=other)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def _write_json(content: dict[str, Any], path: Path) -> None:
    try:
        with atomic_write(path) as file:
            json.dump(content, file, ensure_ascii=False, indent=2, allow_nan=False)
            file.write("\n")
    except OSError as error:
        raise UserError(f"--output_json: cannot write {path}: {error.strerror}") from None


# --- printing -------------------------------------------------------------------------------


def _print_all(
    plans: PlanSet,
    other: tuple[PlanSet, Comparison, str] | None,
    args: argparse.Namespace,
    written: Sequence[Path],
) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    # Rendered in full first: a reader that hangs up ("| head") then cuts a single write short.
    with console.capture() as capture:
        _print_report(console, plans, other, args)
        for path in written:
            console.print(printable(f"written: {path}"), markup=False, soft_wrap=True)
    try:
        sys.stdout.write(capture.get())
        sys.stdout.flush()
    except BrokenPipeError:
        # As the Python documentation advises, so that the flush at exit finds an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
            f"warning: plans without text: {len(metrics.empty_ids)} ({_some(metrics.empty_ids)}); "
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
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", overflow="fold")
    return table


def _print_metrics(console: Console, metrics: PlanMetrics) -> None:
    from hbd3lm.plans.quality import NO_PLAN_NUMBERS

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
        "  per word", *(_number(part["numbers_per_word"], 3) for part in (plan, execution))
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
        f"Plan: {_number(plan['numbers']['mean'])} numbers\n"
        f"Exec: {_number(execution['numbers']['mean'])} numbers\n"
        f"Ratio: {ratio}\n"
        f"Overlap: {_percent(metrics.overlap)} of the plans' word 4-grams are in their execution\n",
        markup=False,
    )


def _print_categories(console: Console, metrics: PlanMetrics) -> None:
    from hbd3lm.plans.quality import CATEGORIES

    table = _table("Abstraction quality", "category", "plans", "share", "expected")
    expected = {category.label: _expected(*category.expected) for category in CATEGORIES}
    for label, (count, share) in metrics.categories.items():
        if label in expected or count:
            table.add_row(label, f"{count:,}", _percent(share), expected.get(label, "none"))
    console.print(table)


def _print_thresholds(console: Console, metrics: PlanMetrics) -> None:
    from rich.text import Text

    table = _table("Thresholds", "good plans have", "required", "measured", "verdict")
    for verdict in metrics.verdicts:
        threshold = verdict.threshold
        share = threshold.unit == "share"
        table.add_row(
            threshold.label,
            f"{threshold.sign}{threshold.limit:.0%}"
            if share
            else f"{threshold.sign}{threshold.limit:g}x",
            _percent(verdict.value) if share else _times(verdict.value),
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
        share = _percent(count / total) if total else "-"
        table.add_row(label, f"{count:,}", f"{total:,}", share)
    console.print(table)
    if leakage.answer_ids:
        console.print(f"answer in the plan: {_some(leakage.answer_ids)}\n", markup=False)


def _print_semantics(console: Console, semantics: Semantics) -> None:
    values, diversity = semantics.to_dict(), semantics.diversity
    agreement = values["operation_agreement"]
    table = _table("Beyond digits", "", "value")
    for label, value in (
        ("plans with numbers in words", f"{values['plans_with_spelled_numbers']:,}"),
        ("plan words found in the solution", _percent(values["plan_words_in_solution"])),
        ("distinct plans", f"{diversity.distinct:,} of {diversity.plans:,}"),
        ("  most frequent plan occurs", f"{diversity.largest[0]:,} x"),
        ("  distinct first five words", _percent(diversity.openings)),
        ("  distinct words / pairs of words",
         f"{_number(diversity.distinct_1, 3)} / {_number(diversity.distinct_2, 3)}"),
        ("solutions with readable calculations",
         f"{agreement['solutions_with_readable_calculations']:,} of {len(semantics.ids):,}"),
        ("plans that name operations",
         f"{agreement['plans_that_name_operations']:,} of {len(semantics.ids):,}"),
        (f"operations as in the solution ({agreement['compared']:,} compared)",
         _percent(agreement["exact"])),
        ("  in any order", _percent(agreement["same_in_any_order"])),
        ("  similarity (1 - edit distance / length)", _number(agreement["similarity"], 3)),
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
    from rich.text import Text

    from hbd3lm.report.plan_page import difference_cells

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
    from rich.text import Text

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


def _highlight(console: Console, plan: str) -> Text:
    """``plan`` with its numbers in colour, or in «guillemets» where there is none."""
    from rich.text import Text

    from hbd3lm.plans.numbers import number_spans, spelled_number_spans

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


def _number(value: float, decimals: int = 2) -> str:
    return "-" if math.isnan(value) else f"{value:,.{decimals}f}"


def _times(value: float) -> str:
    return "inf" if math.isinf(value) else "-" if math.isnan(value) else f"{value:.2f}x"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{_number(bounds[0])} to {_number(bounds[1])}"


def _spread(values: dict[str, float]) -> str:
    return " / ".join(
        [_number(values["mean"]), *(_number(values[key], 0) for key in ("median", "max"))]
    )


def _mean(summary: dict[str, Any], kind: str) -> str:
    return _number(summary["operations_by_kind"][kind]["mean"])


def _expected(low: float, high: float) -> str:
    return f"{low:.0%}-{high:.0%}" if low else f"<{high:.0%}"


def _some(ids: Sequence[str], most: int = 5) -> str:
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return ", ".join(_shown(id_) for id_ in ids[:most]) + more
