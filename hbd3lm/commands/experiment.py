"""``hbd3lm experiment NAME``: run a study to its table, figure and JSON file, or go on with one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hbd3lm.allocator import keep_freed_memory
from hbd3lm.errors import UserError
from hbd3lm.experiments.registry import EXPERIMENTS, load_experiment
from hbd3lm.files import WriteError, check_output


def build_parser() -> argparse.ArgumentParser:
    """The command line; light, so that ``--help`` answers at once."""
    width = max(map(len, EXPERIMENTS))
    parser = argparse.ArgumentParser(
        prog="hbd3lm experiment",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Run an experiment; everything ends in results/NAME/. Given again, the command "
        "goes on\nwhere it stopped; given several times at once, the processes divide the runs.\n\n"
        "experiments:\n"
        + "\n".join(f"  {name:{width}}  {text}" for name, text in EXPERIMENTS.items()),
    )
    parser.add_argument("name", choices=EXPERIMENTS, metavar="NAME", help="one of the above")
    parser.add_argument("--smoke", action="store_true", help="the whole of it, tiny: a minute")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="settings of all runs, as main.py takes them (model=tiny), and of the study itself "
        "(experiment.seeds=[0,1,2]; hbd3lm/configs/experiment/NAME.yaml lists them)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Returns 0.

    Raises:
        UserError: an unknown setting, missing data, or a folder that holds another study.
    """
    args = build_parser().parse_intermixed_args(argv)
    run_experiment(args.name, args.overrides, args.smoke)
    return 0


def run_mode(overrides: Sequence[str]) -> None:
    """``main.py mode=experiment experiment=NAME KEY=VALUE ...``."""
    names = [o.partition("=")[2] for o in overrides if o.startswith("experiment=")]
    if len(names) != 1:
        raise UserError(
            f"mode=experiment needs one experiment=...: choose from {', '.join(EXPERIMENTS)}"
        )
    others = [o for o in overrides if not o.startswith(("mode=", "experiment="))]
    run_experiment(names[0], others)


def run_experiment(name: str, overrides: Sequence[str], smoke: bool = False) -> None:
    """Run, write, print the tables and where everything is."""
    keep_freed_memory()  # before torch is imported
    from hbd3lm.experiments.results import write_results
    from hbd3lm.experiments.study import Study

    study = Study.open(name, overrides, smoke)
    check_output(study.folder / "report.md", "experiment.output_dir")
    print(f"experiment {name}: {EXPERIMENTS[name]}; everything goes to {study.folder}", flush=True)
    try:
        results = load_experiment(name)(study)
        report = write_results(study, results)
    except WriteError as error:  # its runs have named keys of theirs, which the user never gave
        raise WriteError("experiment.output_dir", error.filename, error) from None
    print()
    for table in results.tables:
        print(table.markdown())
    for finding in results.findings:
        print(f"- {finding}")
    print(f"\nreport, tables, figure, metrics.json, records.jsonl: {report.parent}")
