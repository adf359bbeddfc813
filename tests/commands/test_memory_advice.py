"""Running out of memory: what counts as it, what is advised, and a process that really does."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hbd3lm.commands import memory_advice
from hbd3lm.commands.memory_advice import (
    TrainingNeeds,
    advise,
    explain_evaluation,
    is_out_of_memory,
    largest_batch,
    named_models,
)
from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import build_document, plan_execution_layout
from hbd3lm.model.memory import GIB, BatchShape
from hbd3lm.train.config import TrainerConfig

REPOSITORY = Path(__file__).parents[2]
ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError(ALLOCATOR), True),
        (RuntimeError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_running_out_of_memory_looks_like(error, expected):
    assert is_out_of_memory(error) is expected


TINY = ModelConfig(4101, 256, 8, 8)


def needs() -> TrainingNeeds:
    """``small``, 32 problems of full length."""
    models = named_models(TINY)
    return TrainingNeeds(
        models["small"], BatchShape(32, 496, 384, 6144), 512, 384, {"device": "cpu"}
    )


@pytest.mark.parametrize("device, available", [("cuda", 0.7), ("cpu", 1.4)])
def test_each_of_the_three_settings_is_advised_with_a_value_that_fits(device, available):
    """On the CPU twice the estimate must fit: so much a long run comes to hold."""
    some = replace(needs(), options={"device": device})
    total = some.estimate().total
    advice = advise(some, int(total * available), named_models(TINY))
    *three, last = advice
    assert [line.split("=")[0] for line in three] == ["BATCH_SIZE", "MODEL_SIZE", "TOTAL_LEN"]
    assert last.startswith("or compute again what is kept: trainer.activation_checkpoint=block (")
    assert advice[0].startswith(
        "BATCH_SIZE=16, which is training.batch_size=16; training.accumulate=2 keeps the step"
    )
    assert advice[1].startswith("MODEL_SIZE=tiny, which is model=tiny (")
    assert advice[2].startswith("TOTAL_LEN=256, which is training.hierarchical.total_len=256 (")
    assert not any("not enough" in line for line in advice)


def test_a_setting_that_does_not_suffice_alone_says_so():
    some = needs()
    advice = advise(some, GIB, named_models(TINY))
    assert advice[0].startswith("BATCH_SIZE=1,") and "not enough alone" in advice[0]
    assert advice[1].startswith("MODEL_SIZE=nano") and "not enough alone" in advice[1]
    assert advice[2].startswith("TOTAL_LEN=128") and "not enough alone" in advice[2]


def test_keeping_less_is_advised_until_there_is_nothing_left_to_drop():
    def last(kept: str) -> str:
        options = {"device": "cpu", "activation_checkpoint": kept}
        return advise(replace(needs(), options=options), 10**15, named_models(TINY))[-1]

    assert "trainer.activation_checkpoint=mlp (" in last("none")
    assert "trainer.activation_checkpoint=block (" in last("mlp")
    assert last("block").startswith("TOTAL_LEN=")


def test_an_estimate_that_fits_still_advises_one_notch_less():
    """Something else may hold the memory, and it did run out."""
    advice = advise(needs(), 10**15, named_models(TINY))
    assert advice[0].startswith("BATCH_SIZE=16") and advice[1].startswith("MODEL_SIZE=tiny")


def test_shorter_caps_are_not_advised_where_no_problem_reaches_them():
    some = replace(needs(), shape=BatchShape(32, 100, 80, 1200))
    assert not any("TOTAL_LEN" in line for line in advise(some, GIB, named_models(TINY)))


def test_the_largest_batch_is_that_of_the_longest_problems():
    layout = plan_execution_layout(8, 8, 8, 4, 4)
    documents = [
        build_document([1] * n, {"plan": [2] * 4, "execution": [3] * m}, layout, 7)
        for n, m in ((2, 4), (8, 4), (3, 8))
    ]
    # Lengths 10, 16, 15; targets 8, 8, 12; the last block has no clean copy.
    assert largest_batch(documents, 2, layout, False, 0.5) == BatchShape(2, 12, 12, 10)
    assert largest_batch(documents, 2, layout, True, 0.5) == BatchShape(2, 15, 0, 20)


def test_an_evaluation_that_runs_out_names_the_batch_size_that_counts(monkeypatch):
    monkeypatch.setattr(memory_advice, "device_memory", lambda device: 2 * GIB)
    layout = plan_execution_layout()
    for key, named in (("training.batch_size", "BATCH_SIZE, here "), ("sampling.batch_size", "")):
        with (
            pytest.raises(UserError) as error,
            explain_evaluation(TINY, layout, key, 64, "cpu"),
        ):
            raise RuntimeError(ALLOCATOR)
        message = str(error.value)
        assert message.startswith(
            "out of memory while evaluating (can't allocate memory: you tried to allocate 4096"
        )
        assert f"lower {named}{key}=" in message and "2.00 GiB" in message
    with (
        pytest.raises(UserError, match="one problem at a time is too much"),
        explain_evaluation(TINY, layout, "sampling.batch_size", 1, "cpu"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with (
        pytest.raises(ValueError, match="a bug"),
        explain_evaluation(TINY, layout, "sampling.batch_size", 1, "cpu"),
    ):
        raise ValueError("a bug")


SQUEEZED = """
import resource, sys, torch
from hbd3lm.commands import run
torch.set_num_threads(1)
run_training = run.train
def train(cfg):
    # Everything is imported by then; what the limit leaves is for tensors.
    import lightning, hbd3lm.train.run
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, used + 300 * 2**20))
    return run_training(cfg)
run.train = train
sys.argv[0] = "main.py"
run.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to measure itself")
def test_a_process_that_really_runs_out_ends_with_one_message(tmp_path):
    """RLIMIT_AS leaves 300 MiB for a step that is estimated at gigabytes."""
    result = subprocess.run(
        [
            sys.executable, "-c", SQUEEZED, "mode=train", "model=tiny", "data=embedded",
            "data.num_train=40", "training.max_steps=1", "training.batch_size=128",
            "trainer=cpu", "trainer.precision=32-true", "trainer.loggers=[csv]",
            f"run_dir={tmp_path}/run",
        ],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 1, result.stderr
    error = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "Traceback" not in result.stderr
    assert "out of memory while training (can't allocate memory" in error[0]
    assert "BATCH_SIZE=" in error[0] and "is estimated at" in error[0]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_limit_of_this_process_counts_as_its_memory(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (123 * 2**20, -1))
    assert memory_advice.device_memory("cpu") == 123 * 2**20


@pytest.mark.parametrize(
    "devices, nodes, device, expected",
    [
        ("auto", 1, "cpu", 1), ("auto", 2, "cuda", 8), ("-1", 1, "cuda", 4), (3, 2, "cpu", 6),
        ("3", 1, "cuda", 3), ("0,1", 1, "cuda", 2), ("[0,2,3]", 1, "cuda", 3), ("1,", 1, "cuda", 1),
    ],
)  # fmt: skip
def test_processes_are_counted_as_lightning_reads_the_devices(
    monkeypatch, devices, nodes, device, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    trainer = TrainerConfig(devices=devices, num_nodes=nodes)
    assert memory_advice.count_processes(trainer, device) == expected
