"""Perplexities against values worked out by hand, and what they must not depend on."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion
from hbd3lm.evaluate.perplexity import likelihoods, score_documents, summarise
from hbd3lm.model.layout import build_document, plan_execution_layout
from tests.toys import FILL, MASK, VOCABULARY, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 16, 4, 8)


def perplexities(*args, **options) -> dict:
    """The summary of ``likelihoods``."""
    return likelihoods(*args, **options).summary()


def uniform_net(**changes):
    """Every logit is zero, so every token costs log(V - 1) nats."""
    net = toy_net(tie_embeddings=False, **changes)
    with torch.no_grad():
        for stack in net.stacks.values():
            stack.head.weight.zero_()
    return net


def test_a_uniform_network_costs_log_of_the_vocabulary_for_every_predicted_token():
    """5 + 9 real tokens of 8 + 16 predicted ones: fill is paid for, and not divided by."""
    document = build_document([1, 2], {"plan": [1] * 5, "execution": [2] * 9}, LAYOUT, FILL)
    # A multiple of both block sizes: every number of masked tokens is drawn equally often.
    result = perplexities(uniform_net(), BlockDiffusion(LAYOUT, MASK), [document], 8, 4)
    nats = math.log(VOCABULARY - 1)
    parts = result["segments"]
    assert parts["plan"]["nats_per_token"] == pytest.approx(nats * 8 / 5, rel=1e-5)
    assert parts["execution"]["nats_per_token"] == pytest.approx(nats * 16 / 9, rel=1e-5)
    assert parts["all"]["nats_per_token"] == pytest.approx(nats * 24 / 14, rel=1e-5)
    assert parts["plan"]["perplexity"] == pytest.approx(math.exp(nats * 8 / 5), rel=1e-4)
    assert [part["tokens"] for part in parts.values()] == [5, 9, 14]


def test_next_token_models_have_no_fill_so_a_uniform_one_has_the_perplexity_of_a_die():
    layout = plan_execution_layout(8, 8, 16, 1, 1)
    documents = random_documents(layout, 5)
    result = perplexities(uniform_net(), Autoregressive(layout), documents, 16, 2)
    assert result["kind"] == "exact"
    for part in result["segments"].values():
        assert part["perplexity"] == pytest.approx(VOCABULARY - 1, rel=1e-5)
        assert part["standard_error"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_the_segments_sum_to_the_whole(modules):
    net = toy_net(modules=modules)
    documents = random_documents(LAYOUT, 7)
    parts = perplexities(net, BlockDiffusion(LAYOUT, MASK, modules), documents, 4, 3)["segments"]
    nats = {name: part["nats_per_token"] * part["tokens"] for name, part in parts.items()}
    assert nats["all"] == pytest.approx(nats["plan"] + nats["execution"])
    assert parts["all"]["tokens"] == parts["plan"]["tokens"] + parts["execution"]["tokens"]


def test_bounds_and_exact_values_are_labelled_as_such():
    net, documents = toy_net(), random_documents(LAYOUT, 2)
    result = perplexities(net, BlockDiffusion(LAYOUT, MASK), documents, 4, 2)
    assert (result["kind"], result["noise_draws"]) == ("upper bound (NELBO)", 4)
    single = plan_execution_layout(8, 8, 8, 1, 1)
    result = perplexities(net, BlockDiffusion(single, MASK), random_documents(single, 2), 4, 2)
    assert (result["kind"], result["noise_draws"]) == ("exact", 1)


def test_the_token_set_of_every_part_says_what_is_given():
    net = toy_net()
    parts = perplexities(net, BlockDiffusion(LAYOUT, MASK), random_documents(LAYOUT, 1), 1, 1)
    assert {name: part["of"] for name, part in parts["segments"].items()} == {
        "plan": "plan | question",
        "execution": "execution | question, gold plan",
        "all": "plan + execution | question",
    }
    flat = plan_execution_layout(8, 8, 16, 4, 8, with_plan=False)
    parts = perplexities(net, BlockDiffusion(flat, MASK), random_documents(flat, 1), 1, 1)
    assert {name: part["of"] for name, part in parts["segments"].items()} == {
        "execution": "execution | question",
        "all": "execution | question",
    }


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_numbers_do_not_depend_on_the_batch_size(batch_size):
    net = toy_net().double()
    documents, objective = random_documents(LAYOUT, 6), BlockDiffusion(LAYOUT, MASK)
    expected, tokens = score_documents(net, objective, documents, 3, 2, seed=4)
    got, same_tokens = score_documents(net, objective, documents, 3, batch_size, seed=4)
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(tokens, same_tokens)


def test_a_documents_number_does_not_depend_on_the_documents_after_it():
    net, documents = toy_net().double(), random_documents(LAYOUT, 6)
    objective = BlockDiffusion(LAYOUT, MASK)
    everything, _ = score_documents(net, objective, documents, 2, 4)
    some, _ = score_documents(net, objective, documents[:3], 2, 4)
    np.testing.assert_allclose(everything[:3], some, rtol=1e-5)


def test_the_standard_error_is_the_one_worked_out_by_hand():
    """Rate (3 + 5) / (2 + 2) = 2; residuals -1 and 1; sqrt(2 * 2 / 1) / 4 = 0.5."""
    result = summarise(np.array([3.0, 5.0]), np.array([2.0, 2.0]))
    assert result["nats_per_token"] == 2.0
    assert result["standard_error"] == pytest.approx(0.5)
    assert result["perplexity"] == pytest.approx(math.exp(2))
    assert result["perplexity_low"] == pytest.approx(math.exp(2 - 0.98))
    assert result["perplexity_high"] == pytest.approx(math.exp(2 + 0.98))
    assert (result["tokens"], result["documents"]) == (4, 2)


def test_with_equal_lengths_the_standard_error_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    nll = rng.normal(10, 2, size=50)
    result = summarise(nll, np.full(50, 4.0))
    assert result["standard_error"] == pytest.approx(nll.std(ddof=1) / np.sqrt(50) / 4)


def test_one_document_has_no_standard_error_and_its_result_is_still_json():
    result = summarise(np.array([3.0]), np.array([2.0]))
    assert result["standard_error"] is None
    assert result["perplexity_low"] is None
    json.dumps(result, allow_nan=False)


# -- precision ------------------------------------------------------------------------------


def test_the_error_of_the_draws_is_the_one_worked_out_by_hand():
    """Variance 0.64 of the sum of 4 tokens: 0.8 / 4 nats a token."""
    result = summarise(np.array([3.0, 5.0]), np.array([2.0, 2.0]), 0.64)
    assert result["noise_error"] == pytest.approx(0.2)
    assert result["perplexity_noise_low"] == pytest.approx(math.exp(2 - 0.392))
    assert result["perplexity_noise_high"] == pytest.approx(math.exp(2 + 0.392))
    assert result["standard_error"] == pytest.approx(0.5)


def test_the_variance_of_the_draws_is_that_of_the_turns_mean_worked_out_by_hand(monkeypatch):
    """Two turns of two documents. Variances between the turns, with n - 1: plan 2 and 2, execution
    0 and 8, both together 2 and 18; their sums are halved, as the mean of two turns is reported."""
    turns = [np.array([[1.0, 4.0], [2.0, 6.0]]), np.array([[3.0, 4.0], [4.0, 10.0]])]
    tokens = np.array([[2.0, 4.0], [2.0, 4.0]])

    def score(net, objective, documents, samples, batch_size, seed, progress, turn):
        return turns[turn], tokens

    monkeypatch.setattr("hbd3lm.evaluate.perplexity.score_documents", score)
    objective, documents = BlockDiffusion(LAYOUT, MASK), random_documents(LAYOUT, 2)
    found = likelihoods(None, objective, documents, 1, 1, precision=1e-6, max_samples=2)
    assert found.nats.tolist() == [[2, 4, 6], [3, 8, 11]]
    assert found.noise == pytest.approx([(2 + 2) / 2, (0 + 8) / 2, (2 + 18) / 2])
    parts = found.summary()["segments"]
    assert parts["plan"]["noise_error"] == pytest.approx(math.sqrt(2) / 4)
    assert (found.draws, found.reached) == (2, False)


def test_turns_are_taken_until_the_draws_are_precise_enough():
    net, documents = toy_net(), random_documents(LAYOUT, 40)
    objective = BlockDiffusion(LAYOUT, MASK)
    rough = perplexities(net, objective, documents, 2, 80, precision=0.5)
    fine = perplexities(net, objective, documents, 2, 80, precision=0.04, max_samples=10**6)
    assert rough["precision_reached"] and fine["precision_reached"]
    assert rough["noise_draws"] < fine["noise_draws"]
    for part in fine["segments"].values():
        assert part["perplexity_noise_high"] / part["perplexity"] - 1 <= 0.04
        assert part["noise_error"] < part["standard_error"]


def test_the_error_of_the_draws_is_that_of_other_seeds():
    """The interval of one evaluation foretells how far evaluations with other noise lie apart."""
    net, documents = toy_net(), random_documents(LAYOUT, 30)
    objective = BlockDiffusion(LAYOUT, MASK)
    results = [
        perplexities(net, objective, documents, 2, 120, seed, precision=0.9)["segments"]["all"]
        for seed in range(16)
    ]
    spread = np.std([r["nats_per_token"] for r in results], ddof=1)
    foretold = np.sqrt(np.mean([r["noise_error"] ** 2 for r in results]))
    assert 0.6 < spread / foretold < 1.6


def test_what_draws_cannot_reach_ends_at_the_limit_and_says_so():
    net, documents = toy_net(), random_documents(LAYOUT, 40)
    result = perplexities(
        net, BlockDiffusion(LAYOUT, MASK), documents, 2, 80, precision=1e-6, max_samples=7
    )
    assert (result["noise_draws"], result["precision_reached"]) == (6, False)
    few = perplexities(
        net, BlockDiffusion(LAYOUT, MASK), documents[:3], 2, 80, precision=0.99, max_samples=5
    )  # whose error is not known before 11 turns
    assert (few["noise_draws"], few["precision_reached"]) == (4, False)
    single = plan_execution_layout(8, 8, 8, 1, 1)
    exact = perplexities(
        net, Autoregressive(single), random_documents(single, 3), 2, 3, precision=1e-6
    )
    assert (exact["noise_draws"], exact["precision_reached"]) == (1, True)
    assert exact["segments"]["all"]["noise_error"] == 0
