"""Counts made from shapes against torch's own counter on real steps, and against real networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hbd3lm.diffusion.corruption import Noise
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion, negative_log_likelihood
from hbd3lm.model import cross_entropy
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cost import (
    EVALUATION,
    Lengths,
    PartShape,
    SamplingCost,
    backward_operations,
    evaluation_operations,
    expected_shapes,
    forward_operations,
    masked_by_step,
    optimizer_operations,
    parameters_by_module,
    sampling_cost,
    shapes_of_batch,
    step_bytes,
    step_operations,
)
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.memory import BatchShape, activation_bytes
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.cache import GROWTH
from hbd3lm.sample.decoder import Decoder, Prompt, SpecialIds
from hbd3lm.sample.strategies import BlockState, Confidence, SamplingConfig
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.optim import make_optimizer
from tests.toys import FILL, MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 12, 4, 4)
FIELDS = {
    "plain": {},
    "swiglu, grouped keys": {"mlp": "swiglu", "n_heads": 4, "n_kv_heads": 2},
    "biases, own head": {
        "attention_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
        "head_bias": True,
        "tie_embeddings": False,
    },
    "wide heads, layernorm": {"head_dim": 12, "norm": "layernorm", "qk_norm": False},
    "separate": {"modules": "separate"},
    "shifted head": {"shift": True},
    "shifted head, separate": {"shift": True, "modules": "separate"},
}


def lengths_of(document) -> Lengths:
    return Lengths(len(document.question), tuple(np.bincount(document.segment[document.real])))


def numbers(part: PartShape) -> list[float]:
    return [value for value in vars(part).values() if value is not None]


def fully(part: PartShape, shift: bool) -> PartShape:
    """Where only first tokens are asked there is no noisy stream, and no word of ``ahead``."""
    return replace(part, predicted=0, ahead=part.predicted) if shift and not part.noisy else part


def counted_by_operator(compute) -> dict[str, int]:
    # The fused kernel multiplies the scores once more in its backward pass; we have none such.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        compute()
    return {str(name): n for name, n in counter.get_flop_counts().get("Global", {}).items()}


def counted(compute) -> int:
    return sum(counted_by_operator(compute).values())


def check_sampling(found: dict[str, int], expected: SamplingCost, config: ModelConfig) -> None:
    """Weights exactly; attention but for the spare columns of the cache."""
    attention = found.pop("aten.bmm")
    operations = expected.operations
    assert sum(found.values()) == operations.matrices + operations.head
    of_pair = 4 * config.n_layers * config.n_heads * config.resolved_head_dim
    assert 0 <= attention - operations.attention <= of_pair * expected.tokens * 2 * GROWTH


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_parameters_by_module_are_those_of_the_network(fields):
    config = ModelConfig(**({"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2} | fields))
    net = Transformer(config)
    found = parameters_by_module(config)
    assert list(found) == list(net.stacks)
    for name, stack in net.stacks.items():
        by_part = dict.fromkeys(("embedding", "attention", "mlp", "norms", "head"), 0)
        for path, parameter in stack.named_parameters():
            if "norm" in path:
                key = "norms"
            elif path == "output_bias":
                key = "head"
            else:
                key = next(k for k in by_part if k in path)
            by_part[key] += parameter.numel()
        assert vars(found[name]) == by_part
    assert sum(m.total for m in found.values()) == net.count_parameters()
    assert sum(m.blocks for m in found.values()) == net.count_parameters(embeddings=False)


@pytest.mark.parametrize("kept", [True, False], ids=["logits kept", "logits made twice"])
@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_operations_of_a_step_are_those_torch_counts(fields, kept, monkeypatch):
    """Exactly, forward and backward apart, padding and masked pairs included."""
    if not kept:
        monkeypatch.setattr(cross_entropy, "KEEP", 0)
    net = toy_net(**fields)
    documents = random_documents(LAYOUT, 4, seed=2)
    objective = BlockDiffusion(LAYOUT, MASK, net.config.modules, shift=net.config.shift)
    noises = objective.training_noise(documents, np.random.default_rng(0))
    batch = objective.assemble(documents, noises)
    parts = shapes_of_batch(batch)
    losses = []
    found = counted(lambda: losses.append(negative_log_likelihood(net, batch).sum()))
    assert found == forward_operations(net.config, parts).total
    expected = backward_operations(net.config, parts, recomputed=True)
    assert counted(losses[0].backward) == expected.total
    assert step_operations(net.config, parts).total == 3 * found
    assert (expected.total > 2 * found) is not kept


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_operations_of_draws_that_share_clean_tokens_are_those_torch_counts(modules):
    net, rng = toy_net(modules=modules), np.random.default_rng(0)
    documents, objective = random_documents(LAYOUT, 2), BlockDiffusion(LAYOUT, MASK, modules)
    noises = [objective.evaluation_noise(document, 3, rng) for document in documents]
    batch = objective.assemble_draws(documents, noises)
    found = counted(lambda: negative_log_likelihood(net, batch))
    assert forward_operations(net.config, shapes_of_batch(batch)).total == found
    alone = [[objective.assemble([d], [n]) for n in ns] for d, ns in zip(documents, noises)]
    for i, part in enumerate(shapes_of_batch(batch, read=True)):
        # Padding reads padding, in rows of their own there is none.
        padding = int(batch.parts[i].noisy.is_padding.sum(1).square().sum())
        pairs = [shapes_of_batch(b, read=True)[i].noisy_pairs for draws in alone for b in draws]
        assert part.noisy_pairs - padding == sum(pairs)


def test_operations_of_next_token_training_are_those_torch_counts():
    net, layout = toy_net(), plan_execution_layout(8, 8, 12, 1, 1)
    documents = random_documents(layout, 4, seed=2)
    objective = Autoregressive(layout)
    batch = objective.assemble(documents, objective.training_noise(documents, None))
    expected = step_operations(net.config, shapes_of_batch(batch))
    assert counted(lambda: negative_log_likelihood(net, batch).sum().backward()) == expected.total


@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("read", [True, False], ids=["pairs read", "all pairs"])
@pytest.mark.parametrize("times", [(0.001, 1.0), (0.3, 0.8), EVALUATION], ids=str)
@pytest.mark.parametrize(
    "adapted",
    [{}, {"shift": True}, {"causal_context": True}, {"shift": True, "causal_context": True}],
    ids=["as usual", "shifted", "causal", "both"],
)
def test_expected_shapes_are_the_mean_of_many_draws(times, read, modules, adapted):
    objective = BlockDiffusion(LAYOUT, MASK, modules, **adapted)
    if times != EVALUATION:
        objective = replace(objective, schedule=type(objective.schedule)(*times))
    (document,) = random_documents(LAYOUT, 1, seed=4)
    rng, draws = np.random.default_rng(1), 600
    if times == EVALUATION:
        noises = objective.evaluation_noise(document, draws, rng)
    else:
        noises = objective.training_noise([document] * draws, rng)
    found = np.array(
        [
            [numbers(fully(p, objective.shift)) for p in shapes_of_batch(batch, read)]
            for batch in (objective.assemble([document], [noise]) for noise in noises)
        ]
    )
    expected = expected_shapes(
        LAYOUT, [lengths_of(document)], modules=modules, times=times, read=read, **adapted
    )
    error = found.std(0) / np.sqrt(draws)
    off = np.array([numbers(p) for p in expected]) - found.mean(0)
    assert (np.abs(off) <= 4 * error + 1e-9).all(), off / np.maximum(error, 1e-9)


def test_shapes_without_chance_are_exact():
    """Everything masked, and next-token prediction."""
    documents = random_documents(LAYOUT, 1, seed=5)
    lengths = [lengths_of(d) for d in documents]
    noise = Noise(np.ones(len(documents[0].targets), bool), np.ones_like(documents[0].targets))
    for modules in ("shared", "separate"):
        for shift in (True, False):
            for causal in (True, False):
                objective = BlockDiffusion(
                    LAYOUT, MASK, modules, shift=shift, causal_context=causal
                )
                batch = objective.assemble(documents, [noise])
                for read in (True, False):
                    expected = expected_shapes(
                        LAYOUT, lengths, modules=modules, times=(1.0, 1.0), read=read,
                        shift=shift, causal_context=causal,
                    )  # fmt: skip
                    assert expected == shapes_of_batch(batch, read)
    batch = BlockDiffusion(LAYOUT, MASK).assemble(documents, [noise])
    for read in (True, False):
        expected = expected_shapes(LAYOUT, lengths, times=(1.0, 1.0), read=read)
        assert expected == shapes_of_batch(batch, read)
    layout = plan_execution_layout(8, 8, 12, 1, 1)
    documents = random_documents(layout, 1, seed=5)
    objective = Autoregressive(layout)
    batch = objective.assemble(documents, objective.training_noise(documents, None))
    for read in (True, False):
        expected = expected_shapes(
            layout, [lengths_of(documents[0])], autoregressive=True, read=read
        )
        assert expected == shapes_of_batch(batch, read)


def test_the_pairs_of_a_small_problem_by_hand():
    """Question of 2, two blocks of 4: the last has no clean copy; all is masked."""
    layout = plan_execution_layout(4, 4, 4, 4, 4)
    (part,) = expected_shapes(layout, [Lengths(2, (3, 4))], times=(1.0, 1.0))
    assert (part.clean, part.noisy, part.predicted) == (6, 8, 8)
    assert part.clean_pairs == 2 * 2 + 4 * 6
    assert part.noisy_pairs == 4 * (2 + 4) + 4 * (2 + 4 + 4)


def test_separate_modules_double_the_weights_and_not_the_operations():
    shared = ModelConfig(vocab_size=50, dim=16, n_layers=3, n_heads=2)
    separate = replace(shared, modules="separate")
    problems = [lengths_of(d) for d in random_documents(LAYOUT, 20, seed=6)]
    one, two = (
        step_operations(config, expected_shapes(LAYOUT, problems, modules=config.modules))
        for config in (shared, separate)
    )
    assert vars(two) == pytest.approx(vars(one))
    for problem in problems:
        assert evaluation_operations(separate, LAYOUT, problem) == pytest.approx(
            evaluation_operations(shared, LAYOUT, problem)
        )
    plan, execution = parameters_by_module(separate).values()
    assert plan == execution == parameters_by_module(shared)["shared"]


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_operations_of_the_optimiser_are_those_torch_counts(fields):
    net = toy_net(**fields)
    for name in ("muon", "adamw"):
        optimizer = make_optimizer(net, TrainingConfig(optimizer=name))
        for parameter in net.parameters():
            parameter.grad = torch.ones_like(parameter)
        assert counted(optimizer.step) == optimizer_operations(net.config, name)


@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("asked", ["one", "masked", "halves", "thirds"])
def test_operations_of_a_sampled_problem_are_those_torch_counts(asked, modules):
    net = toy_net(modules=modules)
    ids = SpecialIds(mask=MASK, fill=FILL, ends={"plan": -1, "execution": -1})
    settings, cost = {"method": "confidence"}, {"asked": "masked"}
    if asked == "one":
        settings, cost = {"method": "first_hitting", "temperature": 1.0}, {}
    elif asked != "masked":  # thirds of four tokens: 2, 1 and 1
        steps = {"halves": 2, "thirds": 3}[asked]
        settings["steps"], cost["steps"] = steps, (steps, steps)
    decoder = Decoder(net, LAYOUT, ids, SamplingConfig(**settings))
    samples = []
    found = counted_by_operator(
        lambda: samples.extend(decoder.sample([Prompt(0, [1, 2, 3, 4, 5])]))
    )
    expected = sampling_cost(net.config, LAYOUT, Lengths(5, (8, 12)), **cost)
    check_sampling(found, expected, net.config)
    assert samples[0].evaluations == expected.evaluations == decoder.statistics.rows
    assert decoder.statistics.positions == expected.tokens


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 7, 16, 40])
def test_the_positions_of_every_step_are_those_the_decoder_asks_about(steps):
    """With 3 steps for 16 tokens 11 and 6 were counted in the later ones; 10 and 5 are asked."""
    for size in range(1, 17):
        strategy, step = Confidence(steps, None), np.zeros(1, dtype=np.int64)
        masked, found = np.ones((1, size), dtype=bool), []
        while masked.any():
            state = BlockState(masked, np.zeros(1, int), np.ones(1, int), step, np.array([size]))
            asked = strategy.choose(state)
            found.append(int(asked.sum()))
            masked = masked & ~strategy.decide(state, asked, np.full((1, size), 0.5))
        assert masked_by_step(size, steps) == found


def test_operations_of_a_problem_sampled_token_by_token_are_those_torch_counts():
    net, layout = toy_net(), plan_execution_layout(8, 8, 12, 1, 1)
    ids = SpecialIds(mask=MASK, fill=FILL, ends={"plan": -1, "execution": -1})
    decoder = Decoder(net, layout, ids, SamplingConfig(), autoregressive=True)
    found = counted_by_operator(lambda: decoder.sample([Prompt(0, [1, 2, 3, 4, 5])]))
    expected = sampling_cost(net.config, layout, Lengths(5, (8, 12)), autoregressive=True)
    check_sampling(found, expected, net.config)
    assert decoder.statistics.positions == expected.tokens


def test_bytes_of_a_step_by_hand():
    config = ModelConfig(100, 16, 2, 2)  # 7,856 weights, 6,144 of them in the blocks' matrices
    shape = BatchShape(1, 8, 8, 4)
    found = step_bytes(config, shape)
    assert found.weights == 3 * 4 * 7856
    assert found.update == 4 * (3 + 7 + 3) * 7856
    assert found.activations == 2 * (activation_bytes(config, shape) + 4 * 99 * 4)
    muon = step_bytes(config, shape, optimizer="muon", average=False)
    assert muon.update == 4 * (10 * 7856 - 2 * 6144)
    assert step_bytes(config, shape, mixed=True).activations != found.activations
