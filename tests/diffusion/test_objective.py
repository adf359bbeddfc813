"""The losses against exact values: enumeration, autoregressive NLL, batching, perturbation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks.plain_sampler import full_forward
from hbd3lm.diffusion.corruption import Noise, noise_by_count
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion, negative_log_likelihood
from hbd3lm.diffusion.schedule import LogLinearSchedule, stratified_uniform
from hbd3lm.diffusion.variance import block_losses
from hbd3lm.errors import UserError
from hbd3lm.model.layout import build_document, plan_execution_layout
from tests.toys import MASK, random_documents, toy_net


@torch.no_grad()
def test_block_size_one_equals_the_plain_autoregressive_nll():
    """Computed the plain way: one causal pass per token over [past, mask], last logit read."""
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    net = toy_net().double()
    document = random_documents(layout, 1, seed=3)[0]
    objective = BlockDiffusion(layout, MASK)
    noise = objective.evaluation_noise(document, 1, np.random.default_rng(0))
    got = negative_log_likelihood(net, objective.assemble([document], noise)).sum()

    expected = 0.0
    n_question = len(document.question)
    ids = np.concatenate([document.question, document.targets])
    for i, target in enumerate(document.targets):
        logits = plain_forward(net, [*ids[: n_question + i], MASK], n_question)[-1]
        expected -= float(F.log_softmax(logits, -1)[target])
    assert not objective.is_bound
    assert float(got) == pytest.approx(expected, rel=1e-5)


def plain_forward(net, ids, n_question):
    """A second, plain implementation: bidirectional question, then causal; no cache, no passes."""
    config, stack = net.config, net.stacks["shared"]
    n = len(ids)
    index = torch.arange(n)
    visible = (index[None] <= index[:, None]) | (
        (index[None] < n_question) & (index[:, None] < n_question)
    )
    d, heads = config.resolved_head_dim, config.n_heads
    angle = index[:, None] * config.rope_base ** (-torch.arange(0, d, 2) / d)[None]
    x = stack.embedding.weight[torch.tensor(ids)]
    for block in stack.blocks:
        h = block.attention_norm(x)
        q = block.attention.q_norm((h @ block.attention.wq.weight.T).view(n, heads, d))
        kv = (h @ block.attention.wkv.weight.T).view(n, 2, heads, d)
        k, v = block.attention.k_norm(kv[:, 0]), kv[:, 1]

        def turn(t):
            a, b = t[..., : d // 2], t[..., d // 2 :]
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        scores = torch.einsum("qhd,khd->hqk", turn(q), turn(k)) / math.sqrt(d)
        weights = scores.masked_fill(~visible, -math.inf).softmax(-1)
        mixed = torch.einsum("hqk,khd->qhd", weights.to(v.dtype), v).reshape(n, -1)
        x = x + mixed @ block.attention.wo.weight.T
        h = block.mlp_norm(x)
        hidden = F.gelu(h @ block.mlp.up.weight.T, approximate="tanh")
        x = x + hidden @ block.mlp.down.weight.T
    return stack.norm(x) @ stack.embedding.weight[:-1].T


def exact_nelbo(net, objective, document) -> float:
    """Sum over every masked set S of a one-block document, weighted 1 / (m * binomial(B, m))."""
    size = len(document.targets)
    noises, weights = [], []
    for m in range(1, size + 1):
        for subset in itertools.combinations(range(size), m):
            masked = np.zeros(size, dtype=bool)
            masked[list(subset)] = True
            noises.append(Noise(masked, masked.astype(np.float32)))
            weights.append(1 / (m * math.comb(size, m)))
    losses = negative_log_likelihood(net, objective.assemble([document] * len(noises), noises))
    return float((losses.sum(1) * torch.tensor(weights)).sum())


@pytest.fixture
def one_block():
    layout = plan_execution_layout(4, 4, 4, 4, 4, with_plan=False)
    objective = BlockDiffusion(layout, MASK, schedule=LogLinearSchedule(low=0.0))
    document = build_document([1, 2, 3], {"execution": [4, 5, 6]}, layout, fill_id=7)
    return objective, document


def estimate(net, objective, document, noises) -> tuple[float, float]:
    losses = negative_log_likelihood(net, objective.assemble([document] * len(noises), noises))
    per_draw = losses.sum(1)
    return float(per_draw.mean()), float(per_draw.std() / len(noises) ** 0.5)


@torch.no_grad()
def test_both_estimators_of_the_nelbo_agree_with_full_enumeration(one_block):
    objective, document = one_block
    net, rng = toy_net(), np.random.default_rng(0)
    exact = exact_nelbo(net, objective, document)
    by_time = [objective.training_noise([document], rng)[0] for _ in range(6000)]
    mean, error = estimate(net, objective, document, by_time)
    assert abs(mean - exact) < 4 * error
    by_count = [n for _ in range(500) for n in noise_by_count(document, 4, rng)]
    mean, count_error = estimate(net, objective, document, by_count)
    assert abs(mean - exact) < 4 * count_error
    assert error < 0.25 * exact, "the test must be able to tell a wrong weight"
    assert count_error * len(by_count) ** 0.5 < 0.5 * error * len(by_time) ** 0.5


def test_counting_masks_every_size_equally_often_and_weighs_it_by_size_over_count(one_block):
    _, document = one_block
    noises = noise_by_count(document, 4, np.random.default_rng(5))
    counts = sorted(int(noise.masked.sum()) for noise in noises)
    assert counts == [1, 2, 3, 4]
    for noise in noises:
        assert np.allclose(noise.weight[noise.masked], 4 / noise.masked.sum())
        assert not noise.weight[~noise.masked].any()


def test_times_are_stratified_over_all_blocks_of_the_batch():
    uniform = stratified_uniform(50, np.random.default_rng(0))
    times = np.sort(LogLinearSchedule(low=0.0).stretch(uniform))
    assert (np.floor(np.nextafter(times, 0) * 50) == np.arange(50)).all()
    clipped = LogLinearSchedule(0.3, 0.8).stretch(uniform)
    assert clipped.min() > 0.3 and clipped.max() <= 0.8
    with pytest.raises(UserError, match="t_min"):
        LogLinearSchedule(0.8, 0.3)


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_packed_bucketed_and_single_batches_give_the_same_loss_and_gradients(modules):
    layout = plan_execution_layout(8, 8, 12, 4, 2)
    net = toy_net(modules=modules).double()
    objective = BlockDiffusion(layout, MASK, modules)
    documents = random_documents(layout, 5, seed=1)
    noises = objective.training_noise(documents, np.random.default_rng(2))

    def run(batches):
        net.zero_grad()
        losses = [negative_log_likelihood(net, batch) for batch in batches]
        sum(loss.sum() for loss in losses).backward()
        gradients = torch.cat([p.grad.flatten() for p in net.parameters()])
        return torch.cat(losses).detach(), gradients.clone()

    single = run([objective.assemble([d], [n]) for d, n in zip(documents, noises)])
    padded = run([objective.assemble(documents, noises)])
    packed = run([objective.assemble(documents, noises, rows=[[0, 3], [1, 2, 4]])])
    assert single[1].abs().max() > 1e-3
    for other in (padded, packed):
        torch.testing.assert_close(other[0], single[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other[1], single[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modules", ["shared", "separate"])
@torch.no_grad()
def test_plan_logits_do_not_change_by_a_bit_when_the_execution_does(modules):
    layout = plan_execution_layout(8, 8, 12, 4, 4)
    net = toy_net(modules=modules)
    objective = BlockDiffusion(layout, MASK, modules)
    documents = random_documents(layout, 4, seed=1)
    noises = objective.training_noise(documents, np.random.default_rng(2))
    batch = objective.assemble(documents, noises)

    def plan_hidden(change):
        part = batch.parts[0]
        streams = []
        for stream, segment in ((part.clean, None), (part.noisy, part.prediction.segment)):
            ids = stream.ids.clone()
            if change and modules == "shared":
                if segment is None:
                    first = {
                        d: int(doc.block[doc.segment == 1][0]) for d, doc in enumerate(documents)
                    }
                    starts = torch.tensor([first[d] for d in range(len(documents))])
                    execution = stream.tags.block >= starts[:, None]
                else:
                    execution = segment == 1
                ids[execution & ~stream.is_padding] = 5
                assert not torch.equal(ids, stream.ids)
            streams.append(type(stream)(ids, stream.position, stream.tags))
        _, past = net(streams[0], module=part.module, keys_only=True)
        hidden, _ = net(streams[1], past, part.module)
        return net.logits(hidden, part.module)[
            (part.prediction.segment == 0) & ~part.noisy.is_padding
        ]

    before, after = plan_hidden(False), plan_hidden(True)
    assert torch.equal(before, after)
    # With separate modules the plan's part holds no execution token at all.
    if modules == "separate":
        assert not (batch.parts[0].prediction.segment == 1).any()


@torch.no_grad()
def test_freezing_h_freezes_the_plan_because_l_weights_do_not_touch_it():
    layout = plan_execution_layout(8, 8, 12, 4, 4)
    net = toy_net(modules="separate")
    objective = BlockDiffusion(layout, MASK, "separate")
    documents = random_documents(layout, 3, seed=1)
    noises = objective.training_noise(documents, np.random.default_rng(2))
    batch = objective.assemble(documents, noises)
    before = negative_log_likelihood(net, batch)
    for parameter in net.stacks["execution"].parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    after = negative_log_likelihood(net, batch)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1])


def stretches_before(net, document, layout, block: int) -> list:
    """The clean past of a block, as the plain sampler has it."""
    first = net.module_of(layout.segments[0].name)
    past = [(first, document.question.tolist(), [0] * len(document.question), False)]
    for b in range(1, block):
        here = document.block == b
        module = net.module_of(layout.segments[document.segment[here][0]].name)
        past.append((module, document.targets[here].tolist(), [b] * here.sum(), False))
    return past


@torch.no_grad()
@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("blocks", [(4, 6), (1, 3), (1, 1)])
def test_the_loss_is_that_of_what_a_sampler_computes(modules, causal, shift, blocks):
    """Block by block, without the training's two streams: who predicts whom, and what it sees."""
    layout = plan_execution_layout(8, 12, 12, *blocks)
    net = toy_net(modules=modules, shift=shift, causal_context=causal).double()
    objective = BlockDiffusion(layout, MASK, modules, shift=shift, causal_context=causal)
    documents = random_documents(layout, 4, seed=5)
    noises = objective.training_noise(documents, np.random.default_rng(6))
    got = negative_log_likelihood(net, objective.assemble(documents, noises))
    for document, noise, row in zip(documents, noises, got):
        expected = torch.zeros(2, dtype=torch.double)
        for b in range(1, document.n_blocks + 1):
            here = document.block == b
            segment = int(document.segment[here][0])
            module = net.module_of(layout.segments[segment].name)
            masked = noise.masked[here]
            ids = np.where(masked, MASK, document.targets[here]).tolist()
            past = stretches_before(net, document, layout, b)
            hidden = full_forward(net, [*past, (module, ids, [b] * len(ids), True)])
            hidden = hidden[-len(ids) - 1 : -1] if shift else hidden[-len(ids) :]
            log_p = net.logits(hidden, module).log_softmax(-1)
            loss = -log_p[torch.arange(len(ids)), torch.from_numpy(document.targets[here])]
            weight = torch.from_numpy(noise.weight[here]).double()
            expected[segment] += (loss * weight)[torch.from_numpy(masked)].sum()
        torch.testing.assert_close(row.double(), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_shifted_and_causal_blocks_of_one_are_the_next_token_model():
    """So that a pretrained model is, before any training, the limit of small blocks."""
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    net = toy_net(shift=True, causal_context=True)
    documents = random_documents(layout, 3, seed=3)
    diffusion = BlockDiffusion(layout, MASK, shift=True, causal_context=True)
    losses = []
    for objective in (diffusion, Autoregressive(layout)):
        noises = [objective.evaluation_noise(d, 1, np.random.default_rng(0))[0] for d in documents]
        losses.append(negative_log_likelihood(net, objective.assemble(documents, noises)))
    assert torch.equal(*losses)


@torch.no_grad()
@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_a_shifted_loss_is_the_same_by_block_and_in_packed_rows(modules):
    layout = plan_execution_layout(8, 12, 12, 4, 2)
    net = toy_net(modules=modules, shift=True, causal_context=True)
    objective = BlockDiffusion(layout, MASK, modules, shift=True, causal_context=True)
    documents = random_documents(layout, 5, seed=1)
    noises = objective.training_noise(documents, np.random.default_rng(2))
    alone = objective.assemble(documents, noises)
    expected = negative_log_likelihood(net, alone)
    packed = objective.assemble(documents, noises, [[0, 3], [4, 1, 2]])
    torch.testing.assert_close(negative_log_likelihood(net, packed), expected)
    by_block = block_losses(net, alone)
    torch.testing.assert_close(by_block.by_segment(2), expected)
    for i, (document, noise) in enumerate(zip(documents, noises)):
        counts = np.bincount(document.block[noise.masked] - 1, minlength=by_block.loss.shape[1])
        assert by_block.n_masked[i].tolist() == counts.tolist()


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"modules": "separate"},
        {"causal_context": True},
        {"modules": "separate", "shift": True, "causal_context": True},
    ],
    ids=str,
)
def test_draws_that_share_their_clean_tokens_cost_what_they_do_alone(fields):
    layout = plan_execution_layout(8, 8, 12, 4, 2)
    net, objective = toy_net(**fields), BlockDiffusion(layout, MASK, **fields)
    documents = random_documents(layout, 3, seed=1)
    counts, rng = [3, 1, 4], np.random.default_rng(2)
    noises = [objective.evaluation_noise(d, n, rng) for d, n in zip(documents, counts)]
    shared = objective.assemble_draws(documents, noises)
    alone = objective.assemble(
        [d for d, n in zip(documents, counts) for _ in range(n)],
        [noise for draws in noises for noise in draws],
    )
    expected = negative_log_likelihood(net, alone)
    torch.testing.assert_close(negative_log_likelihood(net, shared), expected)
    assert torch.equal(shared.real_tokens, alone.real_tokens)
    for got, wanted in zip(block_losses(net, shared), block_losses(net, alone)):
        torch.testing.assert_close(got, wanted)
    for part in shared.parts:
        # A shifted head's clean tokens predict, and what depends on the draw.
        assert len(part.clean.ids) == (8 if objective.shift else 3)
        assert len(part.noisy.ids) == 8


@torch.no_grad()
def test_autoregressive_likelihood_is_the_causal_nll_of_plan_and_execution():
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    net = toy_net()
    objective = Autoregressive(layout)
    documents = random_documents(layout, 3, seed=3)
    noises = objective.training_noise(documents, np.random.default_rng(0))
    got = negative_log_likelihood(net, objective.assemble(documents, noises))
    for document, row in zip(documents, got):
        ids = [*document.question, *document.targets]
        log_p = F.log_softmax(plain_forward(net, ids[:-1], n_question=1), -1)
        start = len(document.question) - 1
        each = -log_p[torch.arange(start, len(ids) - 1), torch.tensor(document.targets)]
        for segment in (0, 1):
            expected = each[torch.tensor(document.segment) == segment].sum()
            torch.testing.assert_close(row[segment], expected, rtol=1e-4, atol=1e-4)


def test_contradictions_between_method_and_modules_are_refused():
    blocks = plan_execution_layout(8, 8, 8, 4, 4)
    with pytest.raises(UserError, match="block_size must be 1"):
        Autoregressive(blocks)
    with pytest.raises(UserError, match="separate does not fit algo=ar"):
        Autoregressive(plan_execution_layout(8, 8, 8, 1, 1), modules="separate")
    with pytest.raises(UserError, match="separate needs a plan"):
        BlockDiffusion(plan_execution_layout(8, 8, 8, 4, 4, with_plan=False), MASK, "separate")


def test_real_tokens_are_text_and_end_tokens_without_fill():
    layout = plan_execution_layout(8, 8, 8, 4, 4)
    document = build_document([1], {"plan": [2, 3, 4], "execution": [5] * 5}, layout, 7)
    noise = Noise(np.ones(12, dtype=bool), np.ones(12, dtype=np.float32))
    assert BlockDiffusion(layout, MASK).assemble([document], [noise]).real_tokens.tolist() == [
        [3, 5]
    ]
