#!/usr/bin/env python
"""Check the hierarchical attention mask and draw it: ``python test_hierarchical_mask.py``.

A program for users, not part of the test suite in tests/; ``--help`` lists its flags.
"""

import sys

from hbd3lm.commands.check_mask import main
from hbd3lm.errors import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: main(prog="test_hierarchical_mask.py")))
