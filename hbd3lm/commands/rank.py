"""Which of a job's processes this is, before any library has been asked."""

from __future__ import annotations

import os


def get_rank() -> int:
    """Number of this process among those of a job; 0 outside of one."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as Lightning asks
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)
