import pytest

from hbd3lm.data.records import Problem
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError
from hbd3lm.plans.socratic import SocraticPlanner, clean_subquestion
from hbd3lm.plans.wording import has_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How much do the 3 friends pay?", "How much do the friends pay?"),
        ("how many  clips did she sell ?", "How many clips did she sell?"),
        ("Define a variable", "Define a variable."),
        ("42", "The given amount."),
        ("  ", ""),
    ],
)
def test_a_subquestion_loses_its_values_and_becomes_a_sentence(text, expected):
    assert clean_subquestion(text) == expected


def test_the_plan_is_the_subquestions_in_order_without_immediate_repeats():
    subquestions = ("How many in May?", "Simplify", "Simplify", "How many in all 2 months?")
    [plan] = SocraticPlanner().plan([Problem("p", "?", "#### 1", "1", subquestions)])
    assert plan == "How many in May? Simplify. How many in all months?"


def test_a_problem_without_subquestions_is_named_with_the_remedy():
    with pytest.raises(UserError, match=r"problem svamp_3 has no sub-questions.*--planner rules"):
        SocraticPlanner().plan([Problem("svamp_3", "?", "#### 1", "1")])


def test_embedded_problems_carry_subquestions_and_give_abstract_plans():
    problems = load_problems("embedded", "train", limit=1000).problems
    assert [p for p in SocraticPlanner().plan(problems) if has_numbers(p)] == []


def test_all_gsm8k_subquestions_give_abstract_plans(data_dir):
    problems = load_problems("gsm8k_socratic", "train", data_dir).problems
    plans = SocraticPlanner().plan(problems)
    assert len(plans) == 7473 and all(plans)
    assert [plan for plan in plans if has_numbers(plan)] == []
