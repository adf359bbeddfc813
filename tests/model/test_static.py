"""Batches of one shape: same losses, same gradients, nothing left out, the mask made beforehand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hbd3lm.data.batching import pack_rows
from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion, negative_log_likelihood
from hbd3lm.model import static
from hbd3lm.model.attention import build_mask, make_tiles
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.static import (
    Capacity,
    PartCapacity,
    count_tokens,
    fill_up,
    plan_capacity,
    round_up,
    row_sizes,
)
from tests.toys import MASK, random_documents, toy_net

LAYOUT = plan_execution_layout(8, 8, 12, 4, 4)
OBJECTIVES = {
    "shared": BlockDiffusion(LAYOUT, MASK),
    "separate": BlockDiffusion(LAYOUT, MASK, "separate"),
    "shifted head": BlockDiffusion(LAYOUT, MASK, shift=True),
    "next token": Autoregressive(plan_execution_layout(8, 8, 12, 1, 1)),
}


def make_batches(objective, count: int = 6, documents: int = 5):
    """Packed batches that are not filled up yet."""
    batches = []
    for seed in range(count):
        some = random_documents(objective.layout, documents, seed=seed)
        noises = objective.training_noise(some, np.random.default_rng(seed))
        sizes = [count_tokens(objective.assemble([d], [n])) for d, n in zip(some, noises)]
        width = max(map(max, sizes)) * 2
        batches.append(objective.assemble(some, noises, pack_rows(sizes, [width] * len(sizes[0]))))
    return batches


def capacity_of(batches) -> Capacity:
    largest = np.max([count_tokens(batch) for batch in batches], 0)
    return plan_capacity(row_sizes(largest.tolist(), largest.tolist(), 0), batches)


def shape_of(batch):
    return [
        tuple(t.shape)
        for part in batch.parts
        for stream, prediction in part.predictions
        for t in (part.clean.ids, stream.ids, prediction.places)
    ]


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_batch_filled_up_to_one_shape_has_the_same_losses_and_gradients(objective):
    net = toy_net(
        modules=objective.modules, shift=getattr(objective, "shift", False)
    ).double()  # fmt: skip
    batches = make_batches(objective)
    capacity = capacity_of(batches)
    shapes = set()

    def run(batch):
        net.zero_grad()
        losses = negative_log_likelihood(net, batch)
        losses.sum().backward()
        return losses.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])

    for batch in batches:
        filled = fill_up(batch, capacity)
        shapes.add(tuple(shape_of(filled)))
        (loss, gradient), (same, also) = run(batch), run(filled)
        torch.testing.assert_close(same, loss, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(also, gradient, rtol=1e-6, atol=1e-7)
        assert gradient.abs().max() > 1e-3
        assert filled.padding_share() > 0
    assert len(shapes) == 1


def test_what_a_batch_wastes_is_counted():
    (batch,) = make_batches(OBJECTIVES["shared"], 1)
    assert batch.head_padding_share() == 0
    (part,) = batch.parts
    rows, n = len(part.clean.ids), len(part.prediction.select)
    filled = fill_up(batch, Capacity(rows, (PartCapacity(128, 128, 4 * n),)))
    assert filled.head_padding_share() == pytest.approx(0.75)
    tokens = int((~part.clean.is_padding).sum() + (~part.noisy.is_padding).sum())
    assert filled.padding_share() == pytest.approx(1 - tokens / (rows * 256))


def test_a_batch_over_the_capacity_grows_and_loses_nothing():
    (batch,) = make_batches(OBJECTIVES["shared"], 1)
    net, room = toy_net().double(), PartCapacity(128, 128, 8)
    filled = fill_up(batch, Capacity(1, (room,)))
    (part,) = filled.parts
    assert len(part.clean.ids) == len(batch.parts[0].clean.ids) > 1
    assert len(part.prediction.places) % 64 == 8 + 0
    torch.testing.assert_close(
        negative_log_likelihood(net, filled), negative_log_likelihood(net, batch)
    )
    with pytest.raises(ValueError, match="does not fit into 4"):
        fill_up(batch, Capacity(1, (replace(room, clean=4),)))


def test_where_every_place_predicts_there_is_nothing_to_fill_up():
    layout = plan_execution_layout(1, 2, 2, 1, 1)
    objective = Autoregressive(layout)
    documents = [d for d in random_documents(layout, 40) if len(d) == 5][:2]
    batch = objective.assemble(documents, objective.training_noise(documents, None))
    filled = fill_up(batch, Capacity(2, (PartCapacity(4, 0, 64),)))
    assert filled.parts[0].prediction.places.tolist() == list(range(8))


def test_streams_share_a_row_in_proportion_but_hold_the_largest_document():
    assert row_sizes([100.0, 60.0], [200, 180], 1000) == [1008, 608]
    assert row_sizes([100.0, 10.0, 0.0], [200, 180, 0], 1000) == [1008, 192, 0]


@pytest.mark.parametrize("modules", ["shared", "separate"])
@torch.no_grad()
def test_a_block_mask_made_beforehand_is_that_made_in_the_step(modules):
    """To the bit, and the same losses as under the dense mask; eager FlexAttention, on the CPU."""
    objective = OBJECTIVES[modules]
    batches = make_batches(objective, 1, documents=12)
    capacity = capacity_of(batches)
    dense = toy_net(modules=modules)
    flex = toy_net(modules=modules)
    flex.attention_backend = "flex"
    plain, prepared = (fill_up(batches[0], capacity, tiles) for tiles in (False, True))
    losses = negative_log_likelihood(flex, prepared)
    assert torch.equal(losses, negative_log_likelihood(flex, plain))
    torch.testing.assert_close(losses, negative_log_likelihood(dense, plain))
    moved = prepared.to("cpu").parts[0].noisy.tiles
    assert all(torch.equal(a, b) for a, b in zip(moved, prepared.parts[0].noisy.tiles))


def test_tiles_say_which_tiles_are_read():
    """Rows of 512 tokens with a document in each half: half of the tiles are never read."""
    tokens = make_batches(OBJECTIVES["shared"], 1)[0].parts[0].clean.tags
    document = torch.arange(512)[None] // 256
    tags = type(tokens)(
        document, torch.zeros_like(document, dtype=torch.bool), torch.zeros_like(document)
    )
    tiles = make_tiles(tags, tags)
    assert (tiles.number + tiles.whole_number).tolist() == [[[2, 2, 2, 2]]]
    mask = build_mask(tags, tags, "flex", torch.float32, tiles)
    assert mask.sparsity() == pytest.approx(50)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_batches_rounded_up_have_the_same_losses_and_few_shapes(objective):
    net = toy_net(modules=objective.modules, shift=getattr(objective, "shift", False)).double()
    shapes = set()
    for seed in range(12):
        documents = random_documents(objective.layout, 5, seed=seed)
        noises = objective.training_noise(documents, np.random.default_rng(seed))
        batch = objective.assemble(documents, noises)
        rounded = round_up(batch)
        shapes.add(tuple(shape_of(rounded)))
        assert all(size % 16 == 0 for size in count_tokens(rounded))
        expected = negative_log_likelihood(net, batch)
        torch.testing.assert_close(negative_log_likelihood(net, rounded), expected)
    assert len(shapes) <= 6


def test_draws_that_share_clean_tokens_are_not_filled_up():
    """It would lose which clean row each of them reads."""
    objective = BlockDiffusion(plan_execution_layout(8, 8, 8, 4, 4), MASK)
    documents = random_documents(objective.layout, 2)
    noises = [objective.evaluation_noise(d, 3, np.random.default_rng(0)) for d in documents]
    with pytest.raises(ValueError, match="share clean tokens"):
        round_up(objective.assemble_draws(documents, noises))


def test_predictions_are_rounded_by_a_sixteenth_at_most():
    for n in range(1, 5000):
        rounded = static._round_predictions(n)
        assert n <= rounded < n + max(32, n / 16 + 1)
    assert len({static._round_predictions(n) for n in range(1, 5000)}) < 16 * 6 + 16
    assert static._round_predictions(0) == 0
