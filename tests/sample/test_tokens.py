"""Which token a position gets: against the plain way of choosing it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hbd3lm.errors import UserError
from hbd3lm.sample.tokens import SLICE, _invert, draw_tokens, most_probable


@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.sampled_from([1, 255, 256, 257, 700])),
           elements=st.sampled_from([0.0, 0.0, 1e-6, 0.25, 1.0])),
    st.floats(0, 1, exclude_max=True),
)  # fmt: skip
@settings(max_examples=60)
def test_a_token_is_drawn_where_the_cumulative_sum_passes(weights, u):
    """Run by run as in one sum over the vocabulary; never a token without mass."""
    weights[:, 0] += weights.sum(1) == 0
    given_p = torch.from_numpy(weights / weights.sum(1, keepdims=True, dtype=np.float32))
    cumulative = given_p.double().cumsum(1)
    numbers = (u, 0.0, 1 - 2**-53)
    accuracies = ((given_p, 1e-6), (given_p.double(), 1e-12))  # runs are summed in p's own dtype
    for number, (p, near) in itertools.product(numbers, accuracies):
        token = _invert(p, torch.full((len(p),), number, dtype=torch.float64))
        assert (p.gather(1, token[:, None]) > 0).all()
        target = number * cumulative[:, -1]
        before = torch.where(
            token > 0, cumulative.gather(1, (token - 1).clamp(0)[:, None])[:, 0], 0
        )
        at = cumulative.gather(1, token[:, None])[:, 0]
        assert (before <= target + near).all()
        assert (target <= at + near).all()


@given(
    st.sampled_from([1, 5, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE + 7]),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**16),
)
@settings(max_examples=40)
def test_the_most_probable_token_slice_by_slice_is_that_of_the_softmax(n, rows, biased, seed):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    table = 3 * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    bias = torch.randn(n, generator=generator, dtype=torch.float64) if biased else None
    token, p = most_probable(hidden, table, bias)
    expected = torch.nn.functional.linear(hidden, table, bias).softmax(-1)
    assert torch.equal(token, expected.argmax(-1))
    torch.testing.assert_close(p, expected.amax(-1), rtol=1e-12, atol=0)


def test_of_equals_the_first_token_is_taken():
    table = torch.zeros(2 * SLICE, 2)
    table[[SLICE + 3, 70, 2 * SLICE - 1]] = 1.0
    token, p = most_probable(torch.ones(1, 2), table)
    assert token.tolist() == [70]
    e = np.exp(2)
    assert p.item() == pytest.approx(e / (3 * e + 2 * SLICE - 3), rel=1e-5)


def test_products_in_bf16_are_added_up_in_float32():
    torch.manual_seed(0)
    hidden, table = torch.randn(3, 8), torch.randn(SLICE + 50, 8).bfloat16()
    token, p = most_probable(hidden.bfloat16(), table)
    logits = (hidden.bfloat16() @ table.T).float()
    assert p.dtype == torch.float32
    assert torch.equal(token, logits.argmax(-1))
    torch.testing.assert_close(p, logits.softmax(-1).amax(-1))


@pytest.mark.parametrize("place", [0, SLICE + 1])
def test_a_logit_that_is_no_number_ends_in_a_message(place):
    table = torch.randn(SLICE + 9, 3)
    table[place] = torch.nan
    with pytest.raises(UserError, match="not numbers"):
        most_probable(torch.randn(2, 3), table)
    with pytest.raises(UserError, match="not numbers"):
        draw_tokens(torch.randn(2, 3) @ table.T, 1.0, 1.0, np.zeros(2))


# -- the nucleus and the temperature -------------------------------------------------------------

SHARES = [0.15, 0.5, 0.05, 0.3]
"""Probabilities of four tokens, in no order."""


def draw_evenly(
    p: list[float], temperature: float, top_p: float, n: int = 800
) -> tuple[list[float], dict[int, float]]:
    """Share of each token where u is (i + 0.5) / n, and the probabilities reported with them."""
    logits = torch.tensor(p, dtype=torch.float64).log().expand(n, -1)
    token, probability = draw_tokens(logits, temperature, top_p, (np.arange(n) + 0.5) / n)
    shares = torch.bincount(token, minlength=len(p)).double() / n
    return shares.tolist(), dict(zip(token.tolist(), probability.tolist()))


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.15, 0.5, 0.05, 0.3]),
        (0.96, [0.15, 0.5, 0.05, 0.3]),  # 0.95 before the last one: it is needed
        (0.9, [0.15 / 0.95, 0.5 / 0.95, 0, 0.3 / 0.95]),
        (0.6, [0, 5 / 8, 0, 3 / 8]),  # two hold it, 5 to 3
        (0.51, [0, 5 / 8, 0, 3 / 8]),
        (0.49, [0, 1, 0, 0]),
        (1e-6, [0, 1, 0, 0]),  # the most probable one is always there
    ],
)
def test_the_nucleus_is_the_fewest_tokens_that_hold_its_mass_in_their_proportions(top_p, expected):
    shares, reported = draw_evenly(SHARES, 1.0, top_p)
    assert shares == pytest.approx(expected, abs=2e-3)
    assert [token for token, share in enumerate(shares) if share] == sorted(reported)
    for token, probability in reported.items():  # of the full distribution
        assert probability == pytest.approx(SHARES[token])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.5, [0.0, 1.0, 0.0]), (0.75, [0.0, 2 / 3, 1 / 3]), (0.7500001, [0.25, 0.5, 0.25])],
)
def test_a_mass_that_tokens_hold_exactly_takes_no_further_one(top_p, expected):
    """1/2, 1/4 and 1/4, which binary numbers hold exactly."""
    n = 4 * 3 * 100
    p = torch.tensor([0.25, 0.5, 0.25])
    logits = torch.where(p == 0.5, 0.0, -torch.inf).expand(n, -1).clone()
    logits[:, [0, 2]] = -float(np.log(2))
    assert torch.equal(logits[0].softmax(-1), p)
    token, _ = draw_tokens(logits, 1.0, top_p, (np.arange(n) + 0.5) / n)
    shares = sorted((torch.bincount(token, minlength=3).double() / n).tolist())
    # Which of the equal ones comes first does not matter.
    assert shares == pytest.approx(sorted(expected), abs=2e-3)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(0.5, [0.16, 0.64, 0.04, 0.16]), (2.0, [0.25, 0.5, 0.125, 0.125])],
)
def test_the_temperature_divides_the_logits(temperature, expected):
    """p^(1/T), normalised: of shares 2 4 1 2 the squares 4 16 1 4; of 4 16 1 1 the roots 2 4 1 1.

    The nucleus is that of the tempered distribution, and its probabilities are reported.
    """
    given = {0.5: [2.0, 4.0, 1.0, 2.0], 2.0: [4.0, 16.0, 1.0, 1.0]}[temperature]
    shares, reported = draw_evenly([x / sum(given) for x in given], temperature, 1.0)
    assert shares == pytest.approx(expected, abs=2e-3)
    assert [reported[token] for token in range(4)] == pytest.approx(expected)
    shares, reported = draw_evenly([x / sum(given) for x in given], temperature, 0.45)
    assert shares == [0, 1, 0, 0] and reported[1] == pytest.approx(expected[1])
