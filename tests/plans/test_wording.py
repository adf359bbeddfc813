import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hbd3lm.plans.wording import drop_numbers, has_numbers, tidy, without_numbers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How much do the 3 friends pay?", "How much do the friends pay?"),
        ("How long to save $135?", "How long to save the given amount?"),
        ("Subtract 10 from both sides", "Subtract the given amount from both sides"),
        ("he drove for 4 weeks", "he drove for the given weeks"),
        ("How old will he be in six years?", "How old will he be in the given years?"),
        ("her $100 balance", "her balance"),
        ("a 20% discount", "a discount"),
        ("80% of those", "the given percentage of those"),
        ("an 8-hour shift", "a shift"),
        ("half of the cake", "the given fraction of the cake"),
        ("twice as many", "several times as many"),
        ("4 times as old", "several times as old"),
        ("What does the song cost?", "What does the song cost?"),
    ],
)  # fmt: skip
def test_values_become_readable_words(text, expected):
    assert without_numbers(text) == expected


PIECES = """one two three half a third quarter of dozen twice 3 $4.50 20% 1/2 ½ ٣ 2nd B12 x2 the
friends double-decker twenty-five hundred pair couple each - , . / % $ ( ) pays and 7-day"""


@example("a twice third")  # "a third" once the word between is gone
@given(st.lists(st.sampled_from(PIECES.split()), max_size=12).map(" ".join) | st.text(max_size=40))
def test_no_digit_and_no_number_word_ever_survives(text):
    assert not has_numbers(without_numbers(text))
    assert not has_numbers(drop_numbers(text))


def test_dropped_numbers_leave_no_holes():
    assert drop_numbers("2 double meat sandwiches") == "meat sandwiches"
    assert tidy("a  apple , of the the box") == "an apple, of the box"
