"""Fixtures of the tests that run the modes of ``main.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hbd3lm.data.records import write_examples
from tests.commands.runs import STEPS, TINY, main, make_examples


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A data file and a run trained on it through the command line."""
    folder = tmp_path_factory.mktemp("home")
    write_examples(folder / "train.json", make_examples(20))
    write_examples(folder / "test.json", make_examples(4, start=20))
    status = main(
        "mode=train", *TINY, *STEPS, "training.hierarchical.enabled=true",
        f"data.train_path={folder}/train.json", f"run_dir={folder}/run",
    )  # fmt: skip
    assert status == 0
    return folder
