"""Which documents meet: every epoch complete, a pure function of (seed, step), tight packing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.data.batching import WINDOW_STEPS, StepBatches, pack_rows

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=50)


@settings(max_examples=30)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 5))
def test_every_document_comes_once_an_epoch(lengths, step_size, seed):
    """Counts over whole windows: the sequence of epochs is complete, only sorted within."""
    batches = StepBatches(lengths, step_size, seed)
    windows = -(-2 * len(lengths) // (WINDOW_STEPS * step_size))  # at least two epochs
    counts = Counter()
    for step in range(windows * WINDOW_STEPS):
        assert len(batches[step]) == step_size
        counts.update(batches[step].tolist())
    seen = [counts[i] for i in range(len(lengths))]
    assert max(seen) - min(seen) <= 1
    assert min(seen) >= 2


@settings(max_examples=30)
@given(LENGTHS, st.integers(1, 9), st.permutations(range(40)))
def test_a_step_does_not_depend_on_which_steps_were_asked_before(lengths, step_size, order):
    forwards, shuffled = (StepBatches(lengths, step_size, 1) for _ in range(2))
    expected = {step: forwards[step].tolist() for step in range(40)}
    assert {step: shuffled[step].tolist() for step in order} == expected
    assert StepBatches(lengths, step_size, 1)[33].tolist() == expected[33]


def test_another_seed_and_another_epoch_mean_another_order():
    lengths = np.full(64, 7)
    first, second = StepBatches(lengths, 4, 0), StepBatches(lengths, 4, 1)
    epoch = [first[step].tolist() for step in range(16)]
    assert epoch != [second[step].tolist() for step in range(16)]
    assert epoch != [first[step].tolist() for step in range(16, 32)]


def test_documents_of_a_step_are_about_equally_long_and_shortest_first():
    lengths = np.random.default_rng(0).integers(50, 400, size=4000)
    batches = StepBatches(lengths, 16, 0)
    chosen = [lengths[batches[step]] for step in range(160)]
    assert all((np.diff(batch) >= 0).all() for batch in chosen)
    padding = sum(batch.max() * len(batch) - batch.sum() for batch in chosen)
    assert padding / sum(batch.max() * len(batch) for batch in chosen) < 0.05


def test_lengths_do_not_grow_with_time_within_a_window():
    lengths = np.arange(1, 1 + WINDOW_STEPS * 4)
    batches = StepBatches(lengths, 4, 0)
    means = [lengths[batches[step]].mean() for step in range(WINDOW_STEPS)]
    assert sorted(means) != means


@settings(max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.integers(30, 60))
def test_packing_keeps_every_document_whole_and_no_row_over_capacity(lengths, capacity):
    rows = pack_rows(lengths, capacity)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in row) for row in rows]
    assert max(filled) <= capacity
    # First fit: no two rows could be one.
    assert all(filled[0] + other > capacity for other in filled[1:]) or len(rows) == 1


def test_packing_the_example_by_hand():
    assert pack_rows([3, 7, 5, 2, 4], 10) == [[1, 0], [2, 4], [3]]
    # The second kind of token decides here.
    assert pack_rows([(3, 6), (3, 5), (3, 4)], (10, 10)) == [[0, 2], [1]]


def test_steps_dealt_out_by_length_have_about_the_same_number_of_tokens():
    lengths = np.random.default_rng(0).integers(50, 400, size=4000)
    alike, sorted_ = (StepBatches(lengths, 16, 0, alike=flag) for flag in (True, False))
    totals = [lengths[alike[step]].sum() for step in range(64)]
    assert np.std(totals) < 0.05 * np.mean(totals)
    for window in range(4):
        steps = range(window * WINDOW_STEPS, (window + 1) * WINDOW_STEPS)
        assert sorted(np.concatenate([alike[s] for s in steps])) == sorted(
            np.concatenate([sorted_[s] for s in steps])
        )
    assert all((np.diff(lengths[alike[step]]) >= 0).all() for step in range(32))


def test_a_document_over_the_capacity_is_refused():
    with pytest.raises(ValueError, match="document 1 of 11 tokens exceeds the capacity 10"):
        pack_rows([3, 11], 10)
