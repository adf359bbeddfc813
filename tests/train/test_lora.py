"""Low-rank adapters: what they train, what a checkpoint of them gives, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.model.adapters import merge_adapters
from hbd3lm.model.checkpoint import load_network, read_checkpoint
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.memory import BatchShape, estimate_training
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.config import LoraConfig, TrainerConfig, TrainingConfig, check_strategy
from hbd3lm.train.lora import attach, trained_share
from hbd3lm.train.optim import make_optimizer
from tests.toys import MASK, VOCABULARY, random_documents, toy_net
from tests.train.test_training import (
    LAYOUT,
    Interrupted,
    assert_same_weights,
    interrupt_at,
    run,
)

NEW = 5
"""Rows of the special tokens, the last ones."""


@pytest.fixture
def peft():
    return pytest.importorskip("peft", reason="pip install 'hbd3lm[lora]'")


@pytest.fixture(scope="module")
def sources(one_thread, tmp_path_factory) -> dict[str, Path]:
    """Finished runs to start from, by ``modules``."""
    folders = {}
    for modules in ("shared", "separate"):
        folders[modules] = tmp_path_factory.mktemp("source") / modules
        run(folders[modules], modules=modules, max_steps=4, valid_every=2)
    return folders


def fine_tune(folder: Path, sources, modules="shared", **changes) -> dict:
    lora = LoraConfig(**changes.pop("lora", {"rank": 2}))
    settings = {"max_steps": 4, "valid_every": 2} | changes
    return run(folder, modules=modules, init_from=str(sources[modules]), lora=lora, **settings)


def losses(net) -> torch.Tensor:
    objective = BlockDiffusion(LAYOUT, MASK, net.config.modules)
    documents = random_documents(LAYOUT, 4)
    noises = [objective.evaluation_noise(d, 1, np.random.default_rng(0))[0] for d in documents]
    return negative_log_likelihood(net, objective.assemble(documents, noises))


@pytest.mark.parametrize("modules", ["shared", "separate"])
@torch.no_grad()
def test_an_adapter_starts_as_nothing_and_merges_into_what_it_computes(peft, modules):
    net = toy_net(modules=modules, mlp="swiglu", n_kv_heads=1, attention_bias=True)
    before = losses(net)
    ranks = {} if modules == "shared" else {"plan_rank": 3}
    config = LoraConfig(rank=2, alpha=5.0, **ranks)
    attach(net, config, NEW)
    assert torch.equal(losses(net), before)
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            parameter.normal_()
    adapted = losses(net)
    assert not torch.allclose(adapted, before, rtol=1e-3)
    merged = Transformer(net.config)
    merged.load_state_dict(merge_adapters(net.state_dict(), config.scales(modules)))
    torch.testing.assert_close(losses(merged), adapted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_only_adapters_and_the_rows_of_special_tokens_are_trained(peft, tied, optimizer):
    net = toy_net(tie_embeddings=tied)
    attach(net, LoraConfig(rank=2), NEW)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    config = TrainingConfig(learning_rate=0.1, weight_decay=0.5, optimizer=optimizer)
    optim = make_optimizer(net, config)
    for _ in range(3):  # lora_A has a gradient once lora_B is not zero any more
        losses(net).sum().backward()
        optim.step()
        optim.zero_grad()
    tables = {"stacks.shared.embedding.weight": VOCABULARY - NEW}
    if not tied:
        tables["stacks.shared.head.weight"] = VOCABULARY - NEW
    for name, parameter in net.named_parameters():
        old = before[name]
        if name in tables:
            first = tables[name]
            assert parameter[:first].equal(old[:first])
            assert not parameter[first:-1].equal(old[first:-1])
        else:
            assert parameter.equal(old) != ("lora_" in name), name


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_a_run_keeps_what_it_starts_from_and_is_evaluated_merged(peft, modules, sources, tmp_path):
    lora = {"rank": 2} if modules == "shared" else {"plan_rank": 2, "exec_rank": 3}
    summary = fine_tune(tmp_path / "run", sources, modules, lora=lora)
    assert summary["trained_parameters"] < summary["parameters"] / 2
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    base, _ = load_network(sources[modules] / "checkpoints" / "best.ckpt")
    card, content = read_checkpoint(last)
    names = {"shared"} if modules == "shared" else {"plan", "execution"}
    assert card.adapters == dict.fromkeys(names, 2.0)
    kept = 0
    for name, tensor in content["state_dict"].items():
        if ".base_layer." in name:
            own = base.state_dict()[name.removeprefix("net.").replace(".base_layer", "")]
            assert tensor.equal(own)
            kept += 1
    assert kept == 5 * len(base.stacks) * base.config.n_layers
    # The optimiser knows of adapters and tables alone.
    trained = sum("lora_" in name or "embedding" in name for name in content["state_dict"])
    assert len(content["optimizer_states"][0]["state"]) == trained

    net, described = load_network(last)
    assert described.adapters == {}
    assert set(net.state_dict()) == set(base.state_dict())
    matrix = f"stacks.{min(names)}.blocks.0.mlp.up.weight"
    change = net.state_dict()[matrix] - base.state_dict()[matrix]
    rank = 2 if modules == "shared" else 3
    assert torch.linalg.matrix_rank(change, tol=1e-5) == rank


def test_one_module_may_have_adapters_and_the_other_train_all(peft, sources, tmp_path):
    fine_tune(tmp_path / "run", sources, "separate", lora={"plan_rank": 2})
    content = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")[1]["state_dict"]
    assert any("plan" in name and "lora_A" in name for name in content)
    assert not any("execution" in name and "lora_A" in name for name in content)
    base, _ = load_network(sources["separate"] / "checkpoints" / "best.ckpt")
    name = "stacks.execution.blocks.0.attention.wq.weight"
    assert not content[f"net.{name}"].equal(base.state_dict()[name])


def test_an_interrupted_run_with_adapters_ends_as_the_uninterrupted_one(
    peft, sources, tmp_path, monkeypatch
):
    settings = {"max_steps": 6, "checkpoint_every": 2, "lora": {"rank": 2, "dropout": 0.3}}
    fine_tune(tmp_path / "whole", sources, **settings)
    with monkeypatch.context() as patch:
        interrupt_at(patch, 4)
        with pytest.raises(Interrupted):
            fine_tune(tmp_path / "broken", sources, **settings)
    fine_tune(tmp_path / "broken", sources, **settings)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(UserError, match=r"other settings .*training\.lora"):
        fine_tune(tmp_path / "broken", sources, **(settings | {"lora": {"rank": 3}}))


def test_the_memory_estimate_counts_what_is_trained(peft):
    model = ModelConfig(VOCABULARY, 64, 2, 2)
    shape = BatchShape(2, 10, 10, 5)
    config = TrainingConfig(lora=LoraConfig(rank=2))
    net = Transformer(model)
    share = trained_share(model, config)
    attach(net, config.lora, NEW)
    learning = [p for p in net.parameters() if p.requires_grad]
    assert share == sum(p.numel() for p in learning) / Transformer(model).count_parameters()
    estimate = estimate_training(model, shape, trained=share)
    assert estimate.gradients == pytest.approx(4 * sum(p.numel() for p in learning), abs=8)
    assert estimate.optimizer == pytest.approx(2 * estimate.gradients, abs=8)
    frozen = TrainingConfig(freeze="plan")
    assert trained_share(ModelConfig(VOCABULARY, 64, 2, 2, modules="separate"), frozen) == 0.5


def test_what_contradicts_itself_is_refused(sources, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"adapters leave the weights .* are random"):
        run(tmp_path / "run", lora=LoraConfig(rank=2))
    with pytest.raises(UserError, match=r"training\.lora\.plan_rank=2 is for separate modules"):
        LoraConfig(plan_rank=2).scales("shared")
    with pytest.raises(UserError, match=r"freeze=plan contradicts .* training\.lora\.plan_rank=0"):
        TrainingConfig(freeze="plan", lora=LoraConfig(rank=4))
    TrainingConfig(freeze="plan", lora=LoraConfig(rank=4, plan_rank=0))
    with pytest.raises(UserError, match=r"training\.lora needs whole weights"):
        check_strategy(
            TrainingConfig(optimizer="adamw", lora=LoraConfig(exec_rank=4)),
            TrainerConfig(strategy="fsdp"),
        )
    for wrong, message in (
        ({"rank": -1}, "rank must not be negative"),
        ({"alpha": 0.0}, "alpha must be positive"),
        ({"dropout": 1.0}, "dropout must lie in"),
    ):
        with pytest.raises(UserError, match=rf"training\.lora\.{message}"):
            LoraConfig(**wrong)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'hbd3lm\[lora\]'"):
        attach(toy_net(), LoraConfig(rank=2), NEW)
