import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import Problem
from hbd3lm.data.sources import load_problems
from hbd3lm.plans.numbers import find_numbers, find_spelled_numbers
from hbd3lm.plans.rules.expressions import Product
from hbd3lm.plans.rules.planner import RulesPlanner, plan_problem
from hbd3lm.plans.rules.sentences import MAX_WORDS
from hbd3lm.plans.rules.steps import read_steps
from hbd3lm.plans.wording import has_numbers


def problem(question, *lines, answer="0"):
    return Problem("p", question, "\n".join([*lines, f"#### {answer}"]), answer)


def plan(question, *lines, answer="0"):
    return plan_problem(problem(question, *lines, answer=answer))[0]


def test_a_plan_names_operands_operations_order_and_purposes():
    assert plan(
        "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in "
        "May. How many clips did Natalia sell altogether in April and May?",
        "Natalia sold 48/2 = <<48/2=24>>24 clips in May.",
        "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.",
        answer="72",
    ) == (
        "First, take the given fraction of the given friends to find how many clips Natalia sold "
        "in May. Finally, add the given friends and the previous result to find the answer: how "
        "many clips Natalia sold altogether in April and May."
    )


@pytest.mark.parametrize(
    ("equation", "action"),
    [
        ("9+4", "Add the given hats and the given caps"),
        ("9-4", "Subtract the given caps from the given hats"),
        ("9*4", "Multiply the given hats by the given caps"),
        ("9/4", "Divide the given hats by the given caps"),
        (
            "9-(4*4)",
            "Subtract the product of the given caps and the other given caps from the given hats",
        ),
    ],
)
def test_each_operation_is_told_with_its_operands_in_their_roles(equation, action):
    text = plan(
        "Ann has 9 hats and 4 caps. How many are there?",
        f"There are {equation}=<<{equation}=1>>1 things.",
    )
    assert text.startswith(action + " to find how many things there are"), text


def test_an_operand_is_named_by_where_it_comes_from():
    text = plan(
        "Bo reads 5 pages a day. He reads for 3 weeks. Then he skips 6 pages. How many pages?",
        "He reads for 3*7=<<3*7=21>>21 days.",
        "He would read 21*5=<<21*5=105>>105 pages.",
        "He read 105-6=<<105-6=99>>99 pages.",
        answer="99",
    )
    assert "multiply the given weeks by the days in a week" in text
    assert "multiply the previous result by the given pages per day" in text
    assert "subtract the given pages from the previous result" in text


def test_a_result_used_later_is_told_apart_from_the_previous_one():
    text = plan(
        "A costs $4, B costs $9, C costs $11. Two As, what is left of C, all?",
        "A pair of A costs 4*2=$<<4*2=8>>8.",
        "B and C cost 9+11=$<<9+11=20>>20.",
        "The difference is 20-8=$<<20-8=12>>12.",
        answer="12",
    )
    assert "subtract the first result from the previous result" in text


def test_the_plan_says_which_earlier_step_answers_the_question():
    text = plan(
        "Ann has 3 red and 4 blue hats. How many hats?",
        "Ann has 3+4=<<3+4=7>>7 hats.",
        "Without the red ones she has 7-3=<<7-3=4>>4 hats.",
        answer="7",
    )
    assert text.endswith("The answer is how many hats Ann has.")


def test_plain_equations_count_where_a_line_has_no_annotation():
    steps = read_steps("She has 54*5 = $270.00 now.\nFemale:44(.50)=22\n#### 22")
    assert [step.result for step in steps] == [270, 22]
    assert all(isinstance(step.expression, Product) for step in steps)
    text, source = plan_problem(problem("Ann has 9 of 20.", "9 + 20 = 29 hats", answer="29"))
    assert source == "equations" and text.startswith("Add ")


def test_algebra_without_calculations_still_gives_an_outline():
    text, source = plan_problem(
        problem(
            "There are men and women. How many men?",
            "Let x be the number of men.",
            "Combining like terms, 2x + y = 160",
            "Dividing both sides by 2, x = 80",
        )
    )
    assert source == "lines"
    assert "let an unknown stand for the number of men" in text
    assert "combine like terms" in text
    assert "divide both sides to isolate the unknown" in text


def test_without_any_solution_the_question_alone_gives_a_plan_that_is_counted():
    planner = RulesPlanner()
    [text] = planner.plan([problem("Ann had 3 hats and lost 2 caps. How many are left?")])
    assert text == (
        "Start from the given hats and the given caps. Decide which operation links them, step by "
        "step, to answer: how many are left?"
    )
    assert planner.sources == {"question": 1}


def test_one_svamp_equation_becomes_one_sentence_with_the_question():
    text = plan(
        "Each pack costs 76 dollars. If there is a discount of 25 dollars on each pack. How much "
        "do you have to pay to buy each pack?",
        "76 - 25 = <<76-25=51>>51",
        answer="51",
    )
    assert text.startswith("Subtract ")
    assert text.endswith("to answer: how much do you have to pay to buy each pack?")


PIECES = """First find the total Ann has 3 $4.50 = + * / ( ) <<3+4=7>>7 <<5=5>>5 <<1/0=0>> because
, . so there are hats left half dozen one-way years old 20% x 2nd for a total of ½ : is - is"""
WORDS = st.sampled_from([*PIECES.split(), "\n"])


@given(
    st.lists(WORDS, max_size=25).map(" ".join) | st.text(max_size=60),
    st.lists(WORDS, max_size=15).map(" ".join) | st.text(max_size=60),
)
def test_any_text_gives_a_non_empty_plan_free_of_numbers(solution, question):
    text, _ = plan_problem(Problem("p", question, solution, "7"))
    assert text.strip()
    assert not has_numbers(text)


def assert_abstract_and_short(problems):
    plans = RulesPlanner().plan(problems)
    numbered = [p.id for p, t in zip(problems, plans) if find_numbers(t) or re.search(r"\d", t)]
    spelled = {p.id: find_spelled_numbers(t) for p, t in zip(problems, plans)}
    assert numbered == []
    assert {key: words for key, words in spelled.items() if words} == {}
    lengths = sorted(len(text.split()) for text in plans)
    assert lengths[int(0.95 * len(lengths))] <= MAX_WORDS
    return plans


def test_embedded_problems_give_abstract_plans_with_a_purpose_each():
    plans = assert_abstract_and_short(load_problems("embedded", "train", limit=2000).problems)
    assert sum("to find" in text for text in plans) / len(plans) > 0.99
    assert len(set(plans)) > len(plans) / 2


@pytest.mark.slow
def test_all_gsm8k_training_problems_give_abstract_plans(data_dir):
    problems = load_problems("gsm8k", "train", data_dir).problems
    plans = assert_abstract_and_short(problems)
    assert len(plans) == 7473
    assert sum("to find" in text for text in plans) / len(plans) > 0.97
    unknown = sum(text.count("a known amount") for text in plans)
    assert unknown < 0.25 * len(plans)


def test_svamp_and_multiarith_give_abstract_plans(data_dir):
    assert_abstract_and_short(load_problems("svamp", "train", data_dir).problems)
    assert_abstract_and_short(load_problems("multiarith", "test", data_dir).problems)


def test_the_same_problem_always_gives_the_same_plan(data_dir):
    row = json.loads((data_dir / "gsm8k_train.jsonl").open(encoding="utf-8").readline())
    one = problem(row["question"], row["answer"].split("\n####")[0], answer="72")
    assert RulesPlanner().plan([one, one]) == [plan_problem(one)[0]] * 2
