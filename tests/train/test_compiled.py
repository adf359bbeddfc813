"""The compiled training step: compiled once, equal to the plain one, and interruptible as ever."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.model.static import count_tokens
from hbd3lm.train import compiled
from hbd3lm.train.config import TrainerConfig, TrainingConfig
from hbd3lm.train.data import TrainingBatches
from tests.toys import MASK, random_documents, toy_net
from tests.train.test_training import (
    LAYOUT,
    QUIET,
    Interrupted,
    assert_same_weights,
    interrupt_at,
    run,
)

COMPILED = replace(QUIET, compile=True)


pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize(
    ("modules", "again"),
    [("shared", "none"), ("separate", "none"), ("shared", "mlp"), ("separate", "block")],
)
def test_a_compiled_step_is_compiled_once_and_equals_the_bucketed_step(modules, again):
    """Batches of unlike documents; loss and gradient of each as computed row by row, uncompiled."""
    documents = random_documents(LAYOUT, 30)
    config = TrainingConfig(batch_size=6, batching="pack", max_steps=100)
    objective = BlockDiffusion(LAYOUT, MASK, modules)
    batches = TrainingBatches(documents, objective, config, 0)
    net = toy_net(modules=modules).double()
    net.activation_checkpoint = again
    losses = compiled.compile_losses(config, COMPILED)
    totals = set()

    def with_gradient(compute, batch):
        net.zero_grad()
        found = compute(net, batch)
        found.sum().backward()
        return found.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])

    for index in range(12):
        chosen, noises = batches._step(index)
        packed = batches[index].batch
        plain = objective.assemble([documents[i] for i in chosen], noises)
        totals.add(sum(count_tokens(plain)))
        # Warm after the first.
        with torch._dynamo.config.patch(error_on_recompile=index > 0):
            got = with_gradient(losses, packed)
        expected = with_gradient(negative_log_likelihood, plain)
        for a, b in zip(got, expected):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert len(totals) > 3, "the batches were all alike anyway"
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


def test_an_interrupted_compiled_run_repeats_the_uninterrupted_one(tmp_path, monkeypatch):
    changes = {"batching": "pack", "trainer": COMPILED, "max_steps": 6}
    run(tmp_path / "whole", **changes)
    assert counters["stats"]["unique_graphs"] >= 1
    interrupt_at(monkeypatch, 5)
    with pytest.raises(Interrupted):
        run(tmp_path / "broken", **changes)
    monkeypatch.undo()
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    assert run(tmp_path / "broken", **changes)["resumed_from"]
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    run(tmp_path / "plain", **changes | {"trainer": QUIET})
    assert_same_weights(tmp_path / "whole", tmp_path / "plain", tolerance=1e-5)


def test_packed_batches_have_one_shape_and_all_documents_of_the_step():
    """Whoever shares the step: processes and micro-batches divide the same documents."""
    documents = random_documents(LAYOUT, 40, seed=3)
    objective = BlockDiffusion(LAYOUT, MASK)

    def batches(batch_size, accumulate, world):
        config = TrainingConfig(
            batch_size=batch_size, accumulate=accumulate, batching="pack", max_steps=40
        )
        return [
            TrainingBatches(documents, objective, config, 0, rank, world) for rank in range(world)
        ]

    (alone,) = batches(8, 1, 1)
    shapes = {
        (p.clean.ids.shape, p.noisy.ids.shape, p.prediction.places.shape)
        for p in (alone[i].batch.parts[0] for i in range(40))
    }
    assert len(shapes) == 1
    for step in range(3):
        whole = alone[step]
        shares = [b[2 * step + m] for b in batches(2, 2, 2) for m in range(2)]
        assert {share.denominator for share in shares} == {whole.denominator}
        tokens = np.sort(np.concatenate([s.batch.real_tokens.numpy() for s in shares]), 0)
        assert (tokens == np.sort(whole.batch.real_tokens.numpy(), 0)).all()
        sums = [int((s.batch.parts[0].prediction.weight > 0).sum()) for s in shares]
        assert sum(sums) == int((whole.batch.parts[0].prediction.weight > 0).sum())


@pytest.mark.parametrize(
    "training, trainer, message",
    [
        ({}, {}, r"batches of one shape: set training\.batching=pack"),
        ({"batching": "pack"}, {"strategy": "fsdp"}, r"does not go with trainer\.strategy=fsdp"),
    ],
)
def test_compilation_that_cannot_be_is_refused_by_name(training, trainer, message):
    with pytest.raises(UserError, match=message):
        compiled.compile_losses(TrainingConfig(**training), TrainerConfig(compile=True, **trainer))


def test_a_mode_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"trainer\.compile_mode=fast: choose one of default"):
        TrainerConfig(compile_mode="fast")
    with pytest.raises(UserError, match=r"training\.pack_len belongs to training\.batching=pack"):
        TrainingConfig(pack_len=512)
