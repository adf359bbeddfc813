"""Which clock a benchmark reads."""

from __future__ import annotations

import argparse
import time

from hbd3lm.errors import UserError

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def check_clock(args: argparse.Namespace) -> None:
    """Refuse processor time of several threads.

    Raises:
        UserError: that.
    """
    if args.clock == "cpu" and args.threads != 1:
        raise UserError("--clock cpu: the time of all threads is added up; set --threads 1 as well")
