"""Changed plans: what is changed is what was meant, and nothing else."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.data.sources import load_problems
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.plans.interventions import (
    EXCHANGED,
    inject_numbers,
    perturbation,
    shuffle_plans,
    swap_operations,
    without_purposes,
)
from hbd3lm.plans.numbers import find_numbers, number_value
from hbd3lm.plans.planner import load_planner
from hbd3lm.plans.semantics import plan_key, plan_operations


@pytest.mark.parametrize(
    ("plan", "swapped"),
    [
        ("Add the pens, the cups and the hats.", "Subtract the cups and the hats from the pens."),
        ("Subtract the gift from the total price.", "Add the total price and the gift."),
        ("Subtract the gift and the tax from the price.", "Add the price, the gift and the tax."),
        ("Add the gift to the result.", "Subtract the gift from the result."),
        ("Multiply the hours by the rate.", "Divide the hours by the rate."),
        (
            "First, multiply the boxes by the mugs to find how many mugs there are in total. "
            "Then divide that by the friends.",
            "First, divide the boxes by the mugs to find how many mugs there are in total. "
            "Then multiply that by the friends.",
        ),
        ("To find the sum, multiply it by the rate.", "To find the sum, divide it by the rate."),
        ("It is multiplied by the rate.", "It is divided by the rate."),
    ],
)
def test_operations_are_exchanged_in_words(plan, swapped):
    assert swap_operations(plan) == swapped


@pytest.mark.parametrize("plan", ["", "Take the given fraction of the pens.", "How many are left?"])
def test_a_plan_without_such_operations_cannot_be_swapped(plan):
    assert swap_operations(plan) is None


def test_purposes_go_and_operations_stay():
    plan = "First, add the pens and cups to find the total. To see more, halve it. How many pens?"
    assert without_purposes(plan) == "First, add the pens and cups. Halve it. How many pens?"
    assert without_purposes("Add the pens.") is None
    assert without_purposes("") is None
    for plan in load_planner("rules").plan(generate_problems("test", 100, 3, 1, 4)):
        bare = without_purposes(plan)
        assert plan_operations(bare) == plan_operations(plan)
        assert " to find" not in bare


def exchanged(plan):
    return tuple(EXCHANGED.get(kind, kind) for kind in plan_operations(plan))


def test_generated_plans_name_exactly_the_exchanged_operations():
    problems = generate_problems("test", 200, 0, 1, 4)
    plans = load_planner("rules").plan(problems)
    swapped = [(plan, swap_operations(plan)) for plan in plans]
    done = [(plan, other) for plan, other in swapped if other is not None]
    assert all(plan_operations(other) == exchanged(plan) for plan, other in done)
    assert len(done) > 170
    # Those that are left name nothing but shares.
    left = [plan for plan, other in swapped if other is None]
    assert all(set(plan_operations(plan)) == {"scale"} for plan in left)


def test_real_plans_can_mostly_be_swapped(data_dir):
    problems = load_problems("gsm8k", "test", data_dir, 100, seed=0).problems
    plans = load_planner("rules").plan(problems)
    swapped = [(plan, swap_operations(plan)) for plan in plans]
    assert all(plan_operations(b) == exchanged(a) for a, b in swapped if b is not None)
    assert sum(b is not None for _, b in swapped) > 80


@settings(max_examples=50)
@given(
    st.lists(
        st.sampled_from(["Add a and b.", "add a and b", "Multiply a by b.", "Divide a by b.", ""]),
        min_size=2,
        max_size=12,
    ),
    st.integers(0, 5),
)
def test_a_shuffle_gives_everybody_another_problems_plan_once(plans, seed):
    order = shuffle_plans(plans, seed)
    assert sorted(order) == list(range(len(plans)))
    assert all(i != j for i, j in enumerate(order))


def test_a_shuffle_prefers_other_operations():
    plans = ["Add a and b.", "Add c and d.", "Multiply a by b.", "Multiply c by d."]
    order = shuffle_plans(plans)
    assert all(plan_operations(plans[i]) != plan_operations(plans[j]) for i, j in enumerate(order))
    # Where it cannot be helped: other texts at least.
    alike = ["Add a and b.", "Add a and b.", "Add c and d.", "Add c and d."]
    assert all(plan_key(alike[i]) != plan_key(alike[j]) for i, j in enumerate(shuffle_plans(alike)))
    with pytest.raises(ValueError, match="one plan"):
        shuffle_plans(["Add a and b."])


def test_numbers_go_to_the_quantities_they_belong_to():
    question = "Lan buys 11 bracelets. Each bracelet costs $0.75."
    plan = "Multiply the given bracelets by the given price to find how much the bracelets cost."
    right, numbers = inject_numbers(plan, question, lambda value: value)
    assert right == (
        "Multiply the given 11 bracelets by the given 0.75 price to find how much the bracelets "
        "cost."
    )
    assert numbers == [Fraction(11), Fraction(3, 4)]
    assert plan_operations(right) == plan_operations(plan)


def test_a_number_that_decimals_cannot_hold_is_told_as_it_is_written():
    """An execution that takes it over writes 5.33, which is to be found."""
    found = inject_numbers("Add the given pens.", "She has 3 pens.", lambda _: Fraction(16, 3))
    assert found == ("Add the given 5.33 pens.", [Fraction("5.33")])


def test_wrong_numbers_are_nowhere_in_the_problem():
    for i, problem in enumerate(generate_problems("test", 60, 0, 2, 3)):
        (plan,) = load_planner("rules").plan([problem])
        texts = [problem.question, problem.solution]
        found = inject_numbers(plan, problem.question, perturbation(texts, i))
        if found is None:
            continue
        text, numbers = found
        real = {number_value(n) for t in texts for n in find_numbers(t)}
        assert numbers
        assert not real & set(numbers)
        assert len(find_numbers(text)) == len(numbers)
        assert found == inject_numbers(plan, problem.question, perturbation(texts, i))


@pytest.mark.parametrize(
    ("question", "values"),
    [
        ("Ann has 3 cats and twelve dogs.", {3, 12}),
        ("Twenty-five boys; one hundred and five girls.", {25, 105}),
        ("Twice as many, then a third of them, and half a dozen.", {2, 3, 6, 12}),
        ("He doubled two-thirds of it and took a quarter.", {2, 3, 4}),
        ("It tripled.", {3}),
    ],
)
def test_wrong_numbers_are_none_that_the_problem_has_in_words(question, values):
    """Only digits were looked at: a plan could be given the twelve of the question as wrong."""
    found = {perturbation([question], seed)(Fraction(8)) for seed in range(400)}
    expected = {Fraction(n) for n in range(2, 19)} - {Fraction(8), *map(Fraction, values)}
    assert found == expected


def test_where_every_number_near_is_taken_the_next_free_one_is():
    question = " ".join(map(str, range(40)))
    assert perturbation([question], 0)(Fraction(8)) == 40


def test_a_plan_that_names_nothing_given_takes_no_numbers():
    assert inject_numbers("Add it all up.", "She has 3 pens.", lambda value: value) is None
    assert inject_numbers("Add the given pens.", "She has pens.", lambda value: value) is None
