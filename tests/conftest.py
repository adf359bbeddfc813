"""Fixtures shared by all tests: the real data (where it is), toy tokenizers and models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test is timed: on a busy machine writing a small file has taken a third of a second.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REPOSITORY = Path(__file__).resolve().parents[1]
os.environ.pop("COLUMNS", None)  # which pytest-xdist sets: tables have the width of a pipe


@pytest.fixture(autouse=True)
def untold() -> None:
    """What a process says once, it may say once in every test."""
    from hbd3lm.commands.problems import announce

    announce.cache_clear()


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets: ``HBD3LM_DATA_DIR``, or ``../shared/data``; else skip."""
    folder = Path(os.environ.get("HBD3LM_DATA_DIR", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "gsm8k_train.jsonl").is_file():
        pytest.skip(f"no real data in {folder}; set HBD3LM_DATA_DIR to a folder that holds it")
    return folder


@pytest.fixture
def quick_compiler(monkeypatch) -> Iterator[None]:
    """torch.compile with its tracer alone, which is what can fail; making code takes minutes."""
    import torch
    from torch._dynamo.utils import counters

    for module in ("hbd3lm.train.compiled", "hbd3lm.sample.compiled"):
        monkeypatch.setattr(f"{module}.BACKEND", "eager")
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
