"""Make a page of sampled problems: watch plans and executions come about, edit the plans."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.arguments import positive
from hbd3lm.commands.overrides import override_value
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.report.denoising_page import EditCommands

EDITED = "edited_plans.json"
SAMPLER = ("method", "steps", "threshold", "temperature", "top_p", "precision")
"""Settings that a run with an edited plan repeats, beside the seed."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm view",
        description="Make one HTML page of sampled problems: question, plan and execution appear "
        "block by block and step by step, beside gold and verdict; plans can be edited, and the "
        "page prints the command that runs them.",
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="trajectories, as mode=sample_eval and mode=sample write them with "
        "sampling.trajectory=true, e.g. outputs/hierarchical_tiny/eval/trajectories_full.jsonl",
    )
    parser.add_argument(
        "--output_page", metavar="FILE", help="the page (default: FILE with the ending .html)"
    )
    parser.add_argument(
        "--num_problems",
        type=positive,
        metavar="N",
        help="only the first N problems (default: all)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the page and say where it is. Returns 0.

    Raises:
        UserError: no such file, another kind of file, or a page that cannot be written.
    """
    args = build_parser().parse_args(argv)
    from hbd3lm.evaluate.trajectories import read_trajectories
    from hbd3lm.files import check_output, writing
    from hbd3lm.report.denoising_page import write_denoising_page

    file = Path(args.file)
    page = Path(args.output_page) if args.output_page else file.with_suffix(".html")
    if page.exists() and file.exists() and page.samefile(file):
        raise UserError(f"--output_page: {page} is the file of trajectories; name another")
    content = read_trajectories(file)
    records = content.records[: args.num_problems]
    check_output(page, "--output_page")
    with writing(page, "--output_page"):
        write_denoising_page(
            page, content.about, records, edit_commands(content.about, file.parent)
        )
    print(f"page of {len(records)} problem{'s' if len(records) != 1 else ''}: {page}")
    return 0


def edit_commands(about: Mapping[str, Any], folder: Path) -> EditCommands:
    """The commands a page prints for edited plans.

    Args:
        about: the shared part of the trajectories.
        folder: where they lie; results of edited plans go into ``edited`` there.
    """
    from hbd3lm.report.denoising_page import EditCommands

    output = folder / "edited"
    settings = about["settings"]
    repeated = {f"sampling.{name}": settings[name] for name in SAMPLER if name in settings}
    if "seed" in settings:
        repeated["seed"] = settings["seed"]
    shared = {
        "checkpoint": about["checkpoint"],
        "sampling.mode": "exec_only",
        **{key: value for key, value in repeated.items() if value is not None},
        "sampling.trajectory": True,
        "eval.output_dir": str(output),
    }

    def command(mode: str, more: Mapping[str, Any]) -> str:
        values = [f"{key}={override_value(value)}" for key, value in {**shared, **more}.items()]
        return shlex.join(["python", "main.py", f"mode={mode}", *values])

    def view(name: str) -> str:
        return shlex.join(["hbd3lm", "view", str(output / f"trajectories_{name}.jsonl")])

    return EditCommands(
        command("sample", {}),
        view("sample"),
        command("sample_eval", {"data.test_path": EDITED}),
        view("exec_only"),
        EDITED,
    )
