"""Killed at any moment, or asked to stop: the run goes on as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hbd3lm.model.checkpoint import read_checkpoint
from hbd3lm.report.loss_figure import read_metrics
from hbd3lm.train import module as training_module
from hbd3lm.train.checkpoints import find_checkpoint
from hbd3lm.train.preemption import EXIT_STATUS, Preempted, StopSignals
from tests.train.test_checkpoints import assert_same_run
from tests.train.test_training import run

REPOSITORY = Path(__file__).parents[2]
EVERY = 3
SETTINGS = {
    "max_steps": 30, "checkpoint_every": EVERY, "valid_every": 6, "dropout": 0.2,
    "accumulate": 2, "batch_size": 3,
}  # fmt: skip

SITTINGS = """
# Sittings of one run. Forks from a process that has imported everything but computed nothing: a
# sitting then takes a second, and dies without a chance to clean up.
import os, sys, traceback
from pathlib import Path
import torch
from tests.train import test_interruptions as here
torch.set_num_threads(1)
for line in sys.stdin:  # a folder and, if it is to end before, how and where
    folder, _, moment = line.strip().partition(" ")
    child = os.fork()
    if not child:
        status = 99
        try:
            sys.stdout = open(os.devnull, "w")
            status = here.sit(Path(folder), moment)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    print("process", child, flush=True)
    _, status = os.waitpid(child, 0)
    print("exit", os.waitstatus_to_exitcode(status), flush=True)
"""


def signal_at(step: int, micro: int, number: int) -> None:
    """Have this process signalled in a micro-batch of an optimiser step, counted from 0."""
    original = training_module.TrainingModule.training_step

    def training_step(self, batch, batch_idx):
        if (self.trainer.global_step, batch_idx % SETTINGS["accumulate"]) == (step, micro):
            os.kill(os.getpid(), number)
        return original(self, batch, batch_idx)

    training_module.TrainingModule.training_step = training_step


def sit(folder: Path, moment: str) -> int:
    """One sitting, in a process of its own; notes each optimiser step that it begins."""
    original = training_module.TrainingModule.on_train_batch_start
    notes = folder.with_suffix(".steps")

    def note(text) -> None:
        with notes.open("a") as file:
            file.write(f"{text}\n")

    def on_train_batch_start(self, batch, batch_idx):
        note(self.trainer.global_step)
        time.sleep(0.02 if moment == "slow" else 0)  # so that who wants to kill it has the time
        original(self, batch, batch_idx)

    training_module.TrainingModule.on_train_batch_start = on_train_batch_start
    if moment.startswith("signal"):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
        signal_at(*map(int, moment.split()[1:]))
    elif moment not in ("", "slow"):
        die_when(*moment.split())
    try:
        run(folder, **SETTINGS)
    except Preempted as stop:
        note(f"stopped {stop.step}")
        return EXIT_STATUS
    except KeyboardInterrupt:
        return 130
    return 0


def die_when(function: str, call: str) -> None:
    """Kill this process when it calls an operation on files for the so-manieth time."""
    original, calls = getattr(os, function), []

    def deadly(*arguments, **options):
        calls.append(arguments)
        if len(calls) == int(call):
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)

    setattr(os, function, deadly)


class Sittings:
    """The process that forks them."""

    def __init__(self) -> None:
        self.running: int | None = None
        self.server = subprocess.Popen(
            [sys.executable, "-c", SITTINGS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )

    def start(self, folder: Path, moment: str = "") -> None:
        folder.with_suffix(".steps").unlink(missing_ok=True)
        if self.running is not None:  # a test failed in the middle
            self.kill()
            self.wait()
        self.server.stdin.write(f"{folder} {moment}\n")
        self.server.stdin.flush()
        self.running = self._answer("process")

    def wait(self) -> int:
        """The exit status; negative: the signal that killed it."""
        status = self._answer("exit")
        self.running = None
        return status

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(self.running, number)

    def _answer(self, kind: str) -> int:
        found, number = self.server.stdout.readline().split()
        assert found == kind  # a status taken for a process would be a signal to a stranger
        return int(number)


@pytest.fixture(scope="module")
def sittings():
    sittings = Sittings()
    yield sittings
    sittings.server.stdin.close()
    sittings.server.wait(30)


@pytest.fixture(scope="module")
def whole(sittings, tmp_path_factory) -> Path:
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    sittings.start(folder)
    assert sittings.wait() == 0
    return folder


def steps_begun(folder: Path) -> list[int]:
    """Optimiser steps the last sitting began, counted from 0."""
    notes = folder.with_suffix(".steps")
    notes = notes.read_text().splitlines() if notes.exists() else []
    return [int(line) for line in notes if line.isdigit()]


def wait_for_steps(folder: Path, count: int, seconds: float = 60) -> None:
    """Until the sitting that was just started has begun so many steps (or has ended)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = steps_begun(folder)
        if len(begun) // SETTINGS["accumulate"] >= count or 29 in begun:
            return
        time.sleep(0.002)
    raise TimeoutError(folder)


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments_a_run_repeats_the_uninterrupted_one_to_the_bit(
    sittings, whole, tmp_path, seed
):
    """Weights, optimiser, average, data order, noise, dropout, logs. Nothing lost but the steps
    since the last checkpoint."""
    folder, dice = tmp_path / "run", random.Random(seed)
    kills = 0
    while True:
        sittings.start(folder, "slow" if kills < 5 else "")
        if kills < 5:
            wait_for_steps(folder, dice.randint(0, 6))
            time.sleep(dice.uniform(0, 0.05))
            sittings.kill()
        status = sittings.wait()
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
        found = find_checkpoint(folder / "checkpoints")
        begun = max(steps_begun(folder), default=0)
        assert (found.step if found else 0) >= begun // EVERY * EVERY
        assert not found or not found.damaged
    assert kills >= 3, "too few for the test to mean anything"
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    "moment",
    ["fsync 2", "link 1", "replace 2", "replace 3", "replace 4", "replace 5", "unlink 1"],
)
def test_killed_in_the_middle_of_saving_a_run_has_a_whole_checkpoint(
    sittings, whole, tmp_path, moment
):
    """Each file operation of the first saves in turn: a half-written file is never believed."""
    folder = tmp_path / "run"
    sittings.start(folder, moment)
    assert sittings.wait() == -signal.SIGKILL
    begun = max(steps_begun(folder))
    found = find_checkpoint(folder / "checkpoints")
    assert (found.step if found else 0) >= begun // EVERY * EVERY
    sittings.start(folder)
    assert sittings.wait() == 0
    assert_same_run(folder, whole)
    assert not list(folder.glob("checkpoints/.*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_asked_to_stop_a_run_saves_after_the_step_it_is_in(sittings, whole, tmp_path, number):
    folder, dice = tmp_path / "run", random.Random(int(number))
    for step in (dice.randint(0, 10), 11, dice.randint(12, 28)):  # after 11 a validation is due
        sittings.start(folder, f"signal {step} {dice.randint(0, 1)} {int(number)}")
        assert sittings.wait() == EXIT_STATUS
        *_, stopped = folder.with_suffix(".steps").read_text().split()
        assert int(stopped) == step + 1 == max(steps_begun(folder)) + 1
        saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")[1]
        assert saved["global_step"] == step + 1
    sittings.start(folder)
    assert sittings.wait() == 0
    assert_same_run(folder, whole)


def test_ctrl_c_ends_a_run_at_once_and_the_steps_since_the_checkpoint_are_done_again(
    sittings, whole, tmp_path
):
    folder = tmp_path / "run"
    sittings.start(folder, f"signal 7 1 {int(signal.SIGINT)}")
    assert sittings.wait() == 130
    assert find_checkpoint(folder / "checkpoints").step == 6
    sittings.start(folder)
    assert sittings.wait() == 0
    assert min(steps_begun(folder)) == 6
    assert_same_run(folder, whole)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(self, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(training_module.TrainingModule, "training_step", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", max_steps=2)
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning has it ignored
    assert capsys.readouterr().err == (
        "warning: training was interrupted at step 0; no checkpoint was due before. Run the same "
        "command again to go on\n"
    )


def test_signals_have_their_old_meaning_after_training(tmp_path):
    before = [signal.getsignal(number) for number in StopSignals.SIGNALS]
    run(tmp_path / "run", max_steps=1)
    assert [signal.getsignal(number) for number in StopSignals.SIGNALS] == before


def test_the_log_of_an_interrupted_run_is_one_file_without_gaps(whole):
    assert [path.name for path in (whole / "logs").iterdir()] == ["metrics.csv"]
    metrics = read_metrics(whole / "logs")
    assert [step for step, _ in metrics["train/loss"]] == list(range(30))
    assert len(metrics["valid/nelbo"]) == 5


@pytest.mark.slow
def test_the_program_ends_with_its_own_status_and_says_how_to_go_on(tmp_path):
    """``main.py`` itself, with workers that prepare batches."""
    command = [
        sys.executable, "main.py", "mode=train", "model=nano", "model.n_layers=1", "model.dim=32",
        "model.n_heads=2", "data=embedded", "data.num_train=12", "trainer=cpu",
        "trainer.progress_bar=false", "trainer.num_workers=1", "training.batch_size=2",
        "training.valid_samples=1", "training.log_every=1", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [*command, "training.max_steps=100000"], cwd=REPOSITORY, stdout=log, stderr=log,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )  # fmt: skip
    while "step 1/100000" not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)  # workers and all, as a scheduler would
    assert process.wait(60) == EXIT_STATUS, (tmp_path / "log").read_text()
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    step = read_checkpoint(last)[1]["global_step"]
    text = (tmp_path / "log").read_text()
    assert (
        f"stopped after step {step} of 100000, as asked by a signal, and saved to {last.parent}"
        in text
    )
    assert "The same command goes on from there (exit status 75)" in text
    assert "Traceback" not in text
