"""Variances against closed forms, against plain sampling, and against stacked gradients."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.diffusion.corruption import noise_by_count, noise_by_time
from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.diffusion.schedule import LogLinearSchedule, SearchedSchedule
from hbd3lm.diffusion.variance import (
    BlockMoments,
    block_losses,
    estimator_variance,
    gradient_variance,
    interval_moments,
    search_grid,
    search_intervals,
)
from hbd3lm.model.layout import build_document, plan_execution_layout
from tests.toys import FILL, MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 12, 4, 2)


# -- the estimator of the NELBO -------------------------------------------------------------


@given(st.integers(1, 256), st.data())
def test_over_all_times_a_count_weighs_one_over_m(size, data):
    """The identity both estimators of the bound rest on."""
    m = data.draw(st.integers(1, size))
    assert interval_moments(size, 0.0, 1.0, 1)[m - 1] == pytest.approx(1 / m, rel=1e-6)


@pytest.mark.parametrize("low, high", [(0.001, 1.0), (0.3, 0.8), (0.5, 1.0)])
def test_the_moments_of_a_block_of_two_are_those_of_the_integrals_by_hand(low, high):
    """1/(h-l) times the integrals of 2 (1-t), t; and of 2 (1-t)/t, 1."""
    width = high - low
    first = [2 - (high**2 - low**2) / width, (high**2 - low**2) / (2 * width)]
    second = [2 * (math.log(high / low) / width - 1), 1.0]
    assert interval_moments(2, low, high, 1) == pytest.approx(first)
    assert interval_moments(2, low, high, 2) == pytest.approx(second)
    moments = np.array([[3.0, 5.0], [10.0, 30.0]])
    mean, square = moments[0] @ first, moments[1] @ second
    expected = square - mean**2
    assert estimator_variance(moments, LogLinearSchedule(low, high)) == pytest.approx(expected)


def test_from_time_zero_on_the_variance_is_infinite_and_not_some_number():
    """The integral of 1 / t was taken from 1e-12 on: 27 nats squared, whatever the block."""
    assert interval_moments(1, 0.0, 1.0, 2).tolist() == [math.inf]
    assert interval_moments(3, 0.0, 1.0, 2) == pytest.approx([math.inf, 1.5, 0.5])  # 3 / 2, 1 / 2
    assert interval_moments(2, 1e-15, 1.0, 2)[0] == pytest.approx(2 * (math.log(1e15) - 1))
    moments = np.array([[3.0, 5.0], [10.0, 30.0]])
    assert estimator_variance(moments, LogLinearSchedule(0.0, 0.5)) == math.inf
    moments[:, 0] = 0  # one masked token costs nothing: 30 c_2(2) - (5 c_1(2))^2
    assert estimator_variance(moments, LogLinearSchedule(0.0, 1.0)) == pytest.approx(30 - 2.5**2)


@torch.no_grad()
@pytest.mark.parametrize("low, high", [(0.05, 1.0), (0.3, 0.8)])
def test_draws_by_count_foretell_the_variance_of_draws_by_time(low, high):
    """The counts are those of a validation; the times those of training, drawn plainly."""
    layout = plan_execution_layout(4, 4, 4, 4, 4, with_plan=False)
    objective, net = BlockDiffusion(layout, MASK), toy_net()
    document = build_document([1, 2, 3], {"execution": [4, 5, 6]}, layout, FILL)
    rng = np.random.default_rng(0)

    def losses(noises):
        return block_losses(net, objective.assemble([document] * len(noises), noises))

    moments = BlockMoments(layout)
    moments.add(losses(noise_by_count(document, 800, rng)))
    foretold = estimator_variance(moments.of(0), LogLinearSchedule(low, high))
    schedule = LogLinearSchedule(low, high)
    by_time = [noise_by_time([document], schedule, rng)[0] for _ in range(6000)]
    drawn = losses([n for n in by_time if n.masked.any()]).loss.flatten()
    drawn = torch.cat([drawn, torch.zeros(len(by_time) - len(drawn))])
    assert foretold == pytest.approx(float(drawn.var()), rel=0.1)


@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("rows", [None, [[0, 3], [1, 2, 4]]])
@torch.no_grad()
def test_losses_by_block_sum_to_those_by_segment(modules, rows):
    net, objective = toy_net(modules=modules), BlockDiffusion(LAYOUT, MASK, modules)
    documents = random_documents(LAYOUT, 5, seed=1)
    noises = objective.training_noise(documents, np.random.default_rng(2))
    batch = objective.assemble(documents, noises, rows)
    blocks = block_losses(net, batch)
    torch.testing.assert_close(blocks.by_segment(2), negative_log_likelihood(net, batch))
    for i, (document, noise) in enumerate(zip(documents, noises)):
        for block in range(1, document.n_blocks + 1):
            mine = document.block == block
            assert blocks.n_masked[i, block - 1] == noise.masked[mine].sum()
            if noise.masked[mine].any():
                assert blocks.segment[i, block - 1] == document.segment[mine][0]


def test_counts_without_a_draw_are_interpolated():
    moments = BlockMoments(plan_execution_layout(4, 4, 4, 4, 4, with_plan=False))
    moments.sums[0, 1] = torch.tensor([2.0, 2.0, 4.0])
    moments.sums[0, 3] = torch.tensor([1.0, 5.0, 8.0])
    assert moments.of(0).tolist() == [[1, 3, 5, 5], [2, 5, 8, 8]]


def test_the_search_tries_half_intervals_and_chooses_the_smallest_variance():
    grid = search_grid(LogLinearSchedule(0.0, 1.0))
    assert [(round(i.low, 2), round(i.high, 2)) for i in grid[:3]] == [
        (0, 1),
        (0, 0.5),
        (0.05, 0.55),
    ]
    assert (grid[-1].low, grid[-1].high) == (pytest.approx(0.5), 1.0) and len(grid) == 12
    layout = plan_execution_layout(4, 4, 4, 2, 4)
    moments = BlockMoments(layout)
    for segment, size in enumerate((2, 4)):
        for m in range(1, size + 1):  # every masked token costs one nat, whatever is known
            moments.sums[segment, m] = torch.tensor([1.0, m, m**2])
    plan, execution = search_intervals(moments, layout, LogLinearSchedule(0.0, 1.0))
    assert (plan.segment, plan.block_size, execution.block_size) == ("plan", 2, 4)
    for result in (plan, execution):
        # X = m / t: the variance is B (1 - t) / t averaged, least where times are largest.
        assert result.intervals[result.best].high == 1.0 and result.best == 11
        low, high = result.intervals[3].low, result.intervals[3].high
        by_hand = result.block_size * (math.log(high / low) / (high - low) - 1)
        assert result.variances[3] == pytest.approx(by_hand, rel=1e-5)
        assert result.variances[:2] == (math.inf, math.inf)  # of (0, 1] and (0, 0.5]
        written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert [row["variance"] for row in written["table"][:2]] == [None, None]
        assert [row["variance"] for row in written["table"][2:]] == list(result.variances[2:])
    assert len(plan.to_dict()["table"]) == 12


# -- the gradient ---------------------------------------------------------------------------


def test_the_gradients_variance_is_that_of_stacked_gradients_and_leaves_none_behind():
    net, objective = toy_net().double(), BlockDiffusion(LAYOUT, MASK)
    documents = random_documents(LAYOUT, 3, seed=1)
    with torch.inference_mode():  # as in a validation
        found = gradient_variance(net, objective, documents, 5, seed=7)
    assert all(p.grad is None for p in net.parameters())
    tokens = sum(int(document.real.sum()) for document in documents)
    stacked = []
    for draw in range(5):
        noises = objective.training_noise(documents, np.random.default_rng([7, 4, draw]))
        loss = negative_log_likelihood(net, objective.assemble(documents, noises)).sum() / tokens
        stacked.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*net.parameters()])])
        )
    gradients = torch.stack(stacked)
    assert found.trace == pytest.approx(float(gradients.var(0).sum()), rel=1e-5)
    mean = float(gradients.mean(0).square().sum())
    assert found.squared_norm == pytest.approx(mean - found.trace / 5, rel=1e-5)


def test_a_clipped_schedule_lowers_the_gradients_variance():
    net, documents = toy_net(), random_documents(LAYOUT, 6, seed=1)
    full, clipped = (
        gradient_variance(
            net,
            BlockDiffusion(LAYOUT, MASK, schedule=LogLinearSchedule(low, 1.0)),
            documents,
            24,
            0,
        )
        for low in (0.001, 0.5)
    )
    assert clipped.trace < 0.5 * full.trace


# -- schedules that change ------------------------------------------------------------------


def test_a_found_interval_is_in_force_after_the_delay_and_survives_a_checkpoint():
    searched = SearchedSchedule(LogLinearSchedule(), 2)
    first = [LogLinearSchedule(0.3, 0.8), LogLinearSchedule(0.5, 1.0)]
    searched.change(10, first)
    searched.change(20, first[::-1])
    delay = SearchedSchedule.DELAY
    assert searched.at(10 + delay - 1) == [LogLinearSchedule()] * 2
    assert searched.at(10 + delay) == searched.at(20 + delay - 1) == first
    assert searched.at(10**6) == first[::-1]
    again = SearchedSchedule(LogLinearSchedule(), 2)
    again.load_state_dict(searched.state_dict())
    for step in (0, 10 + delay, 20 + delay):
        assert again.at(step) == searched.at(step)


def test_a_change_at_every_step_loses_none_that_is_in_force():
    searched = SearchedSchedule(LogLinearSchedule(0.0, 1.0), 1)
    for step in range(1, 300):
        searched.change(step, [LogLinearSchedule(0.0, step / 300)])
        in_force = step - SearchedSchedule.DELAY
        expected = in_force / 300 if in_force >= 1 else 1.0
        assert searched.at(step)[0].high == expected
        # The first steps, of which a resumed run plans the shape of packed batches again.
        assert searched.at(0)[0].high == searched.at(SearchedSchedule.DELAY - 1)[0].high == 1.0


def test_every_segment_draws_its_times_from_its_own_interval():
    documents = random_documents(LAYOUT, 50, seed=3)
    searched = SearchedSchedule(LogLinearSchedule(), 2)
    searched.change(0, [LogLinearSchedule(0.5, 1.0), LogLinearSchedule(0.2, 0.4)])
    objective = replace(BlockDiffusion(LAYOUT, MASK), searched=searched)

    def weights(step):
        noises = objective.training_noise(documents, np.random.default_rng(0), step)
        return [
            np.concatenate(
                [n.weight[n.masked & (d.segment == s)] for d, n in zip(documents, noises)]
            )
            for s in (0, 1)
        ]

    plan, execution = weights(SearchedSchedule.DELAY)
    assert plan.min() >= 1 and plan.max() <= 2
    assert execution.min() >= 2.5 and execution.max() <= 5
    plain = BlockDiffusion(LAYOUT, MASK).training_noise(documents, np.random.default_rng(0))
    before = objective.training_noise(documents, np.random.default_rng(0), 0)
    for a, b in zip(plain, before):
        np.testing.assert_array_equal(a.weight, b.weight)
