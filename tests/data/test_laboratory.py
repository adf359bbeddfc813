"""Laboratory problems: small numbers, both splits of one kind, no question twice."""

from fractions import Fraction

import pytest

from hbd3lm.data.annotations import find_annotations
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.synthetic.laboratory import laboratory_problems, largest_in_solution
from hbd3lm.errors import UserError
from hbd3lm.evaluate.chance import question_numbers


def test_every_problem_is_of_the_kind_asked_for_and_stands_in_one_split():
    train, test = laboratory_problems(60, 40, min_steps=2, max_steps=3, largest_number=15)
    assert (len(train), len(test)) == (60, 40)
    assert len({problem.question for problem in (*train, *test)}) == 100
    for problem in (*train, *test):
        assert 2 <= len(find_annotations(problem.solution)) <= 3
        assert max([Fraction(problem.answer), *question_numbers(problem.question)]) <= 15


def test_the_first_problems_do_not_depend_on_how_many_are_asked_for():
    few, _ = laboratory_problems(10, 1)
    many, _ = laboratory_problems(300, 50)
    assert many[:10] == few


def test_the_largest_number_may_be_an_intermediate_result():
    problem = generate_problems("train", 1)[0]
    changed = type(problem)(
        "x", "How many?", "4*30=<<4*30=120>>120 and 120/60=<<120/60=2>>2.\n#### 2", "2", None
    )
    assert largest_in_solution(changed) == 120


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0, "test": 1}, "at least 1 of each"),
        ({"train": 1, "test": 1, "max_steps": 7}, "needed: 1 <= min_steps"),
        ({"train": 10**12, "test": 1}, "1,000,000,000,001 were asked for; at most 3,000,000"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        laboratory_problems(**arguments)


def test_a_kind_that_is_too_rare_is_refused_not_searched_for_for_ever(monkeypatch):
    monkeypatch.setattr("hbd3lm.data.synthetic.laboratory.MOST", 500)
    with pytest.raises(UserError, match=r"only \d+ of 500 generated problems"):
        laboratory_problems(50, 10, min_steps=6, max_steps=6, largest_number=5)
