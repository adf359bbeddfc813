"""``python -m hbd3lm``: the command ``hbd3lm``, also where its script is not on the path."""

import sys

from hbd3lm.cli import entry_point

if __name__ == "__main__":
    sys.exit(entry_point())
