"""Two processes train as one: the same losses, the same data, one log, one set of checkpoints."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hbd3lm.diffusion.likelihood import EvaluationBatches
from hbd3lm.diffusion.objective import BlockDiffusion
from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import load_network
from hbd3lm.report.loss_figure import read_metrics
from hbd3lm.train import checkpoints
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.data import EvenBatches
from hbd3lm.train.module import TrainingModule
from hbd3lm.train.preemption import Preempted, leave_processes
from tests.slurm import free_port
from tests.toys import MASK, random_documents
from tests.train.test_checkpoints import assert_same_run
from tests.train.test_training import (
    LAYOUT,
    QUIET,
    Interrupted,
    assert_same_weights,
    final_state,
    interrupt_at,
    run,
)

STRATEGIES = ("ddp", "fsdp")
SETTINGS = {"max_steps": 6, "valid_every": 3, "checkpoint_every": 2}
FROZEN = {"valid_every": 3, "modules": "separate", "freeze": "plan", "lr_schedule": "constant",
          "warmup_steps": 0, "weight_decay": 0.1}  # fmt: skip


def of_two(folder: Path) -> None:
    """What each of two processes does: tasks of a job, each alone on its node."""
    torch.set_num_threads(1)
    rank = int(os.environ["SLURM_PROCID"])
    for strategy in STRATEGIES:
        again = "mlp" if strategy == "fsdp" else "none"  # the same, whatever is kept
        trainer = replace(
            QUIET, devices=1, num_nodes=2, strategy=strategy, activation_checkpoint=again
        )
        settings = {**SETTINGS, "trainer": trainer, "batch_size": 2, "global_batch_size": 8}
        run(folder / strategy, **settings)

        original = TrainingModule.training_step

        def training_step(self, batch, batch_idx, original=original):
            if rank == 1 and self.trainer.global_step == 3:
                os.kill(os.getpid(), signal.SIGUSR1)  # one of them is told, both stop
            return original(self, batch, batch_idx)

        TrainingModule.training_step = training_step
        try:
            run(folder / f"{strategy}-stopped", **settings)
        except Preempted as stop:
            assert stop.step == 4
        else:
            raise AssertionError("nobody stopped")
        TrainingModule.training_step = original
        run(folder / f"{strategy}-stopped", **settings)
        for steps in (2, 4):  # the second time it goes on
            frozen = {**settings, **FROZEN, "max_steps": steps, "init_from": f"{folder}/source"}
            run(folder / f"{strategy}-frozen", **frozen)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints.write_checkpoint = full
    try:
        run(folder / "full", **settings)
    except UserError as error:
        assert "No space left on device" in str(error)
    else:
        raise AssertionError("a checkpoint was lost in silence")
    leave_processes()


@pytest.fixture(scope="module")
def trained(one_thread, tmp_path_factory) -> Path:
    """Runs of two processes, one folder each, and ``one`` of a single process."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
        # What srun tells the tasks of a job on two nodes, but for where to meet.
        "SLURM_JOB_NAME": "test",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    run(folder / "source", modules="separate", max_steps=2, valid_every=2)
    code = f"from tests.train import test_processes as t; t.of_two(t.Path({str(folder)!r}))"
    both = []
    for rank in ("0", "1"):
        with open(folder / f"rank{rank}", "w") as output:
            both.append(
                subprocess.Popen(
                    [sys.executable, "-c", code],
                    env=environment | {"SLURM_PROCID": rank, "SLURM_NODEID": rank},
                    stdout=output,
                    stderr=output,
                )
            )
    try:
        for rank, process in enumerate(both):
            assert process.wait(180) == 0, (folder / f"rank{rank}").read_text()
    finally:
        for process in both:
            process.kill()
            process.wait()
    run(folder / "one", **SETTINGS, batch_size=8)
    frozen = {**FROZEN, "max_steps": 4, "init_from": f"{folder}/source"}
    run(folder / "one-frozen", **frozen, batch_size=8)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_take_the_steps_of_one_with_the_same_global_batch(trained, strategy):
    """With accumulation, averages and clipping; validation documents that do not divide by two."""
    assert_same_weights(trained / "one", trained / strategy, tolerance=1e-5)
    one, two = (read_metrics(trained / name / "logs") for name in ("one", strategy))
    assert one.keys() == two.keys()
    of_the_first_process = {"train/padding_share", "train/head_padding_share"}
    for name in one.keys() - of_the_first_process:
        assert [step for step, _ in one[name]] == [step for step, _ in two[name]], name
        np.testing.assert_allclose(
            [value for _, value in one[name]], [value for _, value in two[name]], rtol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_stop_together_and_go_on_to_the_bit(trained, strategy):
    assert_same_run(trained / strategy, trained / f"{strategy}-stopped")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_keep_a_frozen_module_to_the_bit_and_train_the_other_as_one(
    trained, strategy
):
    assert_same_weights(trained / "one-frozen", trained / f"{strategy}-frozen", tolerance=1e-5)
    before = load_network(trained / "source/checkpoints/best.ckpt")[0].stacks["plan"]
    state = final_state(trained / f"{strategy}-frozen")
    for key in ("state_dict", "current_model_state"):
        for name, tensor in before.state_dict().items():
            assert torch.equal(state[key][f"net.stacks.plan.{name}"], tensor)


@pytest.mark.slow
def test_a_sharded_run_leaves_an_ordinary_network(trained):
    nets = [load_network(trained / name / "checkpoints/best.ckpt")[0] for name in ("one", "fsdp")]
    for one, two in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_only_the_first_process_speaks(trained):
    assert "step 6/6" in (trained / "rank0").read_text()
    assert "step" not in (trained / "rank1").read_text()


@pytest.mark.slow
def test_a_sharded_run_is_not_continued_unsharded(trained):
    with pytest.raises(UserError, match=r"trainer\.strategy: fsdp != auto"):
        run(trained / "fsdp", **SETTINGS, batch_size=8)


@pytest.mark.parametrize("processes", [1, 2, 3, 4])
def test_validation_batches_reach_every_process_alike_and_count_once(processes):
    documents = random_documents(LAYOUT, 5)
    batches = EvaluationBatches(documents, BlockDiffusion(LAYOUT, MASK), 3, 4, seed=0)
    even = EvenBatches(batches, processes)
    assert len(even) % processes == 0
    assert len(even) < len(batches) + processes
    weight = np.zeros(len(documents))
    for index in range(len(even)):
        _, documents_of, shares = even[index]
        np.add.at(weight, documents_of, shares)
    np.testing.assert_allclose(weight, 1.0)


@pytest.mark.parametrize(
    "settings, processes, accumulate",
    [
        ({"batch_size": 32}, 4, 1),
        ({"batch_size": 32, "accumulate": 2}, 4, 2),
        ({"batch_size": 32, "global_batch_size": 256}, 4, 2),
        ({"batch_size": 32, "global_batch_size": 256}, 1, 8),
        ({"batch_size": 32, "global_batch_size": 256, "accumulate": 8}, 1, 8),
    ],
)
def test_the_global_batch_decides_the_accumulation(settings, processes, accumulate):
    assert TrainingConfig(**settings).for_processes(processes).accumulate == accumulate


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"batch_size": 32, "global_batch_size": 96},
         r"global_batch_size=96 is no multiple of .* 2 process\(es\) = 64; .*batch_size=24$"),
        ({"batch_size": 32, "global_batch_size": 7}, r"a multiple of the number of processes, 2$"),
        ({"batch_size": 8, "global_batch_size": 64, "accumulate": 2},
         r"global_batch_size=64 contradicts training\.accumulate=2 with .* = 16; leave out one"),
    ],
)  # fmt: skip
def test_a_global_batch_that_does_not_come_out_even_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**settings).for_processes(2)


def test_a_run_goes_on_with_another_split_of_the_same_global_batch(tmp_path, monkeypatch):
    """As when a job gets fewer GPUs the second time: four at once, two and two, one by one."""
    settings = {"max_steps": 10, "checkpoint_every": 3, "valid_every": 5, "log_every": 2}
    run(tmp_path / "whole", **settings, batch_size=4)
    for step, split in (
        (4, {"batch_size": 4}),
        (8, {"batch_size": 2, "accumulate": 2}),
        (None, {"batch_size": 1, "global_batch_size": 4}),
    ):
        with monkeypatch.context() as patch:
            if step is None:
                summary = run(tmp_path / "split", **settings, **split)
                continue
            interrupt_at(patch, step)
            with pytest.raises(Interrupted):
                run(tmp_path / "split", **settings, **split)
    assert summary["steps"] == 10
    assert_same_weights(tmp_path / "whole", tmp_path / "split", tolerance=1e-5)
    one, two = (read_metrics(tmp_path / name / "logs") for name in ("whole", "split"))
    for name in ("train/loss", "train/grad_norm", "valid/nelbo"):
        assert [step for step, _ in one[name]] == [step for step, _ in two[name]]
        np.testing.assert_allclose(
            [value for _, value in one[name]], [value for _, value in two[name]], rtol=1e-4
        )
