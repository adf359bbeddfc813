"""``hbd3lm doctor``: a sound run passes, and each thing that is wrong is found by its check."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import hydra
import pytest
import torch

from hbd3lm import cli
from hbd3lm.commands import doctor, doctor_checks, memory_advice, run
from hbd3lm.commands.compose import CONFIGS
from hbd3lm.commands.doctor_checks import FAIL, OK, WARN
from hbd3lm.commands.doctor_trial import Trial, judge_gradients
from hbd3lm.commands.memory_advice import TrainingNeeds
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.diffusion import objective as objective_module
from hbd3lm.errors import UserError
from hbd3lm.model import mask as mask_module
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.memory import BatchShape
from hbd3lm.model.remake import run_again
from hbd3lm.train.config import TrainerConfig, TrainingConfig

LAYOUT = plan_execution_layout(64, 32, 64, 4, 4)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_examples(count: int, split: str = "train") -> list[HierarchicalExample]:
    return [
        HierarchicalExample(p.id, p.question, "Add, then share.", p.solution, p.answer)
        for p in generate_problems(split, count, 0, 1, 1)
    ]


@pytest.fixture
def settings(tmp_path) -> list[str]:
    write_examples(tmp_path / "train.json", make_examples(130))
    write_examples(tmp_path / "test.json", make_examples(5, "test"))
    return [
        "model=nano", "model.dim=32", "model.n_heads=2", "model.n_layers=2", "trainer=cpu",
        "training.batch_size=4", "training.max_steps=20", "hierarchical.question_len=96",
        "hierarchical.exec_len=128", f"run_dir={tmp_path}/run",
        f"data.train_path={tmp_path}/train.json", f"data.test_path={tmp_path}/test.json",
    ]  # fmt: skip


def statuses(settings: list[str]) -> dict[str, doctor.Finding]:
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        cfg = hydra.compose("config", overrides=settings)
    return {finding.check: finding for finding in doctor.find(cfg)}


def test_a_sound_run_passes_every_check_from_the_command_line(settings, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hbd3lm"])
    assert cli.main(["doctor", *settings]) == 0
    printed = capsys.readouterr().out
    for check in ("mask", "data", "test problems", "lengths", "tokenizer", "memory", "disk",
                  "time", "precision", "gradients"):  # fmt: skip
        assert f"│ {check} " in printed, check
    assert "10 ok, 0 warn, 0 FAIL" in printed


def test_a_failing_check_makes_the_exit_status_one(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["main.py", "mode=doctor", *settings])
    write_examples(tmp_path / "test.json", make_examples(3))
    with pytest.raises(SystemExit) as stop:
        run.main()
    assert stop.value.code == 1
    assert "1 FAIL" in capsys.readouterr().out


def test_test_problems_in_the_training_file_are_found_by_id_and_by_question(settings, tmp_path):
    training = make_examples(130)
    stranger = replace(make_examples(1, "test")[0], id=training[7].id)
    copied = replace(training[3], id="other", question=training[3].question.upper() + " ")
    for leak, named in ((stranger, training[7].id), (copied, training[3].id)):
        found = doctor_checks.check_leakage(training, ([leak], "test"))
        assert (found.status, named in found.remedy) == (FAIL, True)
    fine = doctor_checks.check_leakage(training, (make_examples(5, "test"), "test"))
    assert fine.status == OK
    unknown = doctor_checks.check_leakage(training, "the hub is out of reach")
    assert unknown.status == WARN and "the hub is out of reach" in unknown.detail


def test_cut_problems_are_counted_and_the_caps_to_raise_named():
    examples = make_examples(120)
    tokenizer = load_tokenizer("gsm")
    found = doctor_checks.check_lengths(
        examples, tokenizer, plan_execution_layout(16, 32, 16, 4, 4)
    )
    assert found.status == FAIL
    assert "training.hierarchical.question_len=" in found.remedy
    assert "training.hierarchical.exec_len=" in found.remedy and "plan_len" not in found.remedy
    layout = plan_execution_layout(256, 32, 256, 4, 4)
    assert doctor_checks.check_lengths(examples, tokenizer, layout).status == OK


def test_repeated_and_shared_problems_are_reported():
    examples = make_examples(130)
    assert doctor_checks.check_examples(examples[10:], examples[:10]).status == OK
    doubled = doctor_checks.check_examples([*examples[10:], examples[10]], examples[:10])
    assert (doubled.status, "ids more than once" in doubled.detail) == (WARN, True)
    shared = doctor_checks.check_examples(examples, [replace(examples[3], id="x")])
    assert (shared.status, "also held out" in shared.detail) == (WARN, True)
    empty = doctor_checks.check_examples(
        [*examples, replace(examples[0], id="x", execution=" ")], []
    )
    assert (empty.status, "without question or execution" in empty.detail) == (FAIL, True)
    assert doctor_checks.check_examples(examples[:9], examples[9:10]).status == WARN


def test_a_tokenizer_that_loses_text_or_is_not_the_runs_is_refused(tmp_path, monkeypatch):
    examples, tokenizer = make_examples(3), load_tokenizer("gsm")
    assert doctor_checks.check_tokenizer(examples, tokenizer, tmp_path).status == OK
    tokenizer.save(tmp_path / "tokenizer")
    assert doctor_checks.check_tokenizer(examples, tokenizer, tmp_path).status == OK
    other = load_tokenizer("gsm")
    other.__dict__["fingerprint"] = "0" * 16
    found = doctor_checks.check_tokenizer(examples, other, tmp_path)
    assert found.status == FAIL and "choose another run_dir" in found.remedy
    monkeypatch.setattr(tokenizer, "decode", lambda ids: "lost")
    assert doctor_checks.check_tokenizer(examples, tokenizer, tmp_path / "new").status == FAIL


def test_a_wrong_mask_is_found(monkeypatch):
    assert [finding.status for finding in doctor_checks.check_mask(LAYOUT)] == [OK]
    flat = plan_execution_layout(16, 16, 16, 4, 4, with_plan=False)
    assert [finding.status for finding in doctor_checks.check_mask(flat)] == [OK]
    rule = mask_module.may_attend
    monkeypatch.setattr(
        mask_module, "may_attend",
        lambda q, k: rule(q, k) | ((k.block == q.block + 1) & (q.document == k.document)),
    )  # fmt: skip
    found = doctor_checks.check_mask(LAYOUT)
    assert found[0].status == FAIL and "test_hierarchical_mask.py" in found[0].remedy


def test_a_machine_too_small_is_told_before_a_step_is_tried(settings, monkeypatch):
    monkeypatch.setattr(memory_advice, "device_memory", lambda device: 50 * 2**20)
    monkeypatch.setattr(doctor, "Trial", None)  # would fail if it were tried
    found = statuses(settings)
    assert found["memory"].status == FAIL
    assert (
        "BATCH_SIZE=" in found["memory"].remedy and "this machine's cpu" in found["memory"].detail
    )
    assert "time" not in found


def test_what_is_run_again_is_run_again_by_the_trial_and_counted(settings):
    settings = [*settings, "model.n_layers=8"]
    plain = statuses(settings)
    with mock.patch("hbd3lm.model.transformer.run_again", wraps=run_again) as again:
        found = statuses([*settings, "trainer.activation_checkpoint=block"])
    assert again.called
    assert found["gradients"].status == found["memory"].status == OK
    assert found["memory"].detail != plain["memory"].detail


def test_a_machine_that_a_long_run_may_fill_is_warned_about(monkeypatch):
    needs = TrainingNeeds(
        ModelConfig(4101, 256, 8, 8), BatchShape(32, 496, 384, 6144), 512, 384, {"device": "cpu"}
    )
    total = needs.estimate().total
    found = {}
    for times in (0.9, 1.5, 2.5):
        for name in ("device_memory", "free_memory"):
            monkeypatch.setattr(memory_advice, name, lambda device, n=times: int(n * total))
        found[times] = doctor_checks.check_memory(needs)
    assert [finding.status for finding in found.values()] == [FAIL, WARN, OK]
    assert "a long run may come to hold" in found[1.5].detail and "BATCH_SIZE=" in found[1.5].remedy
    # Enough for it, were it not for others.
    monkeypatch.setattr(memory_advice, "free_memory", lambda device: int(0.5 * total))
    used = doctor_checks.check_memory(needs)
    assert used.status == FAIL and "free now" in used.detail and "other programs" in used.remedy


def test_free_memory_is_part_of_the_devices():
    assert 0 < memory_advice.free_memory("cpu") <= memory_advice.device_memory("cpu")


def test_a_step_that_runs_out_of_memory_is_told_with_the_remedy(settings, monkeypatch):
    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(objective_module, "negative_log_likelihood", out_of_memory)
    monkeypatch.setattr(doctor, "check_mask", lambda layout: [])
    found = statuses(settings)
    assert found["memory"].status == FAIL and "Tried to allocate" in found["memory"].detail
    assert "BATCH_SIZE=2" in found["memory"].remedy


def test_a_full_disk_is_found(tmp_path, monkeypatch):
    from hbd3lm.model.config import ModelConfig

    cfg = SimpleNamespace(
        run_dir=str(tmp_path / "a" / "b"),
        training=SimpleNamespace(optimizer="adamw", ema_decay=0.9),
    )
    card = SimpleNamespace(model=ModelConfig(100, 16, 2, 2))  # 7,856 weights, 4 x 4 bytes of each
    for free, expected in ((4 * 125_695, FAIL), (4 * 125_697, WARN), (10**9, OK)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder, usage=usage: usage)
        assert doctor_checks.check_disk(cfg, card).status == expected
    (tmp_path / "a").touch()
    found = doctor_checks.check_disk(cfg, card)
    assert found.status == FAIL and f"{tmp_path / 'a'} is a file, no folder" in found.detail
    cfg.run_dir = "x" * 300
    assert doctor_checks.check_disk(cfg, card).status == FAIL


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["trainer.strategy=fsdp"], "training.optimizer=muon needs whole weights"),
        (["training.global_batch_size=6"], "global_batch_size=6 is no multiple of training.batch"),
        (
            ["training.global_batch_size=12", "trainer.devices=2"],
            "global_batch_size=12 is no multiple of training.batch_size=4 x 2 process",
        ),
    ],
)
def test_what_training_would_refuse_the_doctor_refuses(settings, overrides, message):
    with pytest.raises(UserError, match=message):
        statuses([*settings, *overrides])


def trial(gradients, mixed=True) -> Trial:
    made = object.__new__(Trial)
    made.mixed, made.device = mixed, "cpu"
    made._gradient = lambda mixed: gradients[mixed]
    return made


@pytest.mark.parametrize(
    "bf16_loss, direction, mixed, expected",
    [
        (2.001, 1.0, True, OK),
        (2.001, 1.3, True, WARN),
        (2.05, 1.0, True, WARN),
        (2.2, 1.0, True, FAIL),
        (2.001, -1.0, True, FAIL),
        (float("nan"), 1.0, True, FAIL),
        (2.2, 1.0, False, OK),  # the run will not use it
    ],
)
def test_bf16_must_agree_with_float32_in_loss_and_direction(
    bf16_loss, direction, mixed, expected, monkeypatch
):
    monkeypatch.setattr("hbd3lm.model.precision.has_bf16", lambda device: True)
    exact = {"a": torch.tensor([3.0, 0.0], dtype=torch.float64)}
    other = {"a": torch.tensor([3.0 * direction, 0.0 if direction == 1 else 1.2]).double()}
    found = trial({False: (2.0, exact), True: (bf16_loss, other)}, mixed).check_precision()
    assert found.status == expected
    if expected != OK:
        assert found.remedy == "set trainer.precision=32-true"


@pytest.mark.parametrize("loss, expected", [(2.0, OK), (float("nan"), FAIL)])
def test_bf16_is_not_tried_where_it_is_emulated_and_not_asked_for(loss, expected, monkeypatch):
    """Eight problems of ``small`` would take half an hour."""
    monkeypatch.setattr("hbd3lm.model.precision.has_bf16", lambda device: False)
    found = trial({False: (loss, {})}, mixed=False).check_precision()  # no entry for bf16
    assert (found.status, "multiplies no bf16" in found.detail) == (expected, expected == OK)


def test_a_run_longer_than_a_job_is_told_with_the_steps_that_fit():
    made = trial({})
    made.config = SimpleNamespace(
        accumulate=1, batch_size=32, max_steps=100_000, valid_samples=1, valid_interval=1000
    )
    made.objective, made.device = SimpleNamespace(is_bound=True), "cpu"
    made.seconds = [9.0, 1.8, 1.8]
    found = made.check_time(0)
    assert found.status == WARN and "about 50.0 hours" in found.detail
    assert "training.max_steps=48000" in found.remedy
    made.config.max_steps = 10_000
    assert made.check_time(0).status == OK


def test_gradients_that_are_zero_or_not_finite_fail_and_rising_losses_warn():
    norms = {"net.stacks.shared.blocks.0.mlp.up.weight": 0.3, "stacks.shared.embedding.weight": 0.4}
    fine = judge_gradients(norms, [3.0, 2.0])
    assert fine.status == OK and "norm 0.5 after 2 steps" in fine.detail
    dead = judge_gradients(norms | {"stacks.shared.norm.weight": 0.0}, [3.0, 2.0])
    assert dead.status == FAIL and "stacks.shared.norm.weight" in dead.detail
    broken = judge_gradients(norms | {"stacks.shared.norm.weight": float("nan")}, [3.0, 2.0])
    assert broken.status == FAIL and "32-true" in broken.remedy
    assert judge_gradients(norms, [3.0, float("nan")]).status == FAIL
    assert judge_gradients(norms, [3.0, 6.1]).status == WARN


def test_compilation_is_warned_of_where_it_has_not_been_seen_to_pay():
    packed = TrainingConfig(batching="pack")
    assert doctor_checks.check_compilation(packed, TrainerConfig(), "cuda") == []
    for device, words in (("cpu", "no faster"), ("cuda", "never run on a GPU")):
        (found,) = doctor_checks.check_compilation(packed, TrainerConfig(compile=True), device)
        assert (found.status, words in found.detail) == (WARN, True)
    with pytest.raises(UserError, match=r"training\.batching=pack"):
        doctor_checks.check_compilation(TrainingConfig(), TrainerConfig(compile=True), "cpu")
