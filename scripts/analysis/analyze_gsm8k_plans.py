#!/usr/bin/env python
"""Analyse how abstract the plans of a data file are; ``--help`` says how."""

import sys

from hbd3lm.commands.analyze_plans import main
from hbd3lm.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(prog="analyze_gsm8k_plans.py")))
