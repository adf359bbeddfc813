"""The shell scripts: valid bash, settings from the environment, one python command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import hydra
import pytest

from hbd3lm.commands.compose import CONFIGS
from hbd3lm.commands.overrides import quote
from hbd3lm.data.records import HierarchicalExample, write_examples

REPOSITORY = Path(__file__).resolve().parents[1]
TRAIN = REPOSITORY / "scripts/train/train_gsm8k_hierarchical.sh"
SCRIPTS = sorted({*REPOSITORY.glob("*.sh"), *REPOSITORY.glob("scripts/**/*.sh")})

# A test must not depend on the SLURM job or the settings of the shell it runs in.
SETTINGS = re.findall(r'^(\w+)="\$\{\1:-', TRAIN.read_text(encoding="utf-8"), re.MULTILINE)
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if name not in (*SETTINGS, "PYTHON") and not name.startswith("SLURM_")
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shell_scripts_are_valid_bash(script):
    subprocess.run(["bash", "-n", str(script)], check=True)


TEXTS = [
    "it's here/t.json",
    'a "b"',
    "back\\slash\\",
    "\\${seed}, [1]=2",
    'two\nlines\\"',
    "-e %s é",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_scripts_quote_as_the_package_does(text):
    script = 'set -euo pipefail; source scripts/common.sh; override run_dir "$1"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", text], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == (f"run_dir={quote(text)}", "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_no_script_quotes_for_hydra_by_itself(script):
    """An apostrophe in a path ended the quotation that a script had put around it."""
    assert "='$" not in script.read_text(encoding="utf-8")


@pytest.fixture
def data_path(tmp_path) -> Path:
    """Ten tiny problems, in a folder whose name has a space."""
    path = tmp_path / "my data" / "train.json"
    examples = [
        HierarchicalExample(
            f"toy_{i}",
            f"Ann has {i} pens and buys {i}. How many pens has she?",
            "Add the given amounts.",
            f"{i}+{i} = {2 * i}\n#### {2 * i}",
            str(2 * i),
        )
        for i in range(10)
    ]
    write_examples(path, examples)
    return path


@pytest.fixture
def recorded(tmp_path, data_path):
    """Runs the training script with a Python that only notes down its arguments.

    Returns the completed process, the overrides main.py was given, and whether srun started it.
    """
    log = tmp_path / "arguments"
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        '#!/bin/bash\n[[ "$1" == -c ]] && exit\nprintf "%s\\0" "$STARTED_BY" "$@" > "$ARGUMENTS"\n',
        encoding="utf-8",
    )
    srun = tmp_path / "bin" / "srun"
    srun.write_text('#!/bin/bash\nshift\nSTARTED_BY=srun exec "$@"\n', encoding="utf-8")
    for program in (python, srun):
        program.chmod(0o755)

    def run(*extra: str, cwd: Path = REPOSITORY, **variables: str):
        environment = {
            **CLEAN,
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": str(python),
            "ARGUMENTS": str(log),
            "STARTED_BY": "bash",
            "DATA_PATH": str(data_path),
            **variables,
        }
        process = subprocess.run(
            ["bash", str(TRAIN), *extra],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
        )
        if not log.exists():
            return process, [], None
        started_by, program, *overrides = log.read_text(encoding="utf-8").split("\0")[:-1]
        assert program == "main.py"
        return process, overrides, started_by

    return run


def compose(overrides: list[str]):
    """The configuration; hydra raises for a key that does not exist."""
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("config", overrides=overrides)


def test_the_defaults_are_those_of_the_specification(recorded, data_path):
    process, overrides, started_by = recorded()
    assert process.returncode == 0, process.stderr
    assert started_by == "bash"
    cfg = compose(overrides)
    assert (cfg.mode, cfg.model.name, cfg.algo.name) == ("train", "small", "hierarchical")
    assert cfg.training.hierarchical.enabled is True
    assert cfg.hierarchical.total_len == 512
    assert (cfg.training.max_steps, cfg.training.batch_size) == (50_000, 32)
    assert (cfg.training.learning_rate, cfg.training.block_size) == (3e-4, 16)
    assert cfg.training.warmup_steps is None
    assert cfg.data.train_path == str(data_path)
    assert cfg.data.valid_path is None


def test_every_setting_can_be_given_in_the_environment(recorded, data_path):
    given = {
        "MODEL_SIZE": "tiny",
        "BATCH_SIZE": "16",
        "MAX_STEPS": "7",
        "LR": "1e-4",
        "WARMUP_STEPS": "10000",
        "BLOCK_SIZE": "8",
        "TOTAL_LEN": "384",
        "TOKENIZER": "gpt2",
        "DATA_PATH": str(data_path),
        "VALID_PATH": str(data_path),
        "DATA_DIR": str(data_path.parent),
        "RUN_DIR": "outputs/a run (1)",
        "SEED": "3",
        "ACCELERATOR": "cpu",
        "STRATEGY": "fsdp",
        "GLOBAL_BATCH_SIZE": "64",
    }
    assert set(given) == set(SETTINGS), "a setting of the script is missing here, or the reverse"
    process, overrides, _ = recorded(**given)
    assert process.returncode == 0, process.stderr
    cfg = compose(overrides)
    found = {
        "MODEL_SIZE": cfg.model.name,
        "BATCH_SIZE": cfg.training.batch_size,
        "MAX_STEPS": cfg.training.max_steps,
        "WARMUP_STEPS": cfg.training.warmup_steps,
        "BLOCK_SIZE": cfg.training.block_size,
        "TOTAL_LEN": cfg.hierarchical.total_len,
        "TOKENIZER": cfg.tokenizer.name,
        "DATA_PATH": cfg.data.train_path,
        "VALID_PATH": cfg.data.valid_path,
        "DATA_DIR": cfg.data.dir,
        "RUN_DIR": cfg.run_dir,
        "SEED": cfg.seed,
        "ACCELERATOR": cfg.trainer.accelerator,
        "STRATEGY": cfg.trainer.strategy,
        "GLOBAL_BATCH_SIZE": cfg.training.global_batch_size,
    }
    assert {name: str(value) for name, value in found.items()} == {
        name: value for name, value in given.items() if name != "LR"
    }
    assert cfg.training.learning_rate == 1e-4


@pytest.mark.parametrize("name", ["it's here", "a, [b]=${c}"])
def test_paths_may_hold_any_sign(recorded, data_path, name):
    """DATA_PATH="it's here/t.json" was an error of Hydra's grammar."""
    path = data_path.parent.parent / name / "t.json"
    path.parent.mkdir()
    shutil.copy(data_path, path)
    process, overrides, _ = recorded(
        DATA_PATH=str(path), VALID_PATH=str(path), DATA_DIR=str(path.parent), RUN_DIR=name
    )
    assert process.returncode == 0, process.stderr
    cfg = compose(overrides)
    assert (cfg.data.train_path, cfg.data.valid_path) == (str(path), str(path))
    assert (cfg.data.dir, cfg.run_dir) == (str(path.parent), name)


def test_a_path_is_meant_as_the_caller_sees_it(recorded, tmp_path, data_path):
    _, overrides, _ = recorded(cwd=tmp_path, DATA_PATH="my data/train.json", RUN_DIR="out")
    cfg = compose(overrides)
    assert (cfg.data.train_path, cfg.run_dir) == (str(data_path), str(tmp_path / "out"))
    assert cfg.data.valid_path is None


def test_further_arguments_come_last_and_win(recorded):
    _, overrides, _ = recorded("training.max_steps=9", "trainer=cpu")
    cfg = compose(overrides)
    assert cfg.training.max_steps == 9
    assert cfg.trainer.accelerator == "cpu"


def test_in_a_slurm_job_srun_starts_one_process_per_gpu(recorded):
    process, overrides, started_by = recorded(
        SLURM_JOB_ID="1",
        SLURM_SUBMIT_DIR=str(REPOSITORY),
        SLURM_NTASKS_PER_NODE="4",
        SLURM_JOB_NUM_NODES="2",
    )
    assert process.returncode == 0, process.stderr
    assert started_by == "srun"
    cfg = compose(overrides)
    assert (cfg.trainer.accelerator, cfg.trainer.devices, cfg.trainer.num_nodes) == ("gpu", 4, 2)


def test_the_job_asks_for_four_gpus_and_a_day_and_to_be_warned_and_queued_again():
    header = re.findall(r"^#SBATCH (\S+)", TRAIN.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"--gres=gpu:4", "--ntasks-per-node=4", "--time=24:00:00"} <= set(header)
    assert {"--signal=USR1@120", "--requeue", "--open-mode=append"} <= set(header)


@pytest.mark.parametrize(
    "status, state, queued_again",
    [
        (75, "RUNNING", True),
        (75, "COMPLETING", False),
        (1, "RUNNING", False),
        (0, "RUNNING", False),
    ],
    ids=["stopped by a signal", "cancelled", "failed", "finished"],
)
def test_a_job_queues_itself_again_only_if_it_was_stopped_and_not_cancelled(
    recorded, tmp_path, status, state, queued_again
):
    for name, body in (
        ("srun", f"exit {status}"),
        ("squeue", f"echo {state}"),
        ("scontrol", f'echo "$*" > {tmp_path}/scontrol'),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    process, _, _ = recorded(
        SLURM_JOB_ID="17", SLURM_SUBMIT_DIR=str(REPOSITORY), SLURM_NTASKS_PER_NODE="4"
    )
    assert process.returncode == status
    assert (tmp_path / "scontrol").exists() == queued_again
    if queued_again:
        assert (tmp_path / "scontrol").read_text() == "requeue 17\n"


def test_a_job_submitted_elsewhere_says_where_to_submit_it(recorded, tmp_path):
    process, _, started_by = recorded(SLURM_JOB_ID="1", SLURM_SUBMIT_DIR=str(tmp_path))
    assert process.returncode == 1
    assert f"{tmp_path} is not the repository" in process.stderr
    assert started_by is None


def test_without_a_data_file_it_prints_the_command_that_writes_one(recorded):
    from hbd3lm.commands.generate_plans import build_parser

    process, _, started_by = recorded(DATA_PATH="data/none.json")
    assert process.returncode == 1
    assert started_by is None
    assert process.stderr.startswith("error: no data file data/none.json (DATA_PATH)")
    command = shlex.split(process.stderr.partition("write it with: ")[2])
    assert (REPOSITORY / command[1]).is_file()
    args = build_parser().parse_args(command[2:])
    assert str(args.output_path) == "data/none.json"


def test_without_the_package_it_says_how_to_install_it(recorded, tmp_path):
    bare = tmp_path / "bare"
    bare.write_text("#!/bin/bash\nexit 1\n", encoding="utf-8")
    bare.chmod(0o755)
    process, _, _ = recorded(PYTHON=str(bare))
    assert process.returncode == 1
    assert "cannot import hbd3lm; run 'make setup'" in process.stderr


def test_two_steps_of_a_nano_model_leave_checkpoints(tmp_path, data_path):
    run_dir = tmp_path / "a run"
    process = subprocess.run(
        ["bash", str(TRAIN), "trainer=cpu", "trainer.progress_bar=false", "trainer.loggers=[csv]",
         "model.n_layers=1", "training.valid_samples=1"],
        cwd=tmp_path,
        env={
            **CLEAN,
            "OMP_NUM_THREADS": "1",
            "PYTHON": sys.executable,
            "DATA_PATH": str(data_path),
            "RUN_DIR": str(run_dir),
            "MODEL_SIZE": "nano",
            "MAX_STEPS": "2",
            "BATCH_SIZE": "2",
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert (run_dir / "checkpoints" / "last.ckpt").is_file()
    assert json.loads((run_dir / "train_summary.json").read_text())["steps"] == 2
