#!/usr/bin/env python
"""How long a user waits for ``--help``: every verb and every script, and what each imports.

    python benchmarks/startup.py

The programs take turns. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hbd3lm.cli import VERBS
from hbd3lm.commands.arguments import positive
from hbd3lm.errors import run_command

REPOSITORY = Path(__file__).resolve().parents[1]
AIM = 0.5
"""Seconds to ``--help``."""
HEAVY = {"torch", "lightning", "transformers", "tokenizers", "datasets", "matplotlib", "vllm",
         "scipy", "pandas", "pyarrow"}  # fmt: skip
"""Libraries that help has no use for and that take their time to load."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/startup.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--repeats", type=positive, default=5, help="turns of each (default: 5)")
    parser.add_argument("--quick", action="store_true", help="few programs, one turn")
    return parser


def programs() -> dict[str, list[str]]:
    """Name and arguments (of Python) of everything that has a ``--help``."""
    scripts = [
        "main.py",
        "gsm8k_dataloader.py",
        "test_hierarchical_mask.py",
        *(
            str(path.relative_to(REPOSITORY))
            for folder in ("scripts", "benchmarks")
            for path in sorted((REPOSITORY / folder).rglob("*.py"))
            if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
        ),
    ]
    verb = ["-m", "hbd3lm.cli"]
    return (
        {"(python itself)": ["-c", "pass"], "hbd3lm --help": [*verb, "--help"]}
        | {f"hbd3lm {name} --help": [*verb, name, "--help"] for name in VERBS}
        | {f"{script} --help": [script, "--help"] for script in scripts}
    )


def start(arguments: list[str]) -> tuple[float, str]:
    """Seconds until the program has ended, and what it wrote to stderr.

    Raises:
        RuntimeError: it failed.
    """
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    seconds = time.perf_counter() - started
    if result.returncode:
        raise RuntimeError(f"{arguments} failed:\n{result.stderr}")
    return seconds, result.stderr


def heavy_imports(arguments: list[str]) -> tuple[int, set[str]]:
    """How many modules a program imports, and which of :data:`HEAVY` are among them."""
    _, log = start(["-X", "importtime", *arguments])
    modules = re.findall(r"^import time: +\d+ \| +\d+ \| *(\S+)$", log, re.MULTILINE)
    return len(modules), HEAVY & set(modules)


def main(argv: list[str] | None = None) -> int:
    """Print the table; 1 if a program imports what it should not, 0 otherwise."""
    args = build_parser().parse_args(argv)
    chosen = programs()
    if args.quick:
        quick = ("(python itself)", "hbd3lm --help", "hbd3lm train --help")
        chosen, args.repeats = {name: chosen[name] for name in quick}, 1
    imported = {name: heavy_imports(arguments) for name, arguments in chosen.items()}  # warms up
    turns = [
        {name: start(arguments)[0] for name, arguments in chosen.items()}
        for _ in range(args.repeats)
    ]
    width = max(map(len, chosen))
    print(f"{'':{width}} {'median s':>9} {'least s':>9} {'modules':>8}  heavy libraries")
    slow = []
    for name, (modules, heavy) in imported.items():
        seconds = [turn[name] for turn in turns]
        print(
            f"{name:{width}} {statistics.median(seconds):>9.2f} {min(seconds):>9.2f} "
            f"{modules:>8}  {', '.join(sorted(heavy)) or '-'}"
        )
        if statistics.median(seconds) > AIM:
            slow.append(name)
    print(f"\n{len(chosen) - len(slow)} of {len(chosen)} within {AIM} s", *slow, sep="\n  over: ")
    return 1 if any(heavy for _, heavy in imported.values()) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
