"""The benchmarks run, and compare what they say they compare. Nothing here measures time."""

from __future__ import annotations

import importlib.util
import re
from importlib import resources

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    cost,
    likelihood_variance,
    loader,
    parallel_decoding,
    sample,
    startup,
    train_step,
)
from benchmarks.bd3lm_baseline import (
    keep_activations,
    pad_documents,
    published_loss,
    published_mask,
    row_blocks,
)
from benchmarks.plain_sampler import plain_cost, plain_sample
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.model import transformer
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cost import Lengths
from hbd3lm.model.layout import build_document, plan_execution_layout
from hbd3lm.model.mask import Tags, dense_mask
from hbd3lm.sample.decoder import Prompt, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig
from tests.toys import FILL, MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 12, 4, 4)


def full_length_document():
    ids = {segment.name: [3] * segment.max_len for segment in LAYOUT.segments}
    return build_document([1] * LAYOUT.question_len, ids, LAYOUT, FILL)


def loss_and_gradient(net, compute) -> tuple[float, torch.Tensor]:
    net.zero_grad()
    loss = compute()
    loss.backward()
    return float(loss.detach()), torch.cat(
        [parameter.grad.flatten() for parameter in net.parameters()]
    )


@pytest.mark.parametrize("head", ["all", "noisy"])
@pytest.mark.parametrize("like_ours", [False, True])
def test_the_padded_layout_gives_our_loss_and_gradient(like_ours, head):
    """As published on full-length documents; on ragged ones once padding is hidden."""
    net = toy_net().double()
    documents = random_documents(LAYOUT, 6, seed=1) if like_ours else [full_length_document()] * 3
    objective = BlockDiffusion(LAYOUT, MASK)
    noises = objective.training_noise(documents, np.random.default_rng(0))
    padded = pad_documents(documents, noises, LAYOUT, MASK, FILL, like_ours)
    batch = objective.assemble(documents, noises)
    ours = loss_and_gradient(net, lambda: negative_log_likelihood(net, batch).sum())
    theirs = loss_and_gradient(net, lambda: published_loss(net, padded, head))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-4, atol=1e-4)
    assert theirs[1].abs().max() > 1


@torch.no_grad()
def test_padding_that_is_seen_changes_the_loss():
    """Why ragged documents are compared with their padding hidden."""
    net = toy_net().double()
    documents = random_documents(LAYOUT, 6, seed=1)
    noises = BlockDiffusion(LAYOUT, MASK).training_noise(documents, np.random.default_rng(0))
    seen, hidden = (
        float(published_loss(net, pad_documents(documents, noises, LAYOUT, MASK, FILL, like_ours)))
        for like_ours in (False, True)
    )
    assert abs(seen - hidden) > 1e-2 * hidden


def test_the_published_mask_is_our_rule_over_a_padded_row():
    block = row_blocks(LAYOUT)
    assert block.tolist() == [0] * 8 + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    noisy = torch.arange(2 * len(block)) < len(block)
    tags = Tags(torch.zeros_like(noisy, dtype=torch.long), noisy, block.repeat(2))
    # x_t holds the question too, where ours does not: there it sees itself only.
    assert torch.equal(published_mask(LAYOUT), dense_mask(tags, tags))


def counted_flops(compute) -> int:
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        compute().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", [{}, {"mlp": "swiglu", "n_heads": 4, "n_kv_heads": 2}])
def test_counted_flops_of_the_padded_layout_are_those_of_torchs_own_counter(changes):
    net = toy_net(**changes)
    documents = random_documents(LAYOUT, 3, seed=2)
    noises = BlockDiffusion(LAYOUT, MASK).training_noise(documents, np.random.default_rng(0))
    padded = pad_documents(documents, noises, LAYOUT, MASK, FILL)
    for head in ("all", "noisy"):
        expected = 3 * train_step.padded_flops(net.config, 3, LAYOUT.max_len, head)
        assert counted_flops(lambda head=head: published_loss(net, padded, head)) == expected


def test_counted_flops_of_the_plain_sampler_are_those_of_torchs_own_counter():
    net, prompt = toy_net(), Prompt(0, [1, 2, 3, 4, 5])
    ids = SpecialIds(MASK, FILL, {"plan": -1, "execution": -1})
    config = SamplingConfig(method="first_hitting", temperature=1.0)
    # Without its inference mode, under which the counter sees no products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sample_ = plain_sample.__wrapped__(net, LAYOUT, ids, config, prompt)
    expected = plain_cost(net.config, LAYOUT, Lengths(5, (8, 12)))
    assert counter.get_total_flops() == expected.operations.total
    assert sample_.evaluations == expected.evaluations
    everywhere = plain_cost(net.config, LAYOUT, Lengths(5, (8, 12)), logits_everywhere=True)
    more = (everywhere.tokens - 4 * everywhere.evaluations) * 2 * net.config.dim * MASK
    assert everywhere.operations.total - expected.operations.total == more


def test_the_cost_benchmark_counts_and_measures(capsys, monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setattr(cost, "matrix_rate", lambda device, dtype, clock: 1e9)
    monkeypatch.setattr(cost, "bandwidth", lambda device, clock: 1e9)
    options = ["--problems", "32", "--vocab", "5000", "--threads", "1", "--repeats", "1"]
    assert cost.main([*options, "--measure", "quick"]) == 0
    printed = capsys.readouterr().out
    for name in ("nano", "tiny", "small", "medium"):
        assert len(re.findall(rf"^{name} +[\d.]+ +[\d.]+", printed, re.M)) == 2
    for label in ("ideal step", "measured over ideal", "model FLOPs utilisation", "profile"):
        assert label in printed
    with pytest.raises(UserError, match="set --threads 1 as well"):
        cost.main(["--clock", "cpu"])


@pytest.mark.parametrize("name", ["nano", "tiny", "small", "medium"])
def test_model_sizes_are_those_of_the_configuration(name):
    config = OmegaConf.load(str(resources.files("hbd3lm") / "configs" / "model" / f"{name}.yaml"))
    assert {key: config[key] for key in train_step.SIZES[name]} == train_step.SIZES[name]


def test_the_plain_layout_keeps_its_activations(monkeypatch):
    monkeypatch.setattr(transformer, "remade", transformer.remade)  # put back afterwards
    mlp = transformer.MLP(ModelConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2))
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    for plain in (False, True):
        if plain:
            keep_activations()
        kept.clear()
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            mlp(torch.randn(5, 8, requires_grad=True))
        # The input of the activation function always; what it gives only here.
        assert kept.count(5 * mlp.down.in_features) == 1 + plain


@pytest.mark.parametrize("together", [[], ["--apart"]])
def test_the_training_benchmark_prints_its_table(capsys, monkeypatch, together):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    size = ["--quick", "--kinder", "--vocab", "5000", "--threads", "1"]
    assert train_step.main([*size, *together]) == 0
    printed = capsys.readouterr().out
    assert "same loss for the same x_t" in printed
    rows = [line for line in printed.splitlines() if "x " in line and "." in line]
    for name in (
        "ours ",
        "BD3-LM, written plainly",
        "BD3-LM's layout, all else ours",
        "BD3-LM, logits of x_t only",
    ):
        assert any(line.startswith(name) for line in rows)


def test_the_sampling_benchmark_prints_its_table(capsys, monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    assert sample.main(["--quick", "--batch_size", "3"]) == 0
    printed = capsys.readouterr().out
    assert "same tokens from both samplers" in printed
    rows = {line.split("  ")[0].rstrip(): line.split() for line in printed.splitlines()}
    plain, ours = (
        next(cells for name, cells in rows.items() if name.startswith(start))
        for start in ("plain: one by one", "ours: 3 at a time")
    )
    assert plain[-2] == ours[-2], "both take the same number of evaluations"


def test_the_loader_benchmark_prints_shares_of_a_step(capsys, monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    assert loader.main(["--quick", "--threads", "1", "--precision", "32-true"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.endswith("%")]
    assert [row[0] for row in rows] == ["draw", "make", "through", "training"]
    assert rows[-1][-1] == "100.00%"
    for row in rows:
        milliseconds, batches, examples = map(float, row[-4:-1])
        assert examples == pytest.approx(2 * batches, rel=0.01)
        assert batches * milliseconds == pytest.approx(1000, rel=0.2)


def test_the_startup_benchmark_prints_a_row_a_program(capsys):
    assert startup.main(["--quick"]) == 0
    printed = capsys.readouterr().out
    for name in ("(python itself)", "hbd3lm --help", "hbd3lm train --help"):
        assert any(line.startswith(name) and line.endswith("-") for line in printed.splitlines())
    assert "of 3 within 0.5 s" in printed


def test_the_startup_benchmark_knows_every_program_and_sees_heavy_imports(monkeypatch, capsys):
    programs = startup.programs()
    for name in ("hbd3lm export", "main.py", "scripts/analysis/analyze_gsm8k_plans.py"):
        assert f"{name} --help" in programs
    code = "import json, matplotlib"
    assert startup.heavy_imports(["-c", code])[1] == {"matplotlib"}
    monkeypatch.setattr(startup, "programs", lambda: {"bad": ["-c", "import matplotlib"]})
    assert startup.main(["--repeats", "1"]) == 1
    with pytest.raises(RuntimeError, match="failed"):
        startup.start(["-c", "raise SystemExit(3)"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_overhead_benchmark_prints_its_table(capsys, monkeypatch, tmp_path):
    from benchmarks import plan_overhead
    from tests.toy_chat_model import save_chat_model

    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    folder = str(save_chat_model(tmp_path / "model", context=2048))  # tokens are bytes here
    assert plan_overhead.main(["--quick", "--model", folder, "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr().out
    assert "4 problems, 1 turns each" in printed
    assert re.search(r"submit and poll over LLM.chat: \d\.\d{3}", printed)


def test_a_vocabulary_too_small_is_refused_by_name(monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    with pytest.raises(UserError, match=r"--vocab 300 does not hold"):
        train_step.main(["--vocab", "300", "--quick"])


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (train_step, ["--batch_size", "0"], "--batch_size: '0' is no whole number of at least 1"),
        (train_step, ["--large_batch", "-1"], "--large_batch: '-1' is no whole number of 0 or"),
        (sample, ["--batch_size", "0"], "--batch_size: '0' is no whole number of at least 1"),
        (loader, ["--workers", "-1"], "--workers: '-1' is no whole number of 0 or more"),
        (startup, ["--repeats", "0"], "--repeats: '0' is no whole number of at least 1"),
        (likelihood_variance, ["--draws", "1"], "--draws: '1' is no whole number of at least 2"),
        (parallel_decoding, ["--thresholds", "nan"], "--thresholds: 'nan' is no finite number"),
    ],
)
def test_numbers_that_are_none_are_refused_by_their_flag(program, arguments, message, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2 and message in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path):
    """A small random network as a run would have left it."""
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.model.checkpoint import KEY, NET_PREFIX, ModelCard
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.transformer import Transformer

    tokenizer = load_tokenizer("gsm")
    config = ModelConfig(tokenizer.vocab_size, 16, 1, 2)
    about = {"name": "gsm", "fingerprint": tokenizer.fingerprint}
    card = ModelCard(config, plan_execution_layout(96, 96, 96, 4, 4), "diffusion", about)
    weights = {NET_PREFIX + n: t for n, t in Transformer(config).state_dict().items()}
    path = tmp_path / "checkpoints" / "best.ckpt"
    path.parent.mkdir()
    torch.save({KEY: card.to_dict(), "state_dict": weights}, path)
    return path


def test_the_variance_benchmark_shows_that_counts_beat_times(checkpoint, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--problems", "6", "--draws", "4"]
    assert likelihood_variance.main([*arguments, "--gradient_draws", "4", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    lines = [
        line for line in printed.splitlines() if line.startswith(("random", "times", "counts"))
    ]
    rows = {line[:30].strip(): [float(cell) for cell in line[30:].split()] for line in lines[:4]}
    assert len(rows) == 4
    plain, best = rows["random times"], rows["counts stratified over draws"]
    assert best[2] < 0.5 * plain[2], "variance"
    for nats, error, *_ in rows.values():
        # One bound, four estimators: a few errors apart at most.
        assert abs(nats - best[0]) < 5 * (error + best[1])
    traces = [float(line.split()[2]) for line in printed.splitlines() if line.startswith("(0")]
    assert len(traces) == 5 and traces[-1] < traces[0]
    shared = [line.split() for line in printed.splitlines() if line.startswith(("a clean", "one"))]
    assert [row[-3] for row in shared] == [shared[0][-3]] * 2, "nats a token"


def test_the_variance_benchmark_refuses_exact_models(checkpoint):
    content = torch.load(checkpoint, weights_only=True)
    content["hbd3lm"]["objective"] = "autoregressive"
    torch.save(content, checkpoint)
    with pytest.raises(UserError, match="its likelihood is exact"):
        likelihood_variance.main(["--checkpoint", str(checkpoint)])


def test_parallel_decoding_is_compared_in_speed_and_in_right_answers(checkpoint, tmp_path, capsys):
    examples = [
        HierarchicalExample(f"p{i}", f"Ann has {i} apples.", "Take them.", f"#### {i}", str(i))
        for i in range(3)
    ]
    path = tmp_path / "test.json"
    write_examples(path, examples)
    arguments = ["--checkpoint", str(checkpoint), "--data_path", str(path), "--repeats", "1"]
    arguments += ["--plain", "1", "--precision", "32-true", "--thresholds", "0.9", "0.000001"]
    assert parallel_decoding.main([*arguments, "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("x ")[1].split() for line in printed.splitlines() if "x " in line]
    one_by_one, stepwise, mixed, sure, anything = (float(row[0]) for row in rows)
    assert stepwise == mixed >= sure > anything
    assert one_by_one > 0
    assert [row[1:3] for row in rows[1:]] == [["0", "(0.0%,"]] * 4  # a random network
