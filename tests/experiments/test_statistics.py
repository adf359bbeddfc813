"""Every statistic: values of hand or library, properties, coverage by simulation."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hbd3lm.experiments import statistics
from hbd3lm.experiments.statistics import (
    Estimate,
    accuracy_difference_estimate,
    accuracy_estimate,
    crossed_draws,
    crossed_error,
    difference_estimate,
    holm,
    majority,
    mcnemar,
    mean_estimate,
    paired_estimate,
    rate_difference_estimate,
    ratio_estimate,
)

few = settings(max_examples=25)
probabilities = st.lists(st.floats(0, 1), min_size=1, max_size=12)
verdicts = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40)
matrices = arrays(
    float, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.integers(-20, 20)
)


# -- McNemar's test ------------------------------------------------------------------------------


def test_mcnemar_is_the_one_worked_out_by_hand():
    """5 against 1 of 6 discordant pairs: 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64."""
    first = [1, 1, 1, 1, 1, 0, 1, 0]
    second = [0, 0, 0, 0, 0, 1, 1, 0]
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (5, 1)
    assert found.p == pytest.approx(14 / 64)


def test_mcnemar_has_the_value_of_statsmodels_on_its_published_example():
    """``mcnemar([[101, 121], [59, 33]], exact=True)`` of statsmodels 0.15."""
    first = np.repeat([1, 1, 0, 0], [101, 121, 59, 33])
    second = np.repeat([1, 0, 1, 0], [101, 121, 59, 33])
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (121, 59)
    by_hand = 2 * sum(math.comb(180, k) for k in range(60)) / 2**180
    assert found.p == pytest.approx(by_hand, rel=1e-9)
    assert found.p == pytest.approx(4.4344492637551645e-06, rel=1e-9)


def test_models_that_agree_everywhere_do_not_differ():
    assert mcnemar([True, False], [True, False]) == statistics.McNemar(0, 0, 1.0)


def test_mcnemar_refuses_verdicts_on_different_problems():
    with pytest.raises(ValueError, match="3 and 2 problems"):
        mcnemar([True] * 3, [True] * 2)


@few
@given(verdicts)
def test_mcnemar_does_not_care_which_model_comes_first(pairs):
    a, b = zip(*pairs)
    there, back = mcnemar(a, b), mcnemar(b, a)
    assert there.p == pytest.approx(back.p)
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert 0 < there.p <= 1


# -- several tests -------------------------------------------------------------------------------


def test_holm_has_the_values_of_statsmodels_and_r():
    """``multipletests(p, method="holm")``, ``p.adjust(p, "holm")``."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    ties = holm([0.001, 0.2, 0.012, 0.03, 0.012])
    assert ties == pytest.approx([0.005, 0.2, 0.048, 0.06, 0.048])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@few
@given(probabilities)
def test_holm_raises_p_values_keeps_their_order_and_is_milder_than_bonferroni(p):
    adjusted = holm(p)
    assert all(x <= y <= min(1.0, len(p) * x) + 1e-12 for x, y in zip(p, adjusted))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)


# -- intervals -----------------------------------------------------------------------------------


def test_an_accuracy_of_one_seed_has_the_wilson_interval_of_scipy():
    right = np.array([True] * 8 + [False] * 2)
    found = accuracy_estimate(right)
    expected = scipy.stats.binomtest(8, 10).proportion_ci(method="wilson")
    assert found.value == 0.8
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_ratio_that_some_resamples_cannot_form_is_as_unsure_as_its_inverse():
    """Numbers in the plans of one seed of three: seeds resampled often hold no number at all."""
    rng = np.random.default_rng(0)
    plans = np.zeros((3, 60))
    plans[0, :8] = 1
    executions = rng.integers(3, 6, (3, 60)).astype(float)
    found, inverse = ratio_estimate(executions, plans), ratio_estimate(plans, executions)
    assert inverse.low < 0 < inverse.high
    assert found.value == pytest.approx(1 / inverse.value)
    assert found.low == pytest.approx(1 / inverse.high) and found.high == math.inf
    # Resampling three seeds alone says less doubt than there is.
    w_seeds, w_problems = crossed_draws(plans.shape)
    top, bottom = (((w_seeds @ x) * w_problems).sum(1) for x in (executions, plans))
    with np.errstate(divide="ignore"):
        assert found.low < np.quantile(top / bottom, 0.025, method="inverted_cdf")


@pytest.mark.parametrize("right", [True, False])
def test_a_perfect_score_in_every_seed_is_as_sure_as_its_problems(right):
    found = accuracy_estimate(np.full((3, 20), right))
    expected = accuracy_estimate(np.full(20, right))
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert found.high - found.low == pytest.approx(1.96**2 / (20 + 1.96**2))


def test_an_accuracy_of_several_seeds_stays_a_share():
    right = np.zeros((3, 10), dtype=bool)
    right[0, :6] = True
    found = accuracy_estimate(right)
    assert found.value == pytest.approx(0.2)
    assert found.low == 0.0 and 0.2 < found.high <= 1.0


def test_the_crossed_error_is_the_one_of_the_analysis_of_variance():
    """[[1, 3], [5, 11]]: mean squares of rows 36, columns 16, both 4; (36 + 16 - 4) / 4 = 12.

    Degrees of freedom: components 9 (rows) and 3 (columns), one each: 12^2 / (81 + 9) = 1.6.
    """
    error, freedom = crossed_error([np.array([[1.0, 3.0], [5.0, 11.0]])])
    assert error == pytest.approx(math.sqrt(12))
    assert freedom == pytest.approx(1.6)


def test_with_one_seed_the_error_is_that_of_a_mean():
    x = np.array([[2.0, 4.0, 9.0, 1.0]])
    error, freedom = crossed_error([x])
    assert error == pytest.approx(scipy.stats.sem(x[0]))
    assert freedom == 3


def test_of_a_paired_difference_with_one_seed_each_the_error_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 1, 30))
    error, freedom = crossed_error([a, -b])
    expected = scipy.stats.ttest_rel(a[0], b[0])
    assert (a.mean() - b.mean()) / error == pytest.approx(expected.statistic)
    assert freedom == pytest.approx(expected.df)


def test_a_mean_of_one_seed_has_about_the_interval_of_student():
    x = np.random.default_rng(1).normal(3, 2, size=200)
    found = mean_estimate(x)
    low, high = scipy.stats.t.interval(0.95, 199, x.mean(), scipy.stats.sem(x))
    assert found.value == pytest.approx(x.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)


def test_a_mean_has_about_the_interval_of_scipys_bootstrap():
    """Skewed, so that the interval is no normal one; one seed of 300 problems."""
    x = np.random.default_rng(2).exponential(size=300)
    expected = scipy.stats.bootstrap(
        (x,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0)
    ).confidence_interval
    found = mean_estimate(x)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.015)


def test_a_ratio_is_that_of_sums():
    found = ratio_estimate([[2, 4, 6]], [[1, 1, 4]])
    assert found.value == 2.0
    assert found.low < 2.0 < found.high


def test_a_ratio_without_a_denominator_is_infinite_or_unknown():
    assert ratio_estimate([[2, 4]], [[0, 0]]).value == math.inf
    nothing = ratio_estimate([[0, 0]], [[0, 0]])
    assert math.isnan(nothing.value) and math.isnan(nothing.low)


def test_a_ratio_that_some_resamples_leave_without_a_denominator_is_open_above():
    """One plan in twenty has a number: every third resample has none."""
    found = ratio_estimate(np.ones((1, 20)), np.eye(20)[:1])
    assert found.value == 20
    assert math.isfinite(found.low) and found.high == math.inf


def test_a_ratio_of_several_seeds_has_no_less_than_the_interval_of_its_linear_part():
    rng = np.random.default_rng(3)
    bottom = rng.integers(5, 15, size=(1, 80)) * np.ones((3, 1))
    top = bottom * (2 + rng.normal(0, 0.5, size=(3, 1)) + rng.normal(size=80))
    found = ratio_estimate(top, bottom)
    error, freedom = crossed_error([(top - found.value * bottom) / bottom.mean()])
    assert found.high - found.low >= 2 * scipy.stats.t.ppf(0.975, freedom) * error * 0.97


def test_different_problems_are_refused():
    with pytest.raises(ValueError, match="not of the same problems"):
        ratio_estimate(np.ones((1, 3)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="3 and 2 problems"):
        difference_estimate(np.ones((1, 3)), np.ones((1, 2)))


def test_one_problem_has_a_value_and_no_interval():
    for found in (mean_estimate([[3.0]]), difference_estimate([[3.0]], [[1.0]])):
        assert math.isnan(found.low) and math.isnan(found.high)
    assert difference_estimate([[3.0]], [[1.0]]).value == 2.0


def test_a_difference_of_rates_is_over_the_sums_of_counts():
    """(10 + 2) / 6 tokens against (4 + 2) / 6; unequal counts weigh."""
    found = rate_difference_estimate([[10.0, 2.0]], [[4.0, 2.0]], np.array([4, 2]))
    assert found.value == pytest.approx(1.0)


def test_pairing_takes_the_problems_difficulty_out():
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 10, size=100)
    a = hard + 0.5 + rng.normal(0, 0.1, size=(4, 100))
    b = hard + rng.normal(0, 0.1, size=(4, 100))
    paired = difference_estimate(a, b)
    assert paired.low > 0.3 and paired.high < 0.7
    assert mean_estimate(a).high - mean_estimate(a).low > 2


@few
@given(matrices, st.integers(-5, 5))
def test_a_mean_moves_and_turns_with_its_scores(x, shift):
    here, moved, turned = mean_estimate(x), mean_estimate(x + shift), mean_estimate(-x)
    assert here.low <= here.value + 1e-9 and here.value - 1e-9 <= here.high
    assert moved.low == pytest.approx(here.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(here.high + shift, abs=1e-6)
    assert turned.value == pytest.approx(-here.value)


@few
@given(matrices)
def test_a_model_does_not_differ_from_itself_and_seeds_may_come_in_any_order(x):
    same = difference_estimate(x[:1], x[:1])
    assert (same.value, same.low, same.high) == (0, 0, 0)
    error = crossed_error([x])
    assert crossed_error([x[::-1]]) == pytest.approx(error)
    assert crossed_error([x[:, ::-1]]) == pytest.approx(error)


def test_the_seeds_of_two_sides_are_resampled_apart():
    """Two seeds a side, 0 and 1 on every problem. A side's mean of two draws has the variance 1/8,
    the difference 1/4: the bootstrap's interval is [-1, 1], for one resample in 16 has -1. With
    the same draws on both sides every resample would be 0.

    By the analysis of variance it is 1/2 with two degrees of freedom: stretched by t(2) = 4.303
    times root 1/2 over 1.96 times root 1/4.
    """
    scores = np.array([[0.0] * 5, [1.0] * 5])
    found = difference_estimate(scores, scores)
    assert found.value == 0
    stretch = 4.303 * math.sqrt(1 / 2) / (1.96 * math.sqrt(1 / 4))
    assert (found.low, found.high) == pytest.approx((-stretch, stretch), rel=0.05)


def test_models_that_are_always_right_may_differ_as_much_as_their_problems_can_hide():
    right = np.ones((2, 20), dtype=bool)
    found = accuracy_difference_estimate(right, right)
    most = accuracy_estimate(np.zeros(20)).high
    assert (found.value, found.low, found.high) == (0.0, -most, most)
    other = right.copy()
    other[0, 3] = False
    expected = difference_estimate(right, other)
    assert accuracy_difference_estimate(right, other) == expected


def test_a_model_before_and_after_is_paired_with_itself():
    """Of 40 problems 4 are won and 1 is lost: (4 - 1) / 40."""
    before = np.array([False] * 20 + [True] * 20)
    after = before.copy()
    after[:4], after[-1] = True, False
    found = paired_estimate(after, before)
    assert found.value == pytest.approx(3 / 40)
    assert found == mean_estimate(after.astype(float) - before)
    same = paired_estimate(before, before)
    most = accuracy_estimate(np.zeros(40)).high
    assert (same.value, same.low, same.high) == (0.0, -most, most)
    with pytest.raises(ValueError, match="not of the same models and problems"):
        paired_estimate(before, np.stack([before, before]))


def test_shares_of_several_answers_to_a_problem_are_no_verdicts():
    shares = np.array([[0.5, 0.25, 1.0, 0.0] * 10])
    assert accuracy_estimate(shares) == mean_estimate(shares)


def test_draws_are_of_as_many_seeds_and_problems_and_repeatable():
    seeds, problems = crossed_draws((3, 7), seed=5, resamples=50)
    assert (seeds.sum(1) == 3).all() and (problems.sum(1) == 7).all()
    again, other = crossed_draws((3, 7), 5, 50), crossed_draws((3, 7), 6, 50)
    assert (again[1] == problems).all() and not (other[1] == problems).all()


# -- do 95 % intervals cover the truth? ----------------------------------------------------------


def coverage(seeds: int, problems: int, of_seeds: float, estimate, repeats: int = 150):
    """Share of simulated studies whose interval holds the truth, 0; and the mean width."""
    rng = np.random.default_rng(0)
    found = []
    for repeat in range(repeats):
        hard = rng.normal(size=problems)
        x, y = (
            rng.normal(0, of_seeds, size=(seeds, 1))
            + hard
            + rng.normal(0, 0.5, size=(seeds, problems))
            for _ in range(2)
        )
        found.append(estimate(x, y, repeat))
    covered = np.mean([e.low <= 0 <= e.high for e in found])
    return covered, np.mean([e.high - e.low for e in found])


@pytest.fixture
def few_draws(monkeypatch):
    fewer = functools.partial(crossed_draws, resamples=300)
    monkeypatch.setattr(statistics, "crossed_draws", fewer)


def of_mean(x, y, seed):
    return mean_estimate(x, seed)


def of_difference(x, y, seed):
    return difference_estimate(x, y, seed)


@pytest.mark.parametrize("estimate", [of_mean, of_difference])
@pytest.mark.parametrize(("seeds", "of_seeds"), [(1, 0.0), (3, 0.0), (3, 0.5)])
def test_intervals_cover_the_truth_as_often_as_they_say(few_draws, estimate, seeds, of_seeds):
    """Three seeds that differ a lot, resampled without more, cover it in 80 %."""
    covered, _ = coverage(seeds, 50, of_seeds, estimate)
    assert covered >= 0.90


def test_seeds_that_do_not_differ_cost_little(few_draws):
    """The interval of three equal models is about that of their problems."""
    _, width = coverage(3, 50, 0.0, of_mean, repeats=60)
    exact = 2 * 1.96 * math.sqrt((1 + 0.25 / 3) / 50)
    assert width == pytest.approx(exact, rel=0.15)


def test_accuracies_of_one_seed_are_covered_near_the_edge():
    """19 of 20 problems are solved: a bootstrap of one seed would often say all are."""
    rng = np.random.default_rng(0)
    found = [accuracy_estimate(rng.random(40) < 0.95) for _ in range(300)]
    assert np.mean([e.low <= 0.95 <= e.high for e in found]) >= 0.92


# -- votes ---------------------------------------------------------------------------------------


def test_the_majority_counts_answers_that_were_given_and_ties_go_to_the_first():
    assert majority(["1", "2", "2", None]) == "2"
    assert majority(["3", "5", "5", "3"]) == "3"
    assert majority([None, None, "4"]) == "4"
    assert majority([None]) is None
    assert majority([]) is None


def test_an_estimate_is_json_with_nothing_where_nothing_is_known():
    assert Estimate(1.0).to_dict() == {"value": 1.0, "low": None, "high": None}
    bound = Estimate(1.0, 0.5, 2.0, is_bound=True)
    assert bound.to_dict() == {"value": 1.0, "low": 0.5, "high": 2.0, "is_bound": True}
