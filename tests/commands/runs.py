"""A tiny run from data file to checkpoint, for the tests of the modes of ``main.py``."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from hbd3lm.commands import run
from hbd3lm.commands.compose import compose_settings
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.synthetic import generate_problems
from tests.conftest import REPOSITORY

TINY = ("model=nano", "model.dim=32", "model.n_heads=2", "model.n_layers=2")
STEPS = (
    "training.max_steps=5",
    "training.batch_size=4",
    "training.valid_every=5",
    "training.checkpoint_every=2",
    "training.valid_samples=1",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.loggers=[csv]",
)


def compose(*overrides: str) -> DictConfig:
    """The configuration that these overrides make."""
    return compose_settings(list(overrides))


def main(*overrides: str) -> int:
    """The exit status of ``python main.py OVERRIDES``, in this process."""
    before = sys.argv
    sys.argv = [str(REPOSITORY / "main.py"), *overrides]
    try:
        run.main()
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = before
    return 0


def make_examples(count: int, start: int = 0) -> list[HierarchicalExample]:
    return [
        HierarchicalExample(
            problem.id, problem.question, "Add, then share.", problem.solution, problem.answer
        )
        for problem in generate_problems("train", start + count, 0, 1, 1)[start:]
    ]


def evaluate(home: Path, mode: str, *overrides: str) -> int:
    """The exit status of a mode of ``main.py`` on the run and the test problems of ``home``."""
    return main(
        f"mode={mode}", f"run_dir={home}/run", "trainer=cpu", "sampling.batch_size=4",
        f"data.test_path={home}/test.json", f"data.train_path={home}/train.json", *overrides,
    )  # fmt: skip
