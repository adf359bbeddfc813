"""Whole small training runs: resuming, accumulation, processes, broken losses, memorising."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from hbd3lm.allocator import HeldMemory
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion
from hbd3lm.diffusion.schedule import LogLinearSchedule, SearchedSchedule
from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import ModelCard, load_network, read_checkpoint
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import build_document, plan_execution_layout
from hbd3lm.model.remake import run_again
from hbd3lm.model.static import ROUND, count_tokens
from hbd3lm.model.transformer import Transformer
from hbd3lm.report.loss_figure import read_metrics
from hbd3lm.sample.strategies import SamplingConfig
from hbd3lm.train import data as training_data
from hbd3lm.train import module as training_module
from hbd3lm.train.config import TrainerConfig, TrainingConfig
from hbd3lm.train.data import ProblemData, TrainingBatches
from hbd3lm.train.run import train
from tests.toys import FILL, MASK, VOCABULARY, random_documents

LAYOUT = plan_execution_layout(8, 8, 8, 4, 4)
QUIET = TrainerConfig(
    accelerator="cpu", devices=1, precision="32-true", loggers=("csv",), progress_bar=False
)


class Interrupted(BaseException):
    """Stands for a crash or a kill: nobody gets to clean up."""


def run(
    folder: Path,
    *,
    layout=LAYOUT,
    objective=None,
    documents=None,
    dropout=0.0,
    modules="shared",
    trainer=QUIET,
    seed=0,
    net=None,
    dim=16,
    tokenizer="0",
    **changes,
) -> dict:
    values = {
        "max_steps": 10,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 1e-2,
        "lr_schedule": "cosine",
        "checkpoint_every": 4,
        "valid_every": 5,
        "valid_samples": 1,
        "log_every": 1,
    }
    config = TrainingConfig(**(values | changes))
    model = ModelConfig(VOCABULARY, dim, 1, 2, dropout=dropout, modules=modules)
    if net is None:
        torch.manual_seed(seed)
        net = Transformer(model)
    documents = random_documents(layout, 14) if documents is None else documents
    objective = objective or BlockDiffusion(layout, MASK, modules)
    kind = "autoregressive" if isinstance(objective, Autoregressive) else "diffusion"
    settings = {"training": asdict(config), "seed": seed}
    about = {"name": "toy", "fingerprint": tokenizer}
    card = ModelCard(model, layout, kind, about, settings, config.lora.scales(modules))
    return train(net, objective, documents, documents[:3], config, trainer, card, folder, seed)


def test_what_is_run_again_gives_the_same_run(tmp_path):
    settings = {"max_steps": 3, "dropout": 0.1}
    run(tmp_path / "kept", **settings)
    trainer = replace(QUIET, activation_checkpoint="mlp")
    with mock.patch("hbd3lm.model.transformer.run_again", wraps=run_again) as again:
        run(tmp_path / "again", trainer=trainer, **settings)
    assert again.called
    assert_same_weights(tmp_path / "kept", tmp_path / "again")


def interrupt_at(monkeypatch, step: int) -> None:
    """Kill the run in the middle of optimiser step ``step`` (counted from 0)."""
    original = training_module.TrainingModule.training_step

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == step:
            raise Interrupted
        return original(self, batch, batch_idx)

    monkeypatch.setattr(training_module.TrainingModule, "training_step", training_step)


def final_state(folder: Path) -> dict:
    _, content = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    return content


def assert_same_weights(a: Path, b: Path, tolerance: float = 0.0) -> None:
    first, second = final_state(a), final_state(b)
    assert first["global_step"] == second["global_step"]
    for key in ("state_dict", "current_model_state"):
        assert first[key].keys() == second[key].keys()
        for name, tensor in first[key].items():
            torch.testing.assert_close(tensor, second[key][name], rtol=tolerance, atol=tolerance)


# -- resuming -------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer, lr_schedule", [("adamw", "cosine"), ("muon", "wsd")])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [5, 9])
def test_an_interrupted_and_resumed_run_repeats_the_uninterrupted_one(
    tmp_path, monkeypatch, accumulate, step, optimizer, lr_schedule
):
    """To the bit: weights, average, optimiser and logged losses; with dropout, mid-epoch.

    Once the loader of a resumed run was only as long as the steps left, so that Lightning, which
    counts from the start of the interrupted run, took its end for the end of an epoch and began
    again with documents already seen.
    """
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = {"dropout": 0.2, "accumulate": accumulate, "batch_size": 3, "seed": 3}
    settings |= {"optimizer": optimizer, "lr_schedule": lr_schedule, "muon_scale": 2.0}
    run(whole, **settings)
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        with pytest.raises(Interrupted):
            run(broken, **settings)
    summary = run(broken, **settings)
    assert summary["steps"] == 10
    assert summary["resumed_from"] == str(broken / "checkpoints" / "last.ckpt")
    assert_same_weights(whole, broken)
    first, second = (read_metrics(folder / "logs") for folder in (whole, broken))
    assert len(first["train/loss"]) == 10
    for name in first:
        assert first[name] == second[name], name
    best = [read_checkpoint(folder / "checkpoints" / "best.ckpt")[1] for folder in (whole, broken)]
    assert best[0]["global_step"] == best[1]["global_step"]


@pytest.mark.parametrize("step, due", [(5, 5), (7, 5), (9, 4)])
def test_a_searched_schedule_changes_the_run_and_a_resumed_run_repeats_it(
    tmp_path, monkeypatch, step, due
):
    """Also from a checkpoint of the very step of a validation, which once was taken before it."""
    monkeypatch.setattr(SearchedSchedule, "DELAY", 1)
    settings = {"max_steps": 12, "valid_every": due, "checkpoint_every": due}

    def search(folder, **changes):
        searched = SearchedSchedule(LogLinearSchedule(), 2)
        return run(folder, objective=BlockDiffusion(LAYOUT, MASK, searched=searched), **changes)

    search(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, step)
        search(tmp_path / "broken", **settings)
    search(tmp_path / "broken", **settings)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")
    tables = [
        (tmp_path / name / "schedule_search.jsonl").read_text() for name in ("whole", "broken")
    ]
    assert tables[0] == tables[1]
    lines = [json.loads(line) for line in tables[0].splitlines()]
    assert [(line["step"], line["segment"]) for line in lines] == [
        (at, name) for at in range(due, 13, due) for name in ("plan", "execution")
    ]
    metrics = read_metrics(tmp_path / "whole" / "logs")
    step, low = metrics["valid/plan_best_beta"][0]
    assert (step, low) == (due - 1, pytest.approx(lines[0]["chosen"][0]))
    run(tmp_path / "plain", **settings)
    weights = [final_state(tmp_path / name)["state_dict"] for name in ("whole", "plain")]
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_processes_that_prepare_batches_follow_a_searched_schedule(tmp_path, monkeypatch):
    monkeypatch.setattr(SearchedSchedule, "DELAY", 4)
    for name, workers in (("none", 0), ("one", 1)):
        objective = BlockDiffusion(LAYOUT, MASK, searched=SearchedSchedule(LogLinearSchedule(), 2))
        run(tmp_path / name, objective=objective, trainer=replace(QUIET, num_workers=workers))
    assert_same_weights(tmp_path / "none", tmp_path / "one")


@pytest.mark.parametrize("workers, accumulate, ahead", [(2, 1, 1), (3, 2, 1), (2, 2, 2)])
def test_processes_never_prepare_batches_past_a_change_that_is_still_to_be_found(
    monkeypatch, workers, accumulate, ahead
):
    """More than 16 of them did, two micro-batches ahead each: the noise of the steps after a
    validation depended on how many they were and how quick. Here two steps take the place of 32."""
    monkeypatch.setattr(SearchedSchedule, "DELAY", 2)
    config = TrainingConfig(max_steps=8, batch_size=2, accumulate=accumulate)
    documents = random_documents(LAYOUT, 14)

    def batches(num_workers: int) -> list[torch.Tensor]:
        searched = SearchedSchedule(LogLinearSchedule(), 2)
        objective = BlockDiffusion(LAYOUT, MASK, searched=searched)
        data = ProblemData(documents, [], objective, config, 0, num_workers)
        if num_workers:
            assert data.prefetch_factor == ahead
        data.trainer = mock.Mock(global_rank=0, world_size=1, global_step=0)
        found = []
        for batch in data.train_dataloader():
            found.append(batch.batch.parts[0].noisy.ids)
            if len(found) == 3 * accumulate:
                time.sleep(0.5 if num_workers else 0)  # the workers do all they may
                searched.change(3, [LogLinearSchedule(0.98, 1.0)] * 2)
        return found

    alone, shared = batches(0), batches(workers)
    assert [ids.tolist() for ids in shared] == [ids.tolist() for ids in alone]


def test_more_processes_than_a_searched_schedule_has_steps_to_wait_are_refused():
    documents = random_documents(LAYOUT, 4)
    searched = BlockDiffusion(LAYOUT, MASK, searched=SearchedSchedule(LogLinearSchedule(), 2))

    def ahead(objective, workers, accumulate=1):
        config = TrainingConfig(accumulate=accumulate)
        return ProblemData(documents, [], objective, config, 0, workers).prefetch_factor

    with pytest.raises(UserError, match=r"trainer\.num_workers=33: .* trainer\.num_workers=32 or"):
        ahead(searched, 33)
    assert [ahead(searched, n) for n in (0, 1, 16, 17, 32)] == [None, 2, 2, 1, 1]
    assert ahead(searched, 33, accumulate=2) == 1
    assert ahead(BlockDiffusion(LAYOUT, MASK), 33) == 2
    assert ahead(Autoregressive(plan_execution_layout(8, 8, 8, 1, 1)), 33) == 2


@pytest.mark.parametrize("schedule", ["fixed", "searched"])
def test_times_from_zero_on_are_never_chosen_and_the_logs_can_be_read(tmp_path, schedule):
    """Their estimator has no variance; the search goes on among the others."""
    base = LogLinearSchedule(0.0, 1.0)
    searched = SearchedSchedule(base, 2) if schedule == "searched" else None
    objective = BlockDiffusion(LAYOUT, MASK, schedule=base, searched=searched)
    run(tmp_path, objective=objective, max_steps=4, valid_every=2)

    def refuse(constant):
        raise AssertionError(constant)

    lines = (tmp_path / "schedule_search.jsonl").read_text().splitlines()
    for line in (json.loads(line, parse_constant=refuse) for line in lines):
        assert line["chosen"][0] > 0
        assert [row["variance"] is None for row in line["table"]] == [True, True, *[False] * 10]
    metrics = read_metrics(tmp_path / "logs")
    assert {value for _, value in metrics["valid/plan_variance"]} == {float("inf")}
    assert all(np.isfinite(value) for _, value in metrics["valid/plan_best_variance"])


def test_the_gradients_variance_is_measured_on_request_and_changes_nothing(tmp_path):
    run(tmp_path / "with", gradient_draws=3)
    run(tmp_path / "without")
    assert_same_weights(tmp_path / "with", tmp_path / "without")
    metrics = read_metrics(tmp_path / "with" / "logs")
    assert all(value > 0 for _, value in metrics["valid/gradient_variance"])
    assert "valid/gradient_variance" not in read_metrics(tmp_path / "without" / "logs")


def test_a_run_interrupted_twice_still_repeats_the_uninterrupted_one(tmp_path, monkeypatch):
    run(tmp_path / "whole", checkpoint_every=2)
    for step in (3, 7):
        with monkeypatch.context() as patch, pytest.raises(Interrupted):
            interrupt_at(patch, step)
            run(tmp_path / "broken", checkpoint_every=2)
    run(tmp_path / "broken", checkpoint_every=2)
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_a_run_that_only_has_a_best_checkpoint_goes_on_from_it(tmp_path, monkeypatch):
    run(tmp_path / "whole", checkpoint_every=100)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, 7)
        run(tmp_path / "broken", checkpoint_every=100)
    assert not (tmp_path / "broken" / "checkpoints" / "last.ckpt").exists()
    summary = run(tmp_path / "broken", checkpoint_every=100)
    assert summary["resumed_from"].endswith("best.ckpt")
    assert_same_weights(tmp_path / "whole", tmp_path / "broken")


def test_rerunning_a_finished_run_changes_nothing(tmp_path):
    first = run(tmp_path / "run")
    before = final_state(tmp_path / "run")
    again = run(tmp_path / "run")
    assert again["steps"] == first["steps"] == 10
    assert again["best_valid_nelbo"] == first["best_valid_nelbo"]
    after = final_state(tmp_path / "run")
    for name, tensor in before["state_dict"].items():
        assert torch.equal(tensor, after["state_dict"][name])


@pytest.mark.parametrize("steps", [3, 2])
def test_a_finished_run_says_so_when_there_is_nothing_left_to_do(tmp_path, capsys, steps):
    """With fewer steps than it has it once ended without a word."""
    run(tmp_path / "run", max_steps=3)
    assert "finished" not in capsys.readouterr().out
    assert run(tmp_path / "run", max_steps=steps)["steps"] == 3
    assert (
        f"{tmp_path / 'run'} holds a finished run of 3 steps; with training.max_steps={steps} "
        "there is nothing left to do\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_finished_run_goes_on_when_max_steps_is_raised(tmp_path, accumulate):
    """With a constant rate the extended run is the long one; cosine depends on max_steps."""
    constant = {"lr_schedule": "constant", "warmup_steps": 2, "accumulate": accumulate}
    run(tmp_path / "long", max_steps=15, **constant)
    run(tmp_path / "extended", max_steps=10, **constant)
    summary = run(tmp_path / "extended", max_steps=15, **constant)
    assert summary["steps"] == 15
    assert_same_weights(tmp_path / "long", tmp_path / "extended")


def test_the_last_step_is_saved_and_validated_however_short_the_run(tmp_path):
    summary = run(tmp_path / "run", max_steps=3, checkpoint_every=500, valid_every=500)
    assert final_state(tmp_path / "run")["global_step"] == 3
    assert summary["best_valid_nelbo"] > 0
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"learning_rate": 1e-3}, "training.learning_rate"),
        ({"batch_size": 5}, "problems_per_step: 4 != 5"),
        ({"accumulate": 2}, "problems_per_step: 4 != 8"),
        ({"seed": 1}, "seed: 0 != 1"),
        ({"documents": random_documents(LAYOUT, 14, seed=9)}, "training_problems"),
        ({"layout": plan_execution_layout(8, 8, 8, 8, 4)}, "layout.segments"),
        ({"modules": "separate"}, "model.modules: shared != separate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_folder_with_other_settings_is_refused_with_the_remedy(tmp_path, changes, named):
    run(tmp_path / "run", max_steps=1)
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes()
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", max_steps=2, **changes)
    assert named in str(error.value)
    assert "choose another run_dir" in str(error.value)
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").read_bytes() == before


def test_resume_false_refuses_a_used_folder(tmp_path):
    run(tmp_path / "run", max_steps=1)
    with pytest.raises(UserError, match=r"training\.resume=false; choose another run_dir"):
        run(tmp_path / "run", max_steps=2, resume=False)


# -- batches and processes ------------------------------------------------------------------


def test_accumulation_takes_the_same_step_as_one_large_batch(tmp_path):
    run(tmp_path / "one", batch_size=8, accumulate=1)
    run(tmp_path / "two", batch_size=4, accumulate=2)
    assert_same_weights(tmp_path / "one", tmp_path / "two", tolerance=2e-3)
    one, two = (read_metrics(tmp_path / name / "logs") for name in ("one", "two"))
    for name in ("train/loss", "train/plan_loss", "train/execution_loss", "train/grad_norm"):
        assert [step for step, _ in one[name]] == [step for step, _ in two[name]]
        np.testing.assert_allclose(
            [value for _, value in one[name]], [value for _, value in two[name]], rtol=1e-4
        )


def flatten(batch) -> list[tuple]:
    """What a batch says of each document, without padding and row order."""
    part = batch.batch.parts[0]
    rows = []
    for i in range(len(part.prediction.targets)):
        real = ~part.noisy.is_padding[i]
        rows.append(
            (
                tuple(part.clean.ids[i][~part.clean.is_padding[i]].tolist()),
                tuple(part.noisy.ids[i][real].tolist()),
                tuple(part.prediction.weight[i][real].tolist()),
            )
        )
    return rows


def test_two_processes_see_the_documents_and_noise_of_one_with_the_doubled_batch():
    documents = random_documents(LAYOUT, 30)
    objective = BlockDiffusion(LAYOUT, MASK)
    half, double = TrainingConfig(batch_size=3), TrainingConfig(batch_size=6)
    ranks = [TrainingBatches(documents, objective, half, 5, rank, 2) for rank in (0, 1)]
    single = TrainingBatches(documents, objective, double, 5)
    for step in (0, 1, 40):
        parts = [rank[step] for rank in ranks]
        assert flatten(parts[0]) + flatten(parts[1]) == flatten(single[step])
        assert parts[0].denominator == parts[1].denominator == single[step].denominator


def test_bucketed_batches_come_in_few_shapes():
    layout = plan_execution_layout(40, 40, 60, 4, 4)
    documents = random_documents(layout, 200)
    batches = TrainingBatches(
        documents, BlockDiffusion(layout, MASK), TrainingConfig(batch_size=4, max_steps=40), 0
    )
    shapes = set()
    for step in range(40):
        batch = batches[step].batch
        streams = (batch.parts[0].clean, batch.parts[0].noisy)
        shapes.add(tuple(stream.ids.shape[1] for stream in streams))
        assert all(size % ROUND == 0 for size in count_tokens(batch))
        assert len(batch.parts[0].prediction.select) % 32 == 0
    assert 1 < len(shapes) < 30


@pytest.mark.skipif(not HeldMemory.is_known(), reason="what is held is told by glibc 2.33")
def test_held_memory_is_noted_in_every_step_and_looked_at_after_it(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(HeldMemory, "note", lambda memory: calls.append("note"))
    monkeypatch.setattr(HeldMemory, "release", lambda memory: calls.append("release"))
    run(tmp_path, max_steps=3)
    assert calls == ["note", "release"] * 3


def test_packed_rows_take_the_same_steps_as_one_document_a_row(tmp_path, monkeypatch):
    run(tmp_path / "packed", batching="pack")

    def one_a_row(sizes, capacity):
        return [[i] for i in range(len(sizes))]

    monkeypatch.setattr(training_data, "pack_rows", one_a_row)
    run(tmp_path / "single", batching="pack")
    assert_same_weights(tmp_path / "packed", tmp_path / "single", tolerance=1e-5)
    logs = [read_metrics(tmp_path / name / "logs") for name in ("packed", "single")]
    wasted, more = (np.mean([v for _, v in log["train/padding_share"]]) for log in logs)
    assert 0 < wasted < more


TWO_PROCESSES = """
from hbd3lm.diffusion.objective import BlockDiffusion
from hbd3lm.diffusion.schedule import LogLinearSchedule, SearchedSchedule
from pathlib import Path
from tests.train.test_training import LAYOUT, MASK, QUIET, run
from dataclasses import replace
import sys
SearchedSchedule.DELAY = 1
searched = SearchedSchedule(LogLinearSchedule(), 2)
run(Path(sys.argv[1]), batch_size=2, max_steps=4, valid_every=2, optimizer="muon",
    objective=BlockDiffusion(LAYOUT, MASK, searched=searched),
    trainer=replace(QUIET, devices=2, strategy="ddp"))
"""


@pytest.mark.slow
def test_two_real_processes_train_as_one_with_the_same_global_batch(tmp_path, monkeypatch):
    """Muon and a searched schedule included: all processes find the same intervals.

    Muon orthogonalises in bf16, which makes much of the rounding of small gradients: the weights
    agree less closely than AdamW's (``test_processes.py``), the losses as closely.
    """
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "two")],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr(SearchedSchedule, "DELAY", 1)
    objective = BlockDiffusion(LAYOUT, MASK, searched=SearchedSchedule(LogLinearSchedule(), 2))
    run(
        tmp_path / "one", batch_size=4, max_steps=4, valid_every=2, optimizer="muon",
        objective=objective,
    )  # fmt: skip
    assert_same_weights(tmp_path / "one", tmp_path / "two", tolerance=2e-3)
    one, two = (read_metrics(tmp_path / name / "logs") for name in ("one", "two"))
    for name in ("train/loss", "train/execution_loss", "valid/nelbo", "valid/plan_nelbo"):
        np.testing.assert_allclose(
            [value for _, value in one[name]], [value for _, value in two[name]], rtol=1e-4
        )


# -- broken losses --------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [0, 1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_loss_stops_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch, micro, bad):
    """Also in the first of two micro-batches; only the last one was looked at once."""
    original = training_module.negative_log_likelihood
    calls = []

    def broken(net, batch, frozen=()):
        losses = original(net, batch, frozen)
        calls.append(net.training)
        return losses * bad if net.training and sum(calls) == 2 * 6 + micro + 1 else losses

    monkeypatch.setattr(training_module, "negative_log_likelihood", broken)
    with pytest.raises(UserError) as error:
        run(tmp_path / "run", accumulate=2, batch_size=2)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert "stopped at step 6" in str(error.value)
    assert f"the last good checkpoint is {last}" in str(error.value)
    content = final_state(tmp_path / "run")
    assert content["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in content["current_model_state"].values())
    net, _ = load_network(last)
    assert all(parameter.isfinite().all() for parameter in net.parameters())


def test_a_broken_loss_before_any_checkpoint_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(
        training_module,
        "negative_log_likelihood",
        lambda net, batch, frozen: next(net.parameters()).sum().expand(1, 2) * float("nan"),
    )
    with pytest.raises(UserError, match="no checkpoint was due before"):
        run(tmp_path / "run")


def test_trainer_settings_the_machine_lacks_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"trainer: .*trainer\.accelerator=nonsense"):
        run(tmp_path / "run", trainer=replace(QUIET, accelerator="nonsense"))


# -- learning -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["hierarchical", "flat", "mdlm", "separate", "ar", "ar-flat"])
def test_the_loss_of_every_method_falls(tmp_path, method):
    sizes = {"mdlm": (8, 8), "ar": (1, 1), "ar-flat": (1, 1)}.get(method, (4, 4))
    layout = plan_execution_layout(8, 8, 8, *sizes, with_plan="flat" not in method)
    modules = "separate" if method == "separate" else "shared"
    objective = BlockDiffusion(layout, MASK, modules)
    if method.startswith("ar"):
        objective = Autoregressive(layout)
    segments = {segment.name: [3] * 7 for segment in layout.segments}
    documents = [build_document([1, 2], segments, layout, FILL)] * 4  # soon known by heart
    summary = run(
        tmp_path / "run", layout=layout, objective=objective, modules=modules,
        documents=documents, max_steps=30, valid_every=5, valid_samples=8, ema_decay=0.5,
    )  # fmt: skip
    values = [value for _, value in read_metrics(tmp_path / "run" / "logs")["valid/nelbo"]]
    assert summary["steps"] == 30
    assert values[-1] < 0.5 * values[0]


@pytest.mark.slow
def test_the_sampler_reproduces_memorised_problems_exactly(tmp_path):
    """Six embedded problems, plans by the rules: plan and execution word for word."""
    from hbd3lm.data.encoding import Caps, encode_examples
    from hbd3lm.data.synthetic import generate_problems
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.evaluate.answers import generate, make_records
    from hbd3lm.plans.generate import generate_plans
    from hbd3lm.plans.planner import load_planner

    problems = generate_problems("train", 60, seed=1, min_steps=1, max_steps=1)
    settings = {"planner": "rules", "dataset": "embedded", "split": "train"}
    examples = generate_plans(
        problems, load_planner("rules"), tmp_path / "plans.json", settings=settings
    )
    examples = sorted(examples, key=lambda e: len(e.question + e.plan + e.execution))[:6]
    tokenizer = load_tokenizer("gsm")
    layout = plan_execution_layout(128, 128, 128, 4, 4)
    encoded, cut = encode_examples(examples, tokenizer, Caps(128, 128, 128))
    assert not cut
    documents = [
        build_document(
            item.question, {"plan": item.plan, "execution": item.execution}, layout,
            tokenizer.fill_id,
        )
        for item in encoded
    ]  # fmt: skip
    model = ModelConfig(tokenizer.vocab_size, 64, 2, 4)
    torch.manual_seed(0)
    net = Transformer(model)
    config = TrainingConfig(
        max_steps=300, batch_size=18, optimizer="adamw", learning_rate=5e-3, lr_schedule="constant",
        ema_decay=0.9, valid_every=300,
        valid_samples=1, checkpoint_every=300,
    )  # fmt: skip
    card = ModelCard(model, layout, "diffusion", {"name": "gsm", "fingerprint": "0"})
    objective = BlockDiffusion(layout, tokenizer.mask_id)
    train(net, objective, documents, documents, config, QUIET, card, tmp_path / "run", 0)
    net, _ = load_network(tmp_path / "run" / "checkpoints" / "best.ckpt")
    for method in ("confidence", "first_hitting"):
        sampled = generate(net, layout, tokenizer, examples, SamplingConfig(method=method))
        for example, record in zip(examples, make_records(examples, sampled, "full")):
            assert record["plan"] == example.plan
            assert record["execution"] == example.execution
            assert record["correct_strict"] and record["correct_flexible"]
            assert record["ended"] == {"plan": True, "execution": True}
