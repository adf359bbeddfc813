"""What the tests of the published data sets share: nothing is asked of the real hub."""

from __future__ import annotations

import pytest

from tests.data.published import MAIN, MULTIARITH, SOCRATIC, write_lines, write_svamp


@pytest.fixture
def no_hub_and_no_folder(monkeypatch, tmp_path):
    """Nothing outside the test decides: no folder named, hub out of reach, cache empty."""
    for name in ("HBD3LM_DATA_DIR", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A data folder with one-problem files of every data set (SVAMP must be whole)."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        write_lines(folder / f"gsm8k_{split}.jsonl", MAIN)
        write_lines(folder / f"gsm8k_{split}_socratic.jsonl", SOCRATIC)
    write_svamp(folder)
    write_lines(folder / "multiarith.jsonl", MULTIARITH)
    return folder
