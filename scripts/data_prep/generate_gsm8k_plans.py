#!/usr/bin/env python
"""Write the plans of GSM8K problems; see ``--help``. All of it is in hbd3lm.commands."""

import sys

from hbd3lm.commands.generate_plans import main
from hbd3lm.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(prog="generate_gsm8k_plans.py")))
