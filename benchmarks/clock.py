"""Which clock a benchmark reads, and the arguments that all of them check alike."""

from __future__ import annotations

import argparse
import time

from hbd3lm.errors import UserError

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def check_arguments(args: argparse.Namespace, *counts: str) -> None:
    """Refuse counts below 1, and processor time of several threads.

    Raises:
        UserError: one of them.
    """
    for name in counts:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: at least 1 is needed")
    if args.clock == "cpu" and args.threads != 1:
        raise UserError("--clock cpu: the time of all threads is added up; set --threads 1 as well")
