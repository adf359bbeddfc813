#!/usr/bin/env python
"""Train the byte-level BPE that ships with the package; ``--help`` says how."""

import sys

from hbd3lm.commands.train_tokenizer import main
from hbd3lm.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(prog="train_tokenizer.py")))
