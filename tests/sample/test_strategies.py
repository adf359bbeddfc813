"""Which positions are decided when: expectations written out, beside no other sampler.

The plain sampler of ``benchmarks/`` uses these strategies itself and cannot tell when they err.
"""

from __future__ import annotations

import numpy as np
import pytest

from hbd3lm.sample.strategies import Ancestral, BlockState, Confidence, FirstHitting


def blocks(count: int, size: int) -> BlockState:
    """Wholly masked blocks of as many problems."""
    return BlockState(
        masked=np.ones((count, size), dtype=bool),
        problem=np.arange(count),
        ordinal=np.ones(count, dtype=np.int64),
        step=np.zeros(count, dtype=np.int64),
        size=np.full(count, size),
    )


def one_block(masked: list[int], step: int) -> BlockState:
    """A block, 1 where it is masked, after ``choose`` of its step ``step`` (from 1)."""
    return BlockState(
        np.array([masked], dtype=bool), *(np.array([n]) for n in (0, 1, step, len(masked)))
    )


# -- ancestral sampling --------------------------------------------------------------------------


def ancestral_steps(state: BlockState, steps: int | None) -> np.ndarray:
    """[n, B]: the grid's step, from 0, at which each position is revealed."""
    strategy, revealed = Ancestral(seed=0, steps=steps), np.full(state.masked.shape, -1)
    for _ in range(state.masked.shape[1]):
        waiting = np.flatnonzero(state.masked.any(1))
        if not len(waiting):
            break
        some = BlockState(*(getattr(state, name)[waiting] for name in vars(state)))
        asked = strategy.choose(some)
        assert asked.any(1).all() and not (asked & ~some.masked).any()
        assert (strategy.decide(some, asked, np.zeros(asked.shape)) == asked).all()
        state.step[waiting] = some.step
        revealed[waiting] = np.where(asked, some.step[:, None] - 1, revealed[waiting])
        state.masked[waiting] &= ~asked
    return revealed


@pytest.mark.parametrize("steps", [1, 3, 7, None])
def test_ancestral_sampling_has_revealed_everything_after_its_steps(steps):
    state = blocks(500, 5)
    revealed = ancestral_steps(state, steps)
    total = steps or 5
    assert not state.masked.any() and revealed.min() >= 0
    assert revealed.max() == total - 1  # 2500 positions: some are left for the last step
    assert set(revealed.flatten()) == set(range(total))


def test_the_last_of_the_ancestral_steps_reveals_all_that_is_left():
    """Of t = 1/T nothing is masked after: also without a number that says so."""
    state = one_block([1, 0, 1, 1], step=3)
    assert Ancestral(seed=0, steps=4).choose(state).tolist() == [[True, False, True, True]]
    assert state.step.tolist() == [4]


def test_step_k_of_t_reveals_one_in_t_minus_k_of_the_masked_positions():
    """(t - s) / t with t = 1 - k/T, s = t - 1/T. So all steps reveal as many of the whole: 1 in T.

    6000 positions of four steps: the shares have standard errors of 0.006 to 0.011.
    """
    revealed = ancestral_steps(blocks(1000, 6), 4)
    for k, rate in enumerate([1 / 4, 1 / 3, 1 / 2, 1]):
        masked = revealed >= k
        assert (revealed == k).sum() / masked.sum() == pytest.approx(rate, abs=0.04)


# -- one token a step ----------------------------------------------------------------------------


def test_first_hitting_asks_for_one_masked_position_any_of_them_alike():
    state = blocks(3000, 4)
    state.masked[:, 1] = False
    asked = FirstHitting(seed=0).choose(state)
    assert (asked.sum(1) == 1).all() and (state.step == 1).all()
    assert asked.mean(0) == pytest.approx([1 / 3, 0, 1 / 3, 1 / 3], abs=0.04)


# -- the most confident first --------------------------------------------------------------------


def decided(strategy: Confidence, masked: list[int], step: int, confidence: list[float]):
    """Places that keep their token; of those not masked the confidence is no answer."""
    state = one_block(masked, step)
    return np.flatnonzero(strategy.decide(state, state.masked, np.array([confidence]))[0]).tolist()


@pytest.mark.parametrize(
    ("steps", "masked", "step", "confidence", "expected"),
    [
        # Five positions in two steps: ceil(5 / 2) = 3, then the 2 that are left.
        (2, [1, 1, 1, 1, 1], 1, [0.1, 0.9, 0.3, 0.5, 0.2], [1, 2, 3]),
        (2, [1, 0, 0, 0, 1], 2, [0.1, 0.0, 0.0, 0.0, 0.2], [0, 4]),
        # In three: 2, 2, 1.
        (3, [1, 1, 1, 1, 1], 1, [0.1, 0.9, 0.3, 0.5, 0.2], [1, 3]),
        (3, [1, 0, 1, 0, 1], 2, [0.1, 0.0, 0.3, 0.0, 0.2], [2, 4]),
        (3, [1, 0, 0, 0, 0], 3, [0.1, 0.0, 0.0, 0.0, 0.0], [0]),
        # In four: 2, 1, 1, 1.
        (4, [1, 1, 1, 1, 1], 1, [0.1, 0.9, 0.3, 0.5, 0.2], [1, 3]),
        (4, [1, 0, 1, 0, 1], 2, [0.1, 0.0, 0.3, 0.0, 0.2], [2]),
        # A token a step, which more steps than tokens are, too.
        (None, [1, 1, 1, 1, 1], 1, [0.1, 0.9, 0.3, 0.5, 0.2], [1]),
        (9, [1, 0, 1, 1, 1], 2, [0.1, 0.0, 0.3, 0.5, 0.2], [3]),
        # All at once.
        (1, [1, 1, 1, 1, 1], 1, [0.1, 0.9, 0.3, 0.5, 0.2], [0, 1, 2, 3, 4]),
        # Of equals the one to the left; a position that was not asked about is never decided.
        (3, [0, 1, 1, 1, 1], 1, [0.9, 0.4, 0.4, 0.4, 0.4], [1, 2]),
        # A confidence of zero is one, too.
        (2, [0, 1, 0, 1, 1], 1, [0.9, 0.0, 0.9, 0.0, 0.0], [1, 3]),
    ],
)
def test_an_equal_share_of_what_is_left_is_decided_in_every_step(
    steps, masked, step, confidence, expected
):
    assert decided(Confidence(steps, None), masked, step, confidence) == expected


@pytest.mark.parametrize(
    ("masked", "confidence", "expected"),
    [
        ([1, 1, 1, 1], [0.7, 0.69, 0.9, 0.2], [0, 2]),  # the threshold itself is enough
        ([1, 1, 1, 1], [0.3, 0.6, 0.1, 0.2], [1]),  # none is: the most confident one
        ([1, 1, 0, 1], [0.3, 0.3, 0.9, 0.3], [0]),  # of equals the first
        ([0, 1, 0, 1], [0.9, 0.8, 0.9, 0.7], [1, 3]),
        ([0, 0, 0, 1], [0.9, 0.9, 0.9, 0.0], [3]),
    ],
)
def test_with_a_threshold_all_above_it_are_decided_and_at_least_one(masked, confidence, expected):
    """Whatever step it is."""
    for step in (1, 3):
        assert decided(Confidence(None, 0.7), masked, step, confidence) == expected


def test_blocks_of_other_sizes_side_by_side_have_quotas_of_their_own():
    """Two steps: 2 + 2 of four tokens, 1 + 1 of two."""
    masked = np.array([[1, 1, 1, 1], [1, 1, 0, 0]], dtype=bool)
    state = BlockState(masked, np.arange(2), np.ones(2, int), np.zeros(2, int), np.array([4, 2]))
    strategy = Confidence(2, None)
    asked = strategy.choose(state)
    assert (asked == masked).all() and state.step.tolist() == [1, 1]
    confidence = np.array([[0.1, 0.4, 0.3, 0.2], [0.2, 0.6, 0.0, 0.0]])
    assert strategy.decide(state, asked, confidence).tolist() == [
        [False, True, True, False],
        [False, True, False, False],
    ]
