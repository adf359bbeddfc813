"""Schedules, parameter groups and the weight average, against values worked out by hand."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import hbd3lm
from hbd3lm.errors import UserError
from hbd3lm.train.callbacks import WarmEMA
from hbd3lm.train.config import TrainerConfig, TrainingConfig, check_strategy
from hbd3lm.train.optim import Muon, learning_rate_factor, make_optimizer
from tests.toys import toy_net


def test_the_learning_rate_warms_up_linearly_then_follows_half_a_cosine_to_a_tenth():
    config = TrainingConfig(max_steps=110, warmup_steps=10, lr_schedule="cosine")
    factor = [learning_rate_factor(step, config) for step in range(112)]
    assert factor[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factor[9] == factor[10] == 1.0
    assert factor[35] == pytest.approx(0.1 + 0.45 * (1 + math.sqrt(0.5)))  # a quarter of the way
    assert factor[60] == pytest.approx(0.55)  # half way
    assert factor[110] == factor[111] == pytest.approx(0.1)


def test_a_stable_schedule_decays_by_one_minus_root_over_the_last_share_of_the_steps():
    config = TrainingConfig(max_steps=100, warmup_steps=10, lr_schedule="wsd", decay_share=0.4)
    factor = [learning_rate_factor(step, config) for step in range(102)]
    assert factor[0] == 0.1 and factor[9:61] == [1.0] * 52
    assert factor[70] == pytest.approx(0.5)  # a quarter of the way
    assert factor[96] == pytest.approx(1 - math.sqrt(0.9))
    assert factor[100] == factor[101] == 0.0
    longer = dataclasses.replace(config, max_steps=1000)
    assert [learning_rate_factor(step, longer) for step in range(60)] == factor[:60]


def test_a_constant_schedule_stays_at_the_peak_after_the_warm_up():
    config = TrainingConfig(max_steps=100, warmup_steps=4, lr_schedule="constant")
    assert [learning_rate_factor(step, config) for step in (0, 3, 4, 50, 99)] == [
        0.25, 1.0, 1.0, 1.0, 1.0,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "max_steps, warmup, expected",
    [(50_000, None, 2_500), (1_000, None, 100), (5, None, 0), (1_000, 7, 7), (1_000, 0, 0)],
)
def test_the_default_warm_up_is_2500_steps_but_at_most_a_tenth(max_steps, warmup, expected):
    config = TrainingConfig(max_steps=max_steps, warmup_steps=warmup)
    assert config.resolved_warmup_steps == expected
    if expected == 0:
        assert learning_rate_factor(0, config) == 1.0


@pytest.mark.parametrize("tied", [True, False])
def test_only_matrices_decay_not_embeddings_norms_or_biases(tied):
    net = toy_net(attention_bias=True, mlp_bias=True, tie_embeddings=tied)
    config = TrainingConfig(
        optimizer="adamw", weight_decay=0.3, beta1=0.8, beta2=0.95, learning_rate=0.5
    )
    optimizer = make_optimizer(net, config)
    decayed, free = ({id(p) for p in group["params"]} for group in optimizer.param_groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)
    for name, parameter in net.named_parameters():
        matrix = any(part in name for part in (".wq.w", ".wkv.w", ".wo.w", ".up.w", ".down.w"))
        assert (id(parameter) in decayed) == (matrix or ".head." in name), name
        assert (id(parameter) in free) != (id(parameter) in decayed), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_weights_are_left_out_of_the_optimiser(name):
    net = toy_net(modules="separate")
    net.stacks["plan"].requires_grad_(False)
    optimizer = make_optimizer(net, TrainingConfig(optimizer=name))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in net.stacks["execution"].parameters()}


def fill_gradients(net, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest(tied):
    """Each weight moves as by the optimiser of its kind alone; Muon at five times the rate."""
    settings = {"learning_rate": 0.02, "weight_decay": 0.3, "optimizer": "muon", "muon_scale": 5}
    nets = [toy_net(tie_embeddings=tied, mlp_bias=True) for _ in range(3)]
    pair = make_optimizer(nets[0], TrainingConfig(**settings))
    adamw = make_optimizer(nets[1], TrainingConfig(**(settings | {"optimizer": "adamw"})))
    matrices = [p for n, p in nets[2].named_parameters() if p.dim() == 2 and ".blocks." in n]
    muon = Muon(matrices, lr=0.1, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(3):
        for net, optimizer in zip(nets, (pair, adamw, muon)):
            fill_gradients(net, step)
            optimizer.step()
    for (name, got), by_adamw, by_muon in zip(
        nets[0].named_parameters(), nets[1].parameters(), nets[2].parameters()
    ):
        expected = by_muon if got.dim() == 2 and ".blocks." in name else by_adamw
        assert torch.equal(got, expected), name
        if expected is by_muon:
            assert not torch.equal(by_muon, by_adamw), name


def test_the_constants_of_both_optimisers_are_the_published_ones():
    """Whatever multiplies: without bf16 in hardware Muon's own step reads only some of them."""
    pair = make_optimizer(toy_net(), TrainingConfig(optimizer="muon"))
    adamw, muon = (part.param_groups[0] for part in pair.parts)
    rate = 3e-4
    assert {name: adamw[name] for name in ("lr", "betas", "eps", "amsgrad")} == {
        "lr": rate, "betas": (0.9, 0.99), "eps": 1e-8, "amsgrad": False,
    }  # fmt: skip
    assert {name: value for name, value in muon.items() if name not in ("params", "eps")} == {
        "lr": 10 * rate,
        "weight_decay": 0.01,
        "momentum": 0.95,
        "nesterov": True,
        "ns_coefficients": (3.4445, -4.775, 2.0315),
        "ns_steps": 5,
        "adjust_lr_fn": "match_rms_adamw",
    }


def test_a_run_of_the_command_line_has_the_defaults_that_are_described_beside_the_settings():
    path = Path(hbd3lm.__file__).parent / "configs" / "config.yaml"
    written = OmegaConf.to_container(OmegaConf.load(path))["training"]
    for name, value in dataclasses.asdict(TrainingConfig()).items():
        assert written[name] == value, name


class Newton:
    """Muon as the papers write it, in float64: one matrix, step after step."""

    def __init__(self, weight: np.ndarray, rate: float, decay: float) -> None:
        self.weight, self.rate, self.decay = weight.copy(), rate, decay
        self.momentum = np.zeros_like(weight)

    def step(self, gradient: np.ndarray) -> np.ndarray:
        self.momentum = 0.95 * self.momentum + 0.05 * gradient
        x = 0.05 * gradient + 0.95 * self.momentum  # Nesterov's
        u, s, v = np.linalg.svd(x / np.linalg.norm(x), full_matrices=False)
        for _ in range(5):  # on the singular values alone
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        self.weight *= 1 - self.rate * self.decay
        self.weight -= self.rate * 0.2 * math.sqrt(max(x.shape)) * (u * s) @ v
        return self.weight


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (12, 5)])
def test_without_bf16_multipliers_muon_orthogonalises_in_float32(shape, monkeypatch):
    monkeypatch.setattr("hbd3lm.train.optim.has_bf16", lambda device: False)
    rng = np.random.default_rng(0)
    weight, *gradients = rng.normal(size=(5, *shape))
    by_hand = Newton(weight, 0.1, 0.3)
    parameter = torch.nn.Parameter(torch.tensor(weight, dtype=torch.float32))
    muon = make_muon(parameter)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        muon.step()
        expected = torch.tensor(by_hand.step(gradient), dtype=torch.float32)
        torch.testing.assert_close(parameter.data, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multiplied", [True, False])
def test_with_bf16_multipliers_muon_is_torchs_to_the_bit(multiplied, monkeypatch):
    monkeypatch.setattr("hbd3lm.train.optim.has_bf16", lambda device: multiplied)
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(8, 12)) for _ in range(2))
    steps = [make_muon(ours).step, make_muon(theirs, torch.optim.Muon).step]
    for _ in range(3):
        ours.grad = theirs.grad = torch.randn(8, 12)
        for step in steps:
            step()
    assert torch.equal(ours, theirs) is multiplied
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.02)  # of moves of 0.07 a step


def make_muon(parameter, kind=Muon):
    return kind(
        [parameter], lr=0.1, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )


def test_the_pair_of_optimisers_schedules_saves_and_loads_as_one():
    config = TrainingConfig(optimizer="muon", learning_rate=0.1, muon_scale=2)
    net, other = toy_net(), toy_net()
    optimizer = make_optimizer(net, config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for step in range(2):
        fill_gradients(net, step)
        assert optimizer.step(lambda: 7.0) == 7.0
        scheduler.step()
    rates = [{group["lr"] for group in part.param_groups} for part in optimizer.parts]
    assert rates == [{0.1 / 3}, {0.2 / 3}]
    other.load_state_dict(net.state_dict())
    loaded = make_optimizer(other, config)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its in ((net, optimizer), (other, loaded)):
        fill_gradients(one, 9)
        its.step()
    for a, b in zip(net.parameters(), other.parameters()):
        assert torch.equal(a, b)


def test_the_weight_average_warms_up_as_worked_out_by_hand():
    """Weights 1, 2, 3, 4 after the steps; decays 2/11, 3/12, then the cap 0.3."""
    callback, weight = WarmEMA(decay=0.3), torch.nn.Linear(1, 1, bias=False)
    weight.requires_grad_(False)
    module = torch.nn.Sequential(weight)
    averaged = torch.optim.swa_utils.AveragedModel(copy.deepcopy(module), **callback._kwargs)
    expected = None
    for step, decay in ((1.0, None), (2.0, 2 / 11), (3.0, 3 / 12), (4.0, 0.3)):
        weight.weight.fill_(step)
        averaged.update_parameters(module)
        expected = step if decay is None else decay * expected + (1 - decay) * step
        assert float(averaged.module[0].weight) == pytest.approx(expected)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"max_steps": 0}, r"training\.max_steps must be at least 1, got 0"),
        ({"accumulate": 0}, r"training\.accumulate must be at least 1"),
        ({"learning_rate": 0.0}, r"training\.learning_rate must be positive"),
        ({"warmup_steps": -1}, r"training\.warmup_steps must not be negative"),
        ({"ema_decay": 1.0}, r"training\.ema_decay must lie in \[0, 1\)"),
        ({"beta2": 1.5}, r"training\.beta2 must lie in \[0, 1\)"),
        ({"grad_clip": -1.0}, r"training\.grad_clip must not be negative"),
        ({"lr_schedule": "linear"}, r"training\.lr_schedule=linear: choose one of constant, cos"),
        ({"optimizer": "sgd"}, r"training\.optimizer=sgd: choose one of adamw, muon"),
        ({"muon_scale": 0.0}, r"training\.muon_scale must be positive"),
        ({"decay_share": 0.0}, r"training\.decay_share must lie in \(0, 1\]"),
        ({"gradient_draws": 1}, r"training\.gradient_draws must be 0 or at least 2"),
        ({"batching": "sorted"}, r"training\.batching=sorted: choose one of bucket, pack"),
    ],
)
def test_training_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"precision": "16-mixed"}, r"trainer\.precision=16-mixed: choose one of auto"),
        ({"activation_checkpoint": "all"}, r"trainer\.activation_checkpoint=all: choose one of"),
        ({"loggers": ("excel",)}, r"trainer\.loggers: excel: choose from csv"),
    ],
)
def test_trainer_settings_out_of_range_are_refused_by_name(changes, message):
    with pytest.raises(UserError, match=message):
        TrainerConfig(**changes)


def test_what_needs_whole_weights_is_refused_where_they_are_divided():
    fsdp = TrainerConfig(strategy="fsdp")
    with pytest.raises(UserError, match=r"optimizer=muon needs whole weights.*strategy=fsdp"):
        check_strategy(TrainingConfig(optimizer="muon"), fsdp)
    with pytest.raises(UserError, match=r"gradient_draws=4 needs whole weights"):
        check_strategy(TrainingConfig(optimizer="adamw", gradient_draws=4), fsdp)
    check_strategy(TrainingConfig(optimizer="adamw"), fsdp)
    check_strategy(TrainingConfig(optimizer="muon"), TrainerConfig(strategy="ddp"))
