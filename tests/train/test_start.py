"""Starting from another run's weights, and keeping a module's: to the bit, without its work."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.diffusion.likelihood import EvaluationBatches, add_losses
from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.hub.directory import write_exported
from hbd3lm.model.checkpoint import ModelCard, fingerprint_weights, load_network, read_checkpoint
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.report.loss_figure import read_metrics
from hbd3lm.sample.decoder import Decoder, Prompt, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig
from hbd3lm.train import module as training_module
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.start import check_freeze, freeze
from tests.toys import FILL, MASK, random_documents, toy_net
from tests.train.test_training import (
    LAYOUT,
    QUIET,
    Interrupted,
    assert_same_weights,
    final_state,
    interrupt_at,
    run,
)

OTHER = random_documents(LAYOUT, 12, seed=5)
"""What a run that starts from another one is trained on."""
IDS = SpecialIds(MASK, FILL, {"plan": 8, "execution": 9})


@pytest.fixture(scope="module")
def source(one_thread, tmp_path_factory) -> Path:
    """A finished run with separate modules."""
    folder = tmp_path_factory.mktemp("source") / "run"
    run(folder, modules="separate", max_steps=6, valid_every=3)
    return folder


@pytest.fixture(scope="module")
def shared_source(one_thread, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shared") / "run"
    run(folder, max_steps=4, valid_every=2)
    return folder


def fine_tune(folder: Path, source: Path, **settings) -> dict:
    settings = {"modules": "separate", "documents": OTHER, "max_steps": 6, "seed": 2} | settings
    return run(folder, init_from=str(source), **settings)


def weights_of(net, module: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in net.state_dict().items() if k.startswith(f"stacks.{module}.")}


def networks(folder: Path) -> list:
    """All networks that a run's checkpoints hold: averaged ones and those of the last step."""
    found = []
    for name in ("last", "best"):
        net, card = load_network(folder / "checkpoints" / f"{name}.ckpt")
        _, content = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
        found.append(net)
        if "current_model_state" in content:
            current = type(net)(card.model).eval()
            state = content["current_model_state"]
            current.load_state_dict({k.removeprefix("net."): v for k, v in state.items()})
            found.append(current)
    return found


@torch.no_grad()
def describe_plans(net) -> list:
    """All that a network says of plans: logits, bounds and samples."""
    objective = BlockDiffusion(LAYOUT, MASK, "separate")
    noises = [objective.evaluation_noise(d, 1, np.random.default_rng(i))[0]
              for i, d in enumerate(OTHER)]  # fmt: skip
    part = objective.assemble(OTHER, noises).parts[0]
    _, past = net(part.clean, None, "plan", keys_only=True)
    logits = net.logits(net(part.noisy, past, "plan")[0], "plan")
    return [logits, bounds(net, objective)[:, 0], *sample_plans(net)]


@torch.no_grad()
def bounds(net, objective) -> torch.Tensor:
    """NELBO in nats of every document and segment."""
    table = torch.zeros(len(OTHER), 2, dtype=torch.float64)
    batches = EvaluationBatches(OTHER, objective, 2, 5, seed=0)
    for index in range(len(batches)):
        add_losses(table, net, batches[index])
    return table


def sample_plans(net) -> list[torch.Tensor]:
    found = []
    for method, temperature in (("confidence", 0.0), ("first_hitting", 1.0)):
        config = SamplingConfig(method=method, temperature=temperature, seed=3)
        decoder = Decoder(net, LAYOUT, IDS, config)
        samples = decoder.sample([Prompt(i, d.question) for i, d in enumerate(OTHER)])
        found += [torch.as_tensor(s.segments["plan"]) for s in samples]
    assert sum(map(len, found)) > 50
    return found


# -- frozen modules -------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_plans_of_a_frozen_module_stay_the_same_to_the_bit(tmp_path, source, precision, optimizer):
    """Logits, bounds, samples; averaged and last weights; with decay, dropout and resuming."""
    settings = {
        "freeze": "plan",
        "optimizer": optimizer,
        "weight_decay": 0.1,
        "dropout": 0.2,
        "ema_decay": 0.5,
        "trainer": replace(QUIET, precision=precision),
        "checkpoint_every": 2,
        "valid_every": 2,
    }
    before, _ = load_network(source / "checkpoints" / "best.ckpt")
    expected = describe_plans(before)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, 3)
        fine_tune(tmp_path / "run", source, **settings)
    assert fine_tune(tmp_path / "run", source, **settings)["resumed_from"]
    nets = networks(tmp_path / "run")
    assert len(nets) == 4
    for net in nets:
        for found, wanted in zip(describe_plans(net), expected, strict=True):
            assert torch.equal(found, wanted)
        changed = [
            not torch.equal(tensor, weights_of(before, "execution")[name])
            for name, tensor in weights_of(net, "execution").items()
        ]
        assert all(changed)
    metrics = read_metrics(tmp_path / "run" / "logs")
    assert len({value for _, value in metrics["valid/plan_nelbo"]}) == 1
    assert len({value for _, value in metrics["valid/execution_nelbo"]}) == 3
    assert "train/plan_loss" not in metrics
    assert metrics["train/loss"] == metrics["train/execution_loss"]


def test_without_freezing_the_same_run_changes_the_plans(tmp_path, source):
    before, _ = load_network(source / "checkpoints" / "best.ckpt")
    fine_tune(tmp_path / "run", source)
    logits, nelbo, *_ = describe_plans(networks(tmp_path / "run")[0])
    wanted_logits, wanted_nelbo, *_ = describe_plans(before)
    assert not torch.equal(logits, wanted_logits)
    assert not torch.equal(nelbo, wanted_nelbo)


def test_a_frozen_execution_module_keeps_its_weights_while_the_plan_learns(tmp_path, source):
    fine_tune(tmp_path / "run", source, freeze="execution", weight_decay=0.1)
    before, _ = load_network(source / "checkpoints" / "best.ckpt")
    for net in networks(tmp_path / "run"):
        for name, tensor in weights_of(net, "execution").items():
            assert torch.equal(tensor, weights_of(before, "execution")[name])
        for name, tensor in weights_of(net, "plan").items():
            assert not torch.equal(tensor, weights_of(before, "plan")[name])
    metrics = read_metrics(tmp_path / "run" / "logs")
    assert {"train/plan_loss", "train/execution_loss"} <= metrics.keys()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("frozen", ["plan", "execution"])
def test_frozen_weights_have_no_gradient_and_no_optimiser_state(
    tmp_path, source, monkeypatch, frozen, optimizer
):
    original, seen = training_module.TrainingModule.configure_gradient_clipping, []

    def look(self, *arguments, **options):
        seen.append({n for n, p in self.net.named_parameters() if p.grad is not None})
        original(self, *arguments, **options)

    monkeypatch.setattr(training_module.TrainingModule, "configure_gradient_clipping", look)
    fine_tune(tmp_path / "run", source, freeze=frozen, optimizer=optimizer)
    (net, *_), other = networks(tmp_path / "run"), {"plan": "execution", "execution": "plan"}
    assert len(seen) == 6
    assert all(names == set(weights_of(net, other[frozen])) for names in seen)
    state = final_state(tmp_path / "run")["optimizer_states"][0]
    assert len(state["state"]) == len(weights_of(net, other[frozen]))
    assert sum(len(g["params"]) for g in state["param_groups"]) == len(state["state"])


@pytest.mark.parametrize("frozen", ["plan", "execution"])
def test_freezing_leaves_the_gradient_of_the_other_module_as_it_was(frozen):
    """What is left out of the loss has no part in it; what stays in is the whole of it."""
    objective = BlockDiffusion(LAYOUT, MASK, "separate")
    batch = objective.assemble(OTHER, objective.training_noise(OTHER, np.random.default_rng(1)))
    net = toy_net(modules="separate")
    negative_log_likelihood(net, batch).sum().backward()
    wanted = {n: p.grad.clone() for n, p in net.named_parameters() if f".{frozen}." not in n}
    net.zero_grad()
    freeze(net, frozen)
    negative_log_likelihood(net, batch, (frozen,)).sum().backward()
    found = {n: p.grad for n, p in net.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name])
    assert any(g.abs().max() > 1e-3 for g in wanted.values())


def test_the_plan_modules_work_is_not_done_when_it_is_frozen():
    """Operations: its clean pass up to the last keys, once and forwards, and nothing else."""
    objective = BlockDiffusion(LAYOUT, MASK, "separate")
    batch = objective.assemble(OTHER, objective.training_noise(OTHER, np.random.default_rng(1)))
    net = toy_net(modules="separate")

    def operations(compute) -> int:
        with FlopCounterMode(display=False) as counter:
            compute()
        return counter.get_total_flops()

    part = batch.parts[0]
    keys = operations(lambda: net(part.clean, None, "plan", keys_only=True))
    losses = {}

    def step(*frozen):
        losses[frozen] = negative_log_likelihood(net, batch, frozen).sum(0)
        losses[frozen].sum().backward()

    everything = operations(step)
    freeze(net, "plan")
    frozen = operations(lambda: step("plan"))
    with torch.no_grad():
        with_execution = operations(lambda: negative_log_likelihood(net, batch))
        plan = operations(
            lambda: negative_log_likelihood(net, replace(batch, parts=batch.parts[:1]))
        )
    # Forwards and backwards, the execution's pass costs three times its forward pass; less the
    # gradient of the keys it read, which are constants.
    execution = with_execution - plan
    assert keys < frozen <= keys + 3 * execution
    assert frozen < 0.75 * everything
    assert losses[("plan",)][0] == 0
    torch.testing.assert_close(losses[("plan",)][1], losses[()][1])


def test_validation_reports_the_frozen_modules_bound_all_the_same(tmp_path, source):
    fine_tune(tmp_path / "frozen", source, freeze="plan", max_steps=1)
    fine_tune(tmp_path / "free", source, max_steps=1, learning_rate=1e-12)
    one, two = (read_metrics(tmp_path / n / "logs")["valid/plan_nelbo"] for n in ("frozen", "free"))
    assert one == [(0, pytest.approx(two[0][1], rel=1e-5))]


def test_the_gradients_variance_of_a_frozen_run_is_that_of_the_free_weights(tmp_path, source):
    fine_tune(tmp_path / "run", source, freeze="plan", gradient_draws=2, max_steps=2)
    metrics = read_metrics(tmp_path / "run" / "logs")
    assert all(value > 0 for _, value in metrics["valid/gradient_variance"])


@pytest.mark.parametrize(
    "settings, card_changes, message",
    [
        ({"freeze": "plan"}, {"modules": "shared"},
         r"training\.freeze=plan: with hierarchical\.modules=shared .* freezes both"),
        ({"freeze": "execution"}, {"with_plan": False}, r"without a plan there is one module only"),
        ({"freeze": "plan"}, {"objective": "autoregressive"}, r"algo=ar has one causal stream"),
        ({"freeze": "plan", "init_from": None}, {}, r"give training\.init_from=RUN"),
    ],
)  # fmt: skip
def test_freezing_what_is_no_module_of_its_own_is_refused(settings, card_changes, message):
    config = TrainingConfig(**{"init_from": "somewhere", **settings})
    net = toy_net(modules=card_changes.get("modules", "separate"))
    layout = plan_execution_layout(8, 8, 8, 4, 4, with_plan=card_changes.get("with_plan", True))
    card = ModelCard(net.config, layout, card_changes.get("objective", "diffusion"), {})
    with pytest.raises(UserError, match=message):
        check_freeze(config, card)


def test_a_module_that_is_not_there_cannot_be_named():
    with pytest.raises(UserError, match=r"training\.freeze=question: choose one of null, plan, ex"):
        TrainingConfig(freeze="question")


# -- starting from another run --------------------------------------------------------------


def test_a_run_starts_from_the_averaged_weights_with_steps_and_optimiser_of_its_own(
    tmp_path, source
):
    """A learning rate of next to nothing leaves what it started from."""
    summary = fine_tune(tmp_path / "run", source, max_steps=1, learning_rate=1e-12, warmup_steps=0)
    best, _ = load_network(source / "checkpoints" / "best.ckpt")
    net, own = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for a, b in zip(net.parameters(), best.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert summary["steps"] == 1 and summary["resumed_from"] is None
    record = {
        "path": str(source / "checkpoints" / "best.ckpt"), "fingerprint": fingerprint_weights(best)
    }  # fmt: skip
    assert summary["started_from"] == record == own.settings["started_from"]
    assert json.loads((tmp_path / "run" / "train_summary.json").read_text())["started_from"]
    state = final_state(tmp_path / "run")["optimizer_states"][0]["state"]
    assert all(entry["step"] == 1 for entry in state.values())


def test_a_run_folder_a_file_and_an_exported_folder_are_the_same_start(tmp_path):
    tokenizer = load_tokenizer("gsm")
    net = toy_net(vocab_size=tokenizer.vocab_size, modules="separate")
    described = {"name": "gsm", "fingerprint": tokenizer.fingerprint}
    card = ModelCard(net.config, LAYOUT, "diffusion", described)
    write_exported(tmp_path / "exported", net, card, tokenizer, "# toy\n")
    loaded, _ = load_network(tmp_path / "exported")
    assert fingerprint_weights(loaded) == fingerprint_weights(net)


@pytest.mark.parametrize("place", ["", "checkpoints/best.ckpt", "checkpoints/last.ckpt"])
def test_every_place_of_a_run_can_be_started_from(tmp_path, source, place):
    summary = fine_tune(tmp_path / "run", source / place, max_steps=1)
    name = place or "checkpoints/best.ckpt"
    assert summary["started_from"]["path"] == str(source / name)


@pytest.mark.parametrize("frozen", [None, "plan"])
def test_two_modules_start_as_copies_of_a_shared_one(tmp_path, shared_source, frozen):
    before, _ = load_network(shared_source / "checkpoints" / "best.ckpt")
    fine_tune(
        tmp_path / "run", shared_source, freeze=frozen, max_steps=1, learning_rate=1e-12,
        warmup_steps=0,
    )  # fmt: skip
    net, card = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert card.model.modules == "separate"
    for name, stack in net.stacks.items():
        for a, b in zip(stack.parameters(), before.stacks["shared"].parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0 if name == frozen else 1e-9)
    torch.testing.assert_close(
        bounds(net, BlockDiffusion(LAYOUT, MASK, "separate")),
        bounds(before, BlockDiffusion(LAYOUT, MASK)),
    )


def test_a_resumed_run_needs_what_it_started_from_no_more(tmp_path, source):
    gone = tmp_path / "gone"
    shutil.copytree(source, gone)
    fine_tune(tmp_path / "whole", gone, freeze="plan", checkpoint_every=2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, 3)
        fine_tune(tmp_path / "run", gone, freeze="plan", checkpoint_every=2)
    shutil.rmtree(gone)
    summary = fine_tune(tmp_path / "run", gone, freeze="plan", checkpoint_every=2)
    assert (
        summary["started_from"]
        == (final_state(tmp_path / "whole")["hbd3lm"]["settings"]["started_from"])
    )
    assert_same_weights(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"freeze": None}, "training.freeze: plan != None"),
        ({"init_from": "elsewhere"}, "training.init_from: "),
    ],
)
def test_a_run_goes_on_with_the_start_and_the_frozen_module_it_had(
    tmp_path, source, changes, named
):
    run_it = {"modules": "separate", "freeze": "plan", "init_from": str(source)}
    run(tmp_path / "run", max_steps=1, **run_it)
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", max_steps=2, **(run_it | changes))
    assert named in str(error.value)


def test_caps_may_differ_from_those_of_the_start(tmp_path, source):
    wider = plan_execution_layout(12, 16, 20, 4, 4)
    documents = random_documents(wider, 6)
    fine_tune(tmp_path / "run", source, layout=wider, documents=documents, freeze="plan",
              objective=BlockDiffusion(wider, MASK, "separate"), max_steps=1)  # fmt: skip
    assert load_network(tmp_path / "run/checkpoints/last.ckpt")[1].layout == wider


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"modules": "shared"}, "hierarchical.modules: separate != shared: two modules do not"),
        ({"layout": plan_execution_layout(8, 8, 8, 4, 8)},
         "layout: plan in blocks of 4, execution in blocks of 4 != plan in blocks of 4, execution "
         "in blocks of 8"),
        ({"dim": 32}, "model.dim: 16 != 32"),
        ({"tokenizer": "1"}, "tokenizer: toy (0) != toy (1)"),
    ],
    ids=["modules", "blocks", "dim", "tokenizer"],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, source, changes, named):
    with pytest.raises(UserError) as error:
        fine_tune(tmp_path / "run", source, max_steps=1, **changes)
    assert named in str(error.value)
    assert str(error.value).startswith("training.init_from: the model in ")
    assert not list(tmp_path.glob("run/**/*.ckpt"))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda path: None, r"training\.init_from: no such file: .*give training\.init_from=FILE"),
        (lambda path: path.write_bytes(b"nothing"), r"is damaged or no checkpoint"),
        (lambda path: path.mkdir(), r"is no exported model"),
        (lambda path: (path / "checkpoints").mkdir(parents=True), r"there is no checkpoint in .*"),
    ],
    ids=["nothing", "damaged", "folder", "empty run"],
)
def test_what_is_no_model_to_start_from_is_refused(tmp_path, make, message):
    make(tmp_path / "start")
    with pytest.raises(UserError, match=message):
        fine_tune(tmp_path / "run", tmp_path / "start", max_steps=1)
