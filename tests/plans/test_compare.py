"""Two plan sets side by side: pairing, differences and their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.plans.bootstrap import percentile_interval, resampled_means
from hbd3lm.plans.compare import _difference, compare_plans, measure_plans

WORDY = "Add the two amounts and the three others."
PLAIN = "Add the amounts."


def plans(texts, prefix="p", question="How many?", answer="3"):
    return measure_plans(
        [
            HierarchicalExample(f"{prefix}{i}", question, text, "1+2 = 3\n#### 3", answer)
            for i, text in enumerate(texts)
        ]
    )


def rows(comparison):
    return {row.key: row for row in comparison.rows}


def test_values_and_differences_by_hand():
    found = compare_plans(plans([WORDY, WORDY, "Add 3 to 1."]), plans([PLAIN, "Add 5.", PLAIN]))
    assert found.paired and (found.common, found.only_this, found.only_other) == (3, 0, 0)
    row = rows(found)
    assert (row["numbers"].this, row["numbers"].other) == (2 / 3, 1 / 3)
    assert row["numbers"].difference == pytest.approx(1 / 3)
    assert row["spelled_numbers"].this == 4 / 3 and row["spelled_numbers"].other == 0
    assert row["answer_leakage"].this == 1.0 and row["answer_leakage"].other == 0  # "three", 3
    assert row["repeated"].this == pytest.approx(2 / 3)
    assert row["operations_exact"].difference == 0


def test_a_difference_that_is_the_same_everywhere_has_no_spread_if_paired():
    first = ["Add " + "them " * i for i in range(1, 9)]
    found = compare_plans(plans([text + "now" for text in first]), plans(first))
    words = rows(found)["words"]
    assert (words.difference, words.low, words.high) == (1, 1, 1) and words.clear
    apart = compare_plans(plans([text + "now" for text in first], "a"), plans(first, "b"))
    words = rows(apart)["words"]
    assert not apart.paired and "unpaired" in apart.method
    assert words.difference == 1 and words.low < 0 < words.high and not words.clear


@pytest.mark.parametrize("paired", [True, False])
def test_intervals_are_those_of_scipy(paired):
    generator = np.random.default_rng(1)
    ours, theirs = generator.poisson(3, 300), generator.poisson(2.5, 300)
    if paired:
        theirs = ours - generator.integers(-1, 3, 300)

    def statistic(x, y, axis):
        return x.mean(axis) - y.mean(axis)

    reference = stats.bootstrap(
        (ours, theirs), statistic, paired=paired, vectorized=True, n_resamples=9999,
        method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    *_, low, high = _difference(
        ours.astype(float), theirs.astype(float), paired, np.random.default_rng(3), 9999
    )
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=0.015)


def test_resampled_means_have_the_standard_error_of_the_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    means = resampled_means(values, np.random.default_rng(1), 4000)
    assert means.std() == pytest.approx(values.std() / 20, rel=0.05)
    assert percentile_interval(np.full(5, math.nan)) == pytest.approx((math.nan,) * 2, nan_ok=True)


def test_problems_of_one_file_alone_are_left_out_and_counted():
    found = compare_plans(plans([PLAIN] * 6), plans([WORDY] * 4))
    assert found.paired and (found.common, found.only_this, found.only_other) == (4, 2, 0)
    assert rows(found)["words"].counts == (4, 4)
    assert "2 problems of one file alone are left out" in found.method


def test_the_same_ids_of_other_questions_are_other_problems():
    found = compare_plans(plans([PLAIN] * 4), plans([PLAIN] * 4, question="How far?"))
    assert not found.paired and found.common == 0


def test_the_seed_decides_the_intervals():
    sets = plans([PLAIN, WORDY] * 9), plans([WORDY, PLAIN, PLAIN] * 6)
    first, again = (compare_plans(*sets, seed=1) for _ in range(2))
    assert first == again
    assert first.rows != compare_plans(*sets, seed=2).rows


def test_what_neither_or_one_set_has_is_undefined_not_zero():
    found = compare_plans(plans(["", ""]), plans([PLAIN, PLAIN]))
    row = rows(found)
    assert math.isnan(row["words"].this) and math.isnan(row["words"].difference)
    assert row["empty"].difference == 1
    report = found.to_dict()["measures"]
    assert report["words"]["difference"] is None and report["words"]["clear"] is False
