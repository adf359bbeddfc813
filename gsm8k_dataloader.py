#!/usr/bin/env python
"""Look at a data file as training sees it, measure token lengths, or import the data set class.

python gsm8k_dataloader.py --data_path data/gsm8k/gsm8k_hierarchical_train.json --analyze

from gsm8k_dataloader import GSM8KHierarchicalDataset
"""

import sys

from hbd3lm.errors import run_command


def __getattr__(name: str):
    """``GSM8KHierarchicalDataset``, loaded when it is asked for."""
    if name == "GSM8KHierarchicalDataset":
        from hbd3lm.data.encoding import HierarchicalDataset

        return HierarchicalDataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    from hbd3lm.commands.token_lengths import main

    sys.exit(run_command(lambda: main(prog="gsm8k_dataloader.py")))
