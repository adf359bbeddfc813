"""What plans say beyond digits: operations in order, shared words, variety."""

from __future__ import annotations

import doctest
import math
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.annotations import strip_annotations
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.sources import load_problems
from hbd3lm.plans import semantics as s
from hbd3lm.plans.rules.planner import plan_problem

KINDS = ("add", "subtract", "multiply", "divide")


def example(id_: str, plan: str, execution: str = "1+2 = 3\n#### 3") -> HierarchicalExample:
    return HierarchicalExample(id_, "How many?", plan, execution, "3")


def test_the_examples_in_the_docstrings_hold():
    assert doctest.testmod(s).failed == 0


# --- operations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("execution", "operations"),
    [
        ("Natalia sold 48/2 = 24 clips.\nShe sold 48+24 = 72.\n#### 72", ("divide", "add")),
        ("He pays $5 * 3 = $15, so $20 - $15 = $5 is left.", ("multiply", "subtract")),
        ("7 stickers/page * 6 pages = 42 stickers", ("multiply",)),
        ("In all 5+10+14 = 29", ("add",)),
        ("It is 80/100 * 10 = 8", ("multiply", "divide")),
        ("So 2 + 3*4 = 14", ("multiply", "add")),
        ("So (2 + 3)*4 - 1 = 19", ("add", "multiply", "subtract")),
        ("She has 2 apples and <<2*3=6>>6 pears", ("multiply",)),
        ("There are 5 of them.\n#### 5", ()),
        ("", ()),
    ],
)
def test_operations_of_a_solution_in_the_order_of_evaluation(execution, operations):
    assert s.solution_operations(execution) == operations


@pytest.mark.parametrize(
    ("plan", "operations"),
    [
        ("Multiply the hours by the rate, then subtract the tax.", ("multiply", "subtract")),
        ("Add the apples to the sum of the pears and the plums.", ("add",)),
        ("Add the product of rate and hours to the bonus.", ("multiply", "add")),
        ("Subtract the sum of both from the total.", ("add", "subtract")),
        ("Take the given percentage of the price. Subtract that.", ("scale", "subtract")),
        ("Divide to find how many times it fits.", ("divide",)),
        ("To find the sum, multiply them.", ("multiply",)),
        ("Multiply the price by a fraction of the hours.", ("multiply",)),
        ("Multiply by the pages and divide by the days.", ("multiply", "divide")),
        ("Double the amount; halve the rest.", ("multiply", "divide")),
        ("How many times did she add them?", ()),
        ("Find the total of the remaining ones per day.", ()),
        ("", ()),
    ],
)
def test_operations_a_plan_tells_to_do(plan, operations):
    assert s.plan_operations(plan) == operations


def brute_readings(plan):
    """Every sequence a plan may stand for, its shares spelled out."""
    shares = [("multiply",), ("divide",), ("multiply", "divide"), ("divide", "multiply")]
    for choice in product(*(shares if kind == "scale" else [(kind,)] for kind in plan)):
        yield tuple(kind for part in choice for kind in part)


sequences = st.lists(st.sampled_from(KINDS), max_size=4).map(tuple)
plans = st.lists(st.sampled_from((*KINDS, "scale")), max_size=3).map(tuple)


@given(plans, sequences)
def test_distance_zero_and_any_order_mean_what_they_say(plan, solution):
    readings = set(brute_readings(plan))
    assert (s.operation_distance(plan, solution) == 0) == (solution in readings)
    shuffled = {tuple(order) for reading in readings for order in permutations(reading)}
    assert s.same_operations(plan, solution) == (solution in shuffled)


@given(sequences, sequences, sequences)
def test_the_distance_is_a_metric_between_plain_sequences(a, b, c):
    distance = s.operation_distance
    assert distance(a, b) == distance(b, a) and distance(a, a) == 0
    assert distance(a, c) <= distance(a, b) + distance(b, c)
    assert abs(len(a) - len(b)) <= distance(a, b) <= max(len(a), len(b))


def test_agreement_of_one_problem_by_hand():
    found = s.compare_operations(("add", "multiply"), ("multiply", "add"))
    assert (found.exact, found.same, found.similarity) == (False, True, 0.0)
    found = s.compare_operations(("add", "divide"), ("add", "multiply", "divide"))
    assert (found.exact, found.same) == (False, False)
    assert found.similarity == pytest.approx(2 / 3)
    assert s.compare_operations((), ("add",)) is None
    assert s.compare_operations(("add",), ()) is None


def test_real_solutions_read_the_same_with_and_without_annotations(data_dir):
    """The annotations are stripped from most files; what stays visible must do."""
    problems = load_problems("gsm8k", "train", data_dir, limit=400).problems
    annotated = [p.solution for p in problems if "<<" in p.solution]
    same = sum(
        s.solution_operations(text) == s.solution_operations(strip_annotations(text))
        for text in annotated
    )
    assert len(annotated) > 350 and same / len(annotated) > 0.9


def test_plans_read_off_real_solutions_agree_with_them_and_shuffled_ones_do_not(data_dir):
    problems = load_problems("gsm8k", "test", data_dir, limit=200).problems
    examples = [
        HierarchicalExample(p.id, p.question, plan_problem(p)[0], p.solution, p.answer)
        for p in problems
    ]
    assert s.analyze_semantics(examples).agreement("exact") > 0.85
    wrong = [
        HierarchicalExample(e.id, e.question, e.plan, other.execution, e.answer_numerical)
        for e, other in zip(examples, examples[1:] + examples[:1])
    ]
    assert s.analyze_semantics(wrong).agreement("exact") < 0.2


# --- words and variety --------------------------------------------------------------------------


def test_share_of_plan_words_found_in_the_solution():
    assert s.shared_words("Add the red apples.", "There are 2+3 = 5 red apples") == 2 / 3
    assert s.shared_words("Add apples", "She has <<2+3=5>>5 pears") == 0
    assert math.isnan(s.shared_words("the 3 of", "anything"))


def test_the_same_sentence_many_times_is_noticed():
    same = [example(str(i), "Add the amounts." if i % 2 else "add  the amounts") for i in range(98)]
    found = s.analyze_semantics([*same, example("x", "Divide by two."), example("y", " ")])
    diversity = found.diversity
    assert (diversity.plans, diversity.distinct, diversity.repeated) == (99, 2, 98)
    assert diversity.largest == (98, "add  the amounts")
    assert diversity.entropy < 0.05
    assert list(found.repeats[-3:]) == [98, 1, 0]
    assert found.to_dict()["plans_with_spelled_numbers"] == 1


def test_diversity_by_hand():
    found = s.measure_diversity(["a b a", "c d", "c d", "e"])
    assert found.entropy == pytest.approx(1.5 / 2)  # -(1/4 ld 1/4) * 2 - 1/2 ld 1/2, over ld 4
    assert found.distinct_1 == 5 / 8 and found.distinct_2 == 3 / 4
    assert found.openings == 3 / 4
    all_distinct = s.measure_diversity(["a", "b", "c"])
    assert all_distinct.entropy == pytest.approx(1)
    assert math.isnan(s.measure_diversity(["a"]).entropy)
    assert s.measure_diversity([]).largest == (0, "")


def test_agreement_counts_what_could_be_compared():
    found = s.analyze_semantics(
        [
            example("a", "Add the amounts."),
            example("b", "Multiply them."),
            example("c", "How many?"),
            example("d", "Add them.", "Six.\n#### 6"),
        ]
    )
    assert found.to_dict()["operation_agreement"] == {
        "solutions_with_readable_calculations": 3,
        "plans_that_name_operations": 3,
        "compared": 2,
        "exact": 0.5,
        "same_in_any_order": 0.5,
        "similarity": 0.5,
    }
