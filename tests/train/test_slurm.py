"""The training script in a real SLURM: submitted, interrupted, queued again, finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hbd3lm.data.records import write_examples
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.plans.generate import generate_plans
from hbd3lm.plans.planner import load_planner
from tests import slurm
from tests.train.test_checkpoints import assert_same
from tests.train.test_training import final_state

REPOSITORY = Path(__file__).parents[2]
SCRIPT = "scripts/train/train_gsm8k_hierarchical.sh"
OVERRIDES = [
    "model.n_layers=1", "model.dim=32", "model.n_heads=2", "training.valid_samples=1",
    "training.log_every=1", "training.checkpoint_every=4", "training.valid_every=40",
    "trainer.loggers=[csv]", "trainer.precision=32-true",
]  # fmt: skip


@pytest.fixture
def cluster(tmp_path):
    reason = slurm.missing()
    if reason:
        pytest.skip(reason)
    try:
        with slurm.single_node(tmp_path / "slurm") as cluster:
            yield cluster
    except slurm.NotStartedError as error:
        pytest.skip(f"SLURM does not start here: {error}")


@pytest.fixture
def settings(tmp_path) -> dict[str, str]:
    """The script's variables."""
    problems = generate_problems("train", 24, seed=0)
    examples = generate_plans(
        problems, load_planner("rules"), tmp_path / "plans.json",
        settings={"planner": "rules"}, progress=False,
    )  # fmt: skip
    write_examples(tmp_path / "train.json", examples)
    return {
        "PYTHON": sys.executable,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "DATA_PATH": str(tmp_path / "train.json"),
        "MODEL_SIZE": "nano",
        "ACCELERATOR": "cpu",
        "BATCH_SIZE": "2",
        "GLOBAL_BATCH_SIZE": "8",
        "MAX_STEPS": "120",
        "WARMUP_STEPS": "5",
        "TOTAL_LEN": "384",
        "LR": "1e-3",
    }


@pytest.mark.slow
def test_a_job_stopped_by_a_signal_goes_on_by_itself_and_ends_as_if_it_had_not_been(
    cluster, settings, tmp_path
):
    """Two processes under srun, as the file says but for the number of tasks; beside it the same
    settings with plain bash, undisturbed."""
    run_dir, output = tmp_path / "job", tmp_path / "job.out"
    cluster.environment |= {**settings, "RUN_DIR": str(run_dir)}
    number = cluster(
        "sbatch", "--parsable", f"--output={output}", "--ntasks-per-node=2", SCRIPT, *OVERRIDES,
        cwd=REPOSITORY,
    ).strip()  # fmt: skip
    end = time.monotonic() + 120
    while not (run_dir / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < end, output.read_text() if output.exists() else "no output"
        time.sleep(0.05)
    cluster("scancel", "--signal=USR1", number)  # what SLURM does before the time is up
    job = cluster.wait(number, ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"), 240)
    text = output.read_text()
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "1"), text
    assert "as asked by a signal" in text
    assert f"job {number} is queued again and goes on from its checkpoint" in text
    assert text.count("model: nano") == 2  # one process speaks, in each of two sittings
    summary = json.loads((run_dir / "train_summary.json").read_text())
    assert (summary["steps"], summary["processes"], summary["problems_per_step"]) == (120, 2, 8)
    assert summary["resumed_from"] == str(run_dir / "checkpoints" / "last.ckpt")

    undisturbed = tmp_path / "undisturbed"
    environment = {name: v for name, v in os.environ.items() if not name.startswith("SLURM_")}
    subprocess.run(
        ["bash", SCRIPT, *OVERRIDES, "trainer.devices=2"], cwd=REPOSITORY, check=True,
        env={**environment, **settings, "RUN_DIR": str(undisturbed)}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    one, two = (final_state(folder) for folder in (undisturbed, run_dir))
    for state in (one, two):
        state["hbd3lm"].pop("settings")  # they name the folder and the way it was started
    assert_same(one, two)
    logs = [(folder / "logs/metrics.csv").read_text() for folder in (undisturbed, run_dir)]
    assert logs[0] == logs[1]
