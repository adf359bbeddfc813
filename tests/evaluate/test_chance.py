"""Chance accuracy against values worked out by hand."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.evaluate.chance import chance_accuracy, question_numbers


def example(question: str, answer: str) -> HierarchicalExample:
    return HierarchicalExample("problem", question, "plan", f"#### {answer}", answer)


TRAIN = [example("", answer) for answer in ("5", "12", "12.0", "7")]


def test_the_three_guessers_by_hand():
    chance = chance_accuracy(
        TRAIN,
        [
            # numbers 6, 2: the results are 8, 4, 12, 3
            example("6 boxes of two pens each. How many pens?", "12"),
            # numbers 10, 5, 5: pairs (10, 5) twice: 15, 5, 50, 2; (5, 5): 10, 0, 25, 1
            example("10 apples, 5 eaten, 5 sold. How many are sold?", "5"),
        ],
    )
    assert chance.frequent_answer == "12"
    assert chance.frequent == 1 / 2
    assert chance.number == pytest.approx((0 + 2 / 3) / 2)
    assert chance.operation == pytest.approx((1 / 4 + 2 / 12) / 2)
    assert chance.best == chance.frequent
    assert chance.to_dict()["best"] == 1 / 2
    assert [value for _, value in chance.rows()] == [
        chance.frequent,
        chance.number,
        chance.operation,
    ]


def test_the_larger_number_comes_first_whatever_the_order_in_the_question():
    for question in ("3 of 12 ", "12 of 3 "):
        for answer in ("15", "9", "36", "4"):
            chance = chance_accuracy(TRAIN, [example(question, answer)])
            assert chance.operation == 1 / 4


def test_questions_without_two_numbers_leave_nothing_to_combine():
    chance = chance_accuracy(TRAIN, [example("How many?", "3"), example("Give me 3.", "3")])
    assert (chance.number, chance.operation) == (0.5, 0.0)


def test_dividing_by_zero_is_not_guessed():
    # 4 + 0, 4 - 0 and 4 * 0 are left
    assert chance_accuracy(TRAIN, [example("4 and 0", "4")]).operation == pytest.approx(2 / 3)


def test_numbers_in_digits_and_words_count_with_their_values():
    text = "Twelve signs at $1,234.50 each, half of them on 3 days."
    assert question_numbers(text) == [Fraction("1234.5"), 3, 12]


@given(st.permutations(["5", "12", "12", "5", "7"]))
def test_the_order_of_the_training_problems_does_not_matter(answers):
    chance = chance_accuracy([example("", a) for a in answers], [example("", "5")])
    assert (chance.frequent_answer, chance.frequent) == ("5", 1.0)


def test_no_problems_and_answers_that_are_no_numbers_are_refused():
    with pytest.raises(UserError, match="problems are needed"):
        chance_accuracy([], TRAIN)
    with pytest.raises(UserError, match="'many', not a number"):
        chance_accuracy(TRAIN, [example("", "many")])
