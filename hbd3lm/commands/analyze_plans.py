"""Report how abstract the plans of a data file are: tables, a figure, a page, a metrics JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.arguments import count
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write, check_output, writing

if TYPE_CHECKING:
    from hbd3lm.plans.compare import Comparison, PlanSet


def build_parser(prog: str = "hbd3lm analyze") -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog=prog,
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
        type=count,
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
        type=count,
        default=0,
        help="of the confidence intervals and of the problems chosen (default: %(default)s)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with status 1 if a threshold is missed"
    )
    return parser


def main(argv: list[str] | None = None, prog: str = "hbd3lm analyze") -> int:
    """Run the analysis; 0, or 1 with ``--strict`` if a threshold is missed.

    Raises:
        UserError: unreadable data, a figure name without a known suffix, an output that cannot be
            written or would overwrite the data.
    """
    args = build_parser(prog).parse_args(argv)
    from hbd3lm.commands.analyze_plans_printout import print_analysis
    from hbd3lm.data.records import read_examples, tell_empty
    from hbd3lm.json_values import json_ready
    from hbd3lm.plans.compare import compare_plans, measure_plans
    from hbd3lm.report.style import figure_format

    plot, json_path, page = _outputs(args)
    if plot is not None:
        figure_format(plot)

    examples = read_examples(args.data_path)
    for flag, path in (("plot", plot), ("json", json_path), ("page", page)):
        if path is not None:
            check_output(path, f"--output_{flag}")
    tell_empty(examples, f"--data_path {args.data_path}", needed=("plan",))
    plans = measure_plans(examples, seed=args.seed)
    metrics = plans.metrics
    report = {"data_path": args.data_path, **metrics.to_dict()}
    report["semantics"] = json_ready(plans.semantics.to_dict())
    other = None
    if args.compare:
        theirs = read_examples(args.compare, "--compare")
        tell_empty(theirs, f"--compare {args.compare}", needed=("plan",))
        their_plans = measure_plans(theirs, seed=args.seed)
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
    print_analysis(
        plans, other, args, [path for path in (plot, json_path, page) if path is not None]
    )
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
        with writing(path, flag):  # is_file() refuses a name that is too long
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
    with writing(page, "--output_page"):
        write_plan_page(page, plans, panels, data_path=args.data_path, seed=args.seed, other=other)


def _write_json(content: dict[str, Any], path: Path) -> None:
    with atomic_write(path, what="--output_json") as file:
        json.dump(content, file, ensure_ascii=False, indent=2, allow_nan=False)
        file.write("\n")
