"""``main.py`` as a program: its help, what it loads, and processes it starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time

import pytest
from omegaconf import OmegaConf

from hbd3lm.commands import run
from tests.commands.runs import STEPS, TINY, compose, main
from tests.conftest import REPOSITORY


def start(*arguments: str) -> tuple[subprocess.CompletedProcess, float]:
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), *arguments],
        capture_output=True, text=True, timeout=600, cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return result, time.perf_counter() - started


WITHOUT_TORCH = """
import sys
sys.argv = ["main.py", {argument!r}]
from hbd3lm.commands.run import main
status = 0
try:
    main()
except SystemExit as stop:
    status = stop.code
heavy = {{"torch", "lightning", "transformers", "matplotlib", "datasets"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""


@pytest.mark.parametrize("argument, status", [("--help", 0), ("training.max_step=5", 1)])
def test_help_and_refusals_load_no_heavy_library(argument, status):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(argument=argument)],
        capture_output=True, text=True, timeout=300, cwd=REPOSITORY,
    )  # fmt: skip
    assert result.returncode in (status, None), result.stderr
    expected = "model: medium, nano, pretrained, small, tiny" if status == 0 else "did you mean"
    assert expected in result.stdout + result.stderr


def test_help_names_every_key_and_its_default():
    text = run.usage()
    cfg = compose()
    for key in [*cfg, *cfg.training, *cfg.data, *cfg.model, *cfg.algo, *cfg.trainer, *cfg.eval]:
        assert key in ("hydra",) or re.search(rf"^ *{key}:", text, re.M), key
    assert re.search(r"^  max_steps: 50000 +# raise it", text, re.M)


@pytest.mark.parametrize("arguments", [["--help"], ["mode=train", "-h"]])
def test_help_is_ours_and_hydras_flags_stay(arguments, capsys, monkeypatch):
    monkeypatch.setattr(run, "_hydra_main", lambda: print("hydra"))
    assert main(*arguments) == 0
    assert "usage: python main.py KEY=VALUE" in capsys.readouterr().out
    assert main("--hydra-help") == 0
    assert capsys.readouterr().out == "hydra\n"


def test_help_is_quick_and_shows_the_groups():
    result, seconds = start("--help")
    assert result.returncode == 0
    assert "algo: ar, flat, hierarchical, mdlm" in result.stdout
    assert seconds < 10  # about one on an idle machine; no torch, see above


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True], ids=["", "saved-before-names-were-settled"])
def test_a_run_goes_on_under_the_other_name_of_a_setting(older, home, tmp_path, monkeypatch):
    words = [
        "mode=train",
        *TINY,
        *STEPS,
        f"data.train_path={home}/train.json",
        f"run_dir={tmp_path}",
    ]
    with monkeypatch.context() as patch:
        if older:
            patch.setattr(run, "settle_names", lambda cfg: None)
        assert main(*words, "training.max_steps=1", "hierarchical.question_len=48") == 0
    saved = OmegaConf.load(tmp_path / "config.yaml")
    assert saved.hierarchical.question_len == 48
    if not older:
        assert saved.training.hierarchical == saved.hierarchical
    assert main(*words, "training.max_steps=2", "training.hierarchical.question_len=48") == 0
    assert json.loads((tmp_path / "train_summary.json").read_text())["steps"] == 2


def test_two_processes_started_by_main_train_one_run(home, tmp_path):
    result, _ = start(
        "mode=train", *TINY, *STEPS, "trainer.devices=2", "trainer.strategy=ddp",
        "training.batch_size=2", "training.max_steps=2",
        f"data.train_path={home}/train.json", f"run_dir={tmp_path}/two",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "two" / "train_summary.json").read_text())["steps"] == 2
    assert result.stdout.count("next: python main.py") == 1
