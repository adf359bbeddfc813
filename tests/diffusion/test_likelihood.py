"""The likelihood of one segment given what stands before it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hbd3lm.diffusion.corruption import Noise
from hbd3lm.diffusion.likelihood import SegmentOnly
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion, negative_log_likelihood
from hbd3lm.model.layout import build_document, plan_execution_layout
from tests.toys import FILL, MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 8, 2, 4)


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_it_is_the_segments_part_of_the_whole_likelihood(modules):
    net, objective = toy_net(modules=modules), BlockDiffusion(LAYOUT, MASK, modules)
    documents = random_documents(LAYOUT, 4)
    rng = np.random.default_rng(0)
    whole = [objective.evaluation_noise(d, 1, rng)[0] for d in documents]
    alone = [
        Noise(noise.masked & (d.segment == 1), np.where(d.segment == 1, noise.weight, 0))
        for noise, d in zip(whole, documents)
    ]
    only = SegmentOnly(objective, 1)
    with torch.no_grad():
        expected = negative_log_likelihood(net, objective.assemble(documents, whole))
        got = negative_log_likelihood(net, only.assemble(documents, alone))
    torch.testing.assert_close(got[:, 1], expected[:, 1])
    assert (got[:, 0] == 0).all()


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_its_draws_share_clean_tokens_and_a_module_without_noise_has_none_to_run(modules):
    net, objective = toy_net(modules=modules), BlockDiffusion(LAYOUT, MASK, modules)
    only, documents = SegmentOnly(objective, 1), random_documents(LAYOUT, 3)
    rng = np.random.default_rng(0)
    noises = [only.evaluation_noise(d, 2, rng) for d in documents]
    shared = only.assemble_draws(documents, noises)
    alone = only.assemble(
        [d for d in documents for _ in range(2)], [noise for draws in noises for noise in draws]
    )
    with torch.no_grad():
        got, expected = (negative_log_likelihood(net, batch) for batch in (shared, alone))
    torch.testing.assert_close(got, expected)
    assert (expected[:, 1] > 0).all()


def test_the_exact_likelihood_of_a_next_token_model():
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    net, objective = toy_net(), Autoregressive(layout)
    documents = random_documents(layout, 3)
    rng = np.random.default_rng(0)
    only = SegmentOnly(objective, 1)
    assert not only.is_bound
    noises = [only.evaluation_noise(d, 5, rng) for d in documents]
    assert [len(found) for found in noises] == [1, 1, 1]
    whole = [objective.evaluation_noise(d, 1, rng)[0] for d in documents]
    with torch.no_grad():
        got = negative_log_likelihood(net, only.assemble(documents, [n for (n,) in noises]))
        expected = negative_log_likelihood(net, objective.assemble(documents, whole))
    torch.testing.assert_close(got[:, 1], expected[:, 1])
    assert (got[:, 0] == 0).all()


def test_documents_that_differ_in_the_plan_meet_the_same_noise():
    only = SegmentOnly(BlockDiffusion(LAYOUT, MASK), 1)
    masks = []
    for plan in ([1], [1, 2, 3, 4, 5]):
        execution = [3, 1, 2, 4, 5, 6]
        document = build_document([1, 2], {"plan": plan, "execution": execution}, LAYOUT, FILL)
        mine = document.segment == 1
        noises = only.evaluation_noise(document, 4, np.random.default_rng(7))
        assert not any(noise.masked[~mine].any() or noise.weight[~mine].any() for noise in noises)
        masks.append([(n.masked[mine].tolist(), n.weight[mine].tolist()) for n in noises])
    assert masks[0] == masks[1]
