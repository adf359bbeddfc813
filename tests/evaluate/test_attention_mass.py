"""Attention mass: what is recorded is what the layers computed, and all of it is counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.evaluate.attention_mass import (
    GROUPS,
    attention_mass,
    group_tokens,
    watched,
)
from hbd3lm.model.attention import attention_probabilities
from hbd3lm.model.layout import build_document, plan_execution_layout
from tests.toys import FILL, MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 8, 2, 4)


def random_groups(document):
    """Question groups at random; plan and execution as they are."""
    n = len(document.question)
    question = np.random.default_rng(n).integers(0, 3, n)
    return np.concatenate([question, np.where(document.segment == 0, 3, 5)])


@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("kv_heads", [None, 1])
def test_the_recorded_probabilities_reproduce_every_layers_output(modules, kv_heads):
    net = toy_net(modules=modules, n_kv_heads=kv_heads)
    objective = BlockDiffusion(LAYOUT, MASK, modules)
    documents = random_documents(LAYOUT, 3)
    rng = np.random.default_rng(0)
    noises = [objective.evaluation_noise(d, 1, rng)[0] for d in documents]
    batch = objective.assemble(documents, noises)
    layers = []

    def observe(layer, q, k, v, mask, mixed):
        p = attention_probabilities(q, k, mask)
        torch.testing.assert_close(p.sum(-1), torch.ones_like(p[..., 0]))
        values = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        torch.testing.assert_close((p @ values).transpose(1, 2).flatten(2), mixed)
        layers.append(layer)

    plain = negative_log_likelihood(net, batch)
    with watched(net, observe):
        seen = negative_log_likelihood(net, batch)
    assert torch.equal(plain, seen)
    assert set(layers) == {0, 1}
    assert net.observer is None
    layers.clear()
    negative_log_likelihood(net, batch)
    assert not layers  # nobody looks any more


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_all_mass_is_counted_and_batches_do_not_matter(modules):
    net = toy_net(modules=modules)
    objective = BlockDiffusion(LAYOUT, MASK, modules)
    documents = random_documents(LAYOUT, 5)
    groups = [random_groups(document) for document in documents]
    found = attention_mass(net, objective, documents, groups, batch_size=5)
    assert found.mass.shape == (5, 2, 4, len(GROUPS))
    np.testing.assert_allclose(found.mass.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.uniform.sum(-1), 1, atol=1e-5)
    alone = attention_mass(net, objective, documents, groups, batch_size=1)
    np.testing.assert_allclose(alone.mass, found.mass, atol=1e-5)


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_under_a_shifted_head_the_tokens_before_the_masked_ones_are_watched(modules):
    """A block's first token is predicted by a clean one: where only such are masked, too."""
    net = toy_net(modules=modules, shift=True, causal_context=True)
    objective = BlockDiffusion(LAYOUT, MASK, modules, shift=True, causal_context=True)
    # Executions of one block: in a quarter of the last steps only its first token is masked.
    documents = [d for d in random_documents(LAYOUT, 40) if (d.segment == 1).sum() == 4][:12]
    groups = [random_groups(document) for document in documents]
    found = attention_mass(net, objective, documents, groups, batch_size=4)
    np.testing.assert_allclose(found.mass.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(found.uniform.sum(-1), 1, atol=1e-5)
    own = GROUPS.index("own block")
    lone = found.uniform[:, -1, own] == 0  # its predictor does not see the block
    assert 0 < lone.sum() < len(documents)
    alone = attention_mass(net, objective, documents, groups, batch_size=1)
    np.testing.assert_allclose(alone.mass, found.mass, atol=1e-5)


def test_a_network_that_looks_at_all_alike_gives_every_group_its_share():
    net = toy_net()
    with torch.no_grad():
        for block in net.stacks["shared"].blocks:
            block.attention.wq.weight.zero_()
    objective = BlockDiffusion(LAYOUT, MASK)
    documents = random_documents(LAYOUT, 3)
    groups = [random_groups(document) for document in documents]
    found = attention_mass(net, objective, documents, groups)
    even = np.broadcast_to(found.uniform[:, None], found.mass.shape)
    np.testing.assert_allclose(found.mass, even, atol=1e-6)


def test_shares_by_hand():
    """One question token of each kind, a plan of 2, one block of 4: 9 tokens are visible."""
    net = toy_net()
    document = build_document([1, 2, 3], {"plan": [4, 5], "execution": [1, 2, 3, 4]}, LAYOUT, FILL)
    groups = np.array([0, 1, 2, 3, 4, 5, 5, 5, 5])
    found = attention_mass(net, BlockDiffusion(LAYOUT, MASK), [document], [groups])
    expected = np.array([1, 1, 1, 1, 1, 0, 4]) / 9
    for step in range(4):  # a single block: no earlier execution, at any step
        np.testing.assert_allclose(found.uniform[0, step], expected, atol=1e-6)


def test_tokens_are_grouped_by_the_characters_they_stand_for():
    tokenizer = load_tokenizer("gsm")
    layout = plan_execution_layout(64, 32, 32, 8, 4)
    question = "Ann has 48 pens and seven cups."
    encoded = {name: tokenizer.encode(text) for name, text in
               (("plan", "Add the given pens."), ("execution", "48+7=55\n#### 55"))}  # fmt: skip
    segments = {name: [*ids, tokenizer.end_ids[name]] for name, ids in encoded.items()}
    ids = [*tokenizer.encode(question), tokenizer.question_end_id]
    document = build_document(ids, segments, layout, tokenizer.fill_id)
    groups = group_tokens(document, question, layout, tokenizer)
    assert len(groups) == len(document)

    def text_of(group, stop):
        places = np.flatnonzero(groups[:stop] == GROUPS.index(group))
        everything = np.concatenate([document.question, document.targets])
        return tokenizer.decode(everything[places])

    n = len(ids)
    assert text_of("question: digits", n).replace(" ", "") == "48"
    assert text_of("question: number words", n).strip() == "seven"
    assert text_of("plan", len(groups)) == "Add the given pens."
    ends = np.concatenate([document.question, document.targets])[groups == 4]
    assert set(ends) <= {tokenizer.question_end_id, tokenizer.plan_end_id, tokenizer.fill_id}
    # A question over its cap has lost its start.
    cut = build_document(ids[-6:], segments, layout, tokenizer.fill_id)
    assert (group_tokens(cut, question, layout, tokenizer)[:6] == groups[n - 6 : n]).all()


def test_models_without_a_plan_or_without_blocks_are_refused():
    layout = plan_execution_layout(8, 8, 8, 2, 4, with_plan=False)
    with pytest.raises(UserError, match="has none"):
        attention_mass(toy_net(), BlockDiffusion(layout, MASK), [], [])
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    documents = random_documents(layout, 1)
    with pytest.raises(UserError, match="attention_problems=0"):
        attention_mass(toy_net(), Autoregressive(layout), documents, [random_groups(documents[0])])
