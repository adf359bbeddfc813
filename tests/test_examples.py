"""The notebook runs from top to bottom as a reader with a fresh clone runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
TINY = [
    "--steps", "2", "--num_train", "24", "--num_test", "3", "model.dim=32", "model.n_layers=1",
    "model.n_heads=2", "training.batch_size=4", "trainer=cpu",
    "trainer.precision=32-true", "hierarchical.plan_len=32", "hierarchical.exec_len=32",
]  # fmt: skip


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_was_executed_in_order_and_without_error(path):
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert any("text" in output for output in outputs)
    assert not any(output["output_type"] == "error" for output in outputs)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_offline_without_a_model_at_hand(path, tmp_path):
    """With a model of two steps, in the place of the parameters as printed."""
    sources, tagged = [], 0
    for cell in cells(path):
        if cell["cell_type"] == "code":
            sources.append("".join(cell["source"]))
        if "parameters" in cell["metadata"].get("tags", ()):
            tagged += 1
            sources.append(f"FOLDER, SETTINGS = {str(tmp_path / 'quickstart')!r}, {TINY!r}")
    assert tagged == 1
    environment = {
        **os.environ, "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path),
        "PYTHONPATH": str(EXAMPLES.parent),
    }  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(sources)],
        capture_output=True, text=True, cwd=EXAMPLES, env=environment,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "network evaluations:" in run.stdout and "of 3 right" in run.stdout
    assert (tmp_path / "quickstart" / "index.html").is_file()  # it made its own model
