"""The plan metrics on examples small enough to count by eye."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.plans.quality import (
    CATEGORIES,
    EMPTY_PLAN,
    NO_PLAN_NUMBERS,
    THRESHOLDS,
    analyze_examples,
    count_sentences,
)


def example(
    plan: str, execution: str = "2 + 3 = 5.\n#### 5", answer: str = "5", id_: str = "a"
) -> HierarchicalExample:
    return HierarchicalExample(id_, "How many?", plan, execution, answer)


def examples_with(*numbers: int) -> list[HierarchicalExample]:
    """One example for each count, its plan holding that many numbers, none of them the answer."""
    return [
        example(" ".join(["Use"] + ["7"] * count), id_=f"p{index}")
        for index, count in enumerate(numbers)
    ]


@pytest.mark.parametrize(
    ("numbers", "label"),
    [
        (0, "Perfect (0 numbers)"),
        (1, "Mostly abstract (1-2 numbers)"),
        (2, "Mostly abstract (1-2 numbers)"),
        (3, "Somewhat concrete (3-5 numbers)"),
        (5, "Somewhat concrete (3-5 numbers)"),
        (6, "Too concrete (>5 numbers)"),
        (40, "Too concrete (>5 numbers)"),
    ],
)
def test_the_categories_are_those_of_the_specification(numbers, label):
    assert analyze_examples(examples_with(numbers)).labels == (label,)


def test_counts_and_means_of_two_examples():
    metrics = analyze_examples(
        [
            example("Add three given amounts. Then halve the sum.", "1 + 2 = 3.\n#### 3", "3", "a"),
            example("Divide 8 by 4.", "8/4 = 2 or two pens. 2 * 2 = 4.\n#### 4", "4", "b"),
        ]
    )
    assert metrics.plan.numbers.tolist() == [0, 2]
    assert metrics.execution.numbers.tolist() == [4, 7]
    assert metrics.plan.spelled.tolist() == [2, 0]  # three, halve
    assert metrics.execution.spelled.tolist() == [0, 1]
    assert metrics.plan.operations["add"].tolist() == [2, 0]  # Add, sum
    assert metrics.plan.operations["divide"].tolist() == [1, 1]  # halve; Divide
    assert metrics.execution.total_operations.tolist() == [1, 2]
    assert metrics.plan.words.tolist() == [8, 4]
    assert metrics.plan.characters.tolist() == [44, 14]
    assert metrics.plan.sentences.tolist() == [2, 1]
    assert metrics.ratio == 5.5  # (11 / 2) / (2 / 2)
    report = metrics.to_dict()
    assert report["plan"]["numbers"] == {"mean": 1.0, "median": 1.0, "max": 2, "total": 2}
    assert report["plan"]["numbers_per_word"] == 2 / 12
    assert report["execution"]["operations_by_kind"]["multiply"] == {"total": 1, "mean": 0.5}
    assert report["categories"]["Mostly abstract (1-2 numbers)"] == {
        "count": 1,
        "share": 0.5,
        "expected": [0.3, 0.4],
    }


def test_annotations_left_in_an_execution_change_nothing():
    plain = analyze_examples([example("Add.", "2 + 3 = 5.\n#### 5")])
    annotated = analyze_examples([example("Add.", "2 + 3 = <<2+3=5>>5.\n#### 5")])
    assert plain.to_dict() == annotated.to_dict()


def test_any_object_with_the_four_fields_will_do():
    record = SimpleNamespace(id="x", plan="Add.", execution="1 + 1 = 2", answer_numerical="2")
    assert analyze_examples(iter([record])).ids == ("x",)


# --- thresholds -------------------------------------------------------------------------------


def verdicts(metrics):
    return {v.threshold.key: (v.value, v.passed) for v in metrics.verdicts}


def test_five_percent_too_concrete_plans_are_already_too_many():
    assert verdicts(analyze_examples(examples_with(*[0] * 19, 6)))["too_concrete"] == (0.05, False)
    assert verdicts(analyze_examples(examples_with(*[0] * 20, 6)))["too_concrete"] == (1 / 21, True)


def test_half_of_the_plans_with_few_numbers_are_not_yet_enough():
    assert verdicts(analyze_examples(examples_with(2, 3)))["few_numbers"] == (0.5, False)
    assert verdicts(analyze_examples(examples_with(0, 2, 3)))["few_numbers"] == (2 / 3, True)


def test_a_ratio_of_three_is_not_yet_above_three():
    def measure(execution):
        return verdicts(analyze_examples([example("Use 7.", execution)]))["exec_plan_ratio"]

    assert measure("1 2 3") == (3.0, False)
    assert measure("1 2 3 4") == (4.0, True)


def test_numbers_hidden_in_words_count_against_the_abstraction_rate():
    metrics = analyze_examples([example("Add two, three and four.")])
    assert verdicts(metrics)["few_numbers"] == (1.0, True)
    assert verdicts(metrics)["abstraction_rate"] == (0.0, False)
    assert not metrics.passed


def test_every_threshold_has_its_verdict():
    metrics = analyze_examples(examples_with(0))
    assert [v.threshold for v in metrics.verdicts] == list(THRESHOLDS)
    assert metrics.passed


def test_the_ratio_over_plans_without_numbers_is_infinite_and_null_in_json():
    metrics = analyze_examples(examples_with(0, 0))
    assert metrics.ratio == math.inf
    assert metrics.ratio_interval == (math.inf, math.inf)
    assert verdicts(metrics)["exec_plan_ratio"] == (math.inf, True)
    report = metrics.to_dict()
    assert report["exec_plan_ratio"] is None
    assert report["exec_plan_ratio_note"] == NO_PLAN_NUMBERS == "inf (plans hold no numbers)"


def test_a_ratio_of_nothing_to_nothing_passes_no_threshold():
    metrics = analyze_examples([example("Add.", "Nothing here.")])
    assert math.isnan(metrics.ratio)
    assert verdicts(metrics)["exec_plan_ratio"][1] is False
    assert "undefined" in metrics.to_dict()["exec_plan_ratio_note"]


# --- empty plans ------------------------------------------------------------------------------


def test_an_empty_plan_is_reported_and_never_perfect():
    metrics = analyze_examples([example(" \n", id_="empty"), example("Use 7.", id_="full")])
    assert metrics.empty_ids == ("empty",)
    assert metrics.labels == (EMPTY_PLAN, "Mostly abstract (1-2 numbers)")
    assert metrics.categories["Perfect (0 numbers)"] == (0, 0.0)
    assert metrics.categories[EMPTY_PLAN] == (1, 0.5)
    assert metrics.plan.mean(metrics.plan.numbers) == 1.0  # of the plan that is there
    assert verdicts(metrics)["few_numbers"] == (0.5, False)


def test_nothing_but_empty_texts_gives_a_report_without_numbers():
    metrics = analyze_examples([example("", "", "")])
    report = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert report["plan"]["numbers"]["mean"] is None
    assert report["answer_leakage"] == {
        "checked": 0,
        "count": 0,
        "share": None,
        "ids_in_digits": [],
        "ids_in_words": [],
    }
    assert not metrics.passed


def test_no_examples_at_all_are_refused():
    with pytest.raises(UserError, match="at least one"):
        analyze_examples([])


# --- leakage and overlap ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "answer", "digits", "words"),
    [
        ("The answer is 72.", "72", True, False),
        ("It costs $1,234.50.", "1234.5", True, False),
        ("About 7.0 of them.", "7", True, False),
        ("Find seventy-two.", "72", False, True),
        ("Two dozen, that is 24.", "24", True, True),
        ("Find 172 or 7.2.", "72", False, False),
        ("Double it.", "2", False, False),
        ("First, add.", "1", False, False),
    ],
)
def test_an_answer_leaks_by_its_value_in_digits_or_words(plan, answer, digits, words):
    leakage = analyze_examples([example(plan, "x", answer, "id")]).leakage
    assert (leakage.in_digits == ("id",), leakage.in_words == ("id",)) == (digits, words)
    assert leakage.answer_ids == (("id",) if digits or words else ())
    assert leakage.answer_share == float(digits or words)


def test_intermediate_results_leak_apart_from_the_answer():
    execution = "10*2 = 20 pens.\n20 + 4 = $24 now. 24/2 = 12.\n#### 12"
    leakage = analyze_examples([example("Get 20, then 12 of 10.", execution, "12")]).leakage
    # The results are 20 and 24; 10 is given and 12 is the answer.
    assert (leakage.results, leakage.results_in_plans, leakage.results_share) == (2, 1, 0.5)
    assert leakage.results_ids == ("a",)


def test_overlap_is_the_share_of_the_plans_word_four_grams():
    plan, execution = "add the red and blue pens", "now Add the red and 3 blue pens"
    # add-the-red-and of the plan's three is in the execution.
    assert analyze_examples([example(plan, execution)]).overlap == 1 / 3
    assert math.isnan(analyze_examples([example("too short")]).overlap)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", 0),
        ("Add it", 1),
        ("Add it. Then stop!", 2),
        ("It costs 1.5 dollars.", 1),
        ("1. Find it.\n2. Add it.", 2),
        ("Why? So.\n#### 5", 2),
    ],
)
def test_sentences_end_with_a_mark_or_the_line(text, sentences):
    assert count_sentences(text) == sentences


# --- intervals --------------------------------------------------------------------------------


def test_equal_examples_leave_no_doubt_about_the_mean():
    metrics = analyze_examples(examples_with(2, 2, 2))
    assert metrics.plan_interval == (2.0, 2.0)
    assert metrics.ratio_interval == (2.0, 2.0)  # four numbers in each execution


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    """Half zeros, half ones: standard error 0.5/sqrt(400) = 0.025, so 0.5 -+ 0.049."""
    low, high = analyze_examples(examples_with(*[0, 1] * 200)).plan_interval
    assert low == pytest.approx(0.451, abs=0.008)
    assert high == pytest.approx(0.549, abs=0.008)


def test_the_seed_alone_decides_the_intervals():
    data = examples_with(0, 1, 2, 3, 4, 5, 6, 7, 8)
    first, again = analyze_examples(data, seed=1), analyze_examples(data, seed=1)
    assert first.to_dict() == again.to_dict()
    assert first.ratio_interval != analyze_examples(data, seed=2).ratio_interval


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30))
def test_categories_and_thresholds_agree_with_a_plain_count(numbers):
    metrics = analyze_examples(examples_with(*numbers), resamples=50)
    counts = [metrics.categories[category.label][0] for category in CATEGORIES]
    assert counts == [
        sum(n == 0 for n in numbers),
        sum(1 <= n <= 2 for n in numbers),
        sum(3 <= n <= 5 for n in numbers),
        sum(n > 5 for n in numbers),
    ]
    values = {v.threshold.key: v.value for v in metrics.verdicts}
    assert values["too_concrete"] == pytest.approx(counts[3] / len(numbers))
    assert values["few_numbers"] == pytest.approx((counts[0] + counts[1]) / len(numbers))
    low, high = metrics.plan_interval
    assert min(numbers) <= low <= high <= max(numbers)
    json.dumps(metrics.to_dict(), allow_nan=False)


def test_real_sub_questions_keep_every_threshold(data_dir):
    lines = (data_dir / "gsm8k_train_socratic.jsonl").read_text(encoding="utf-8").splitlines()
    data = []
    for index, line in enumerate(lines[:2000]):
        steps = [step.split(" ** ") for step in json.loads(line)["answer"].split("\n")]
        plan = " ".join(step[0] for step in steps[:-1])
        execution = "\n".join(step[-1] for step in steps)
        answer = execution.rpartition("#### ")[2]
        data.append(HierarchicalExample(f"{index}", "", plan, execution, answer))
    metrics = analyze_examples(data)
    assert metrics.passed  # GSM8K's own sub-questions are abstract
    assert metrics.leakage.checked == 2000
