"""The experiments by name; a module is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hbd3lm.experiments.results import Results
    from hbd3lm.experiments.study import Study

EXPERIMENTS = {
    "abstraction": "numbers in plans and executions, of the data and of the model's own samples",
    "comparison": "hierarchical against flat, autoregressive and whole-segment diffusion",
    "transfer": "to other problems, with the plan module frozen or not",
    "mechanism": "does the execution follow the plan?",
}
"""Name -> what it asks, in one line."""


def load_experiment(name: str) -> Callable[[Study], Results]:
    """``run(study)`` of the experiment called ``name``, a key of :data:`EXPERIMENTS`."""
    return importlib.import_module(f"hbd3lm.experiments.{name}").run
