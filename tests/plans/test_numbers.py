"""What counts as a number and as an operation, case by case."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.plans.numbers import (
    OPERATIONS,
    cardinal_value,
    count_numbers,
    count_operations,
    count_spelled_numbers,
    find_numbers,
    find_operations,
    find_spelled_numbers,
    number_spans,
    number_value,
    spelled_number_spans,
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("no digits at all", []),
        ("", []),
        ("$1,234.50 in total.", ["1,234.50"]),
        ("1,234,567 people", ["1,234,567"]),
        ("10,20 and 30", ["10", "20", "30"]),
        ("1234,567", ["1234", "567"]),
        ("20% of 5.", ["20", "5"]),
        ("$.25, .75 or 1.5", [".25", ".75", "1.5"]),
        ("Rs.50", ["50"]),
        # A fraction and a division look the same: two values each.
        ("3/4", ["3", "4"]),
        ("48/2=24", ["48", "2", "24"]),
        ("2½ cups, ½ cup", ["2½", "½"]),
        ("from 10-15 at 3:30", ["10", "15", "3", "30"]),
        ("-5", ["5"]),
        # Units may touch the number; a word that ends in digits holds none.
        ("5kg, a 20-year-old, 10am, 3D", ["5", "20", "10", "3"]),
        ("vitamin B12, x2, H2O, covid_19", []),
        ("5x2=10, 5 x 2", ["5", "2", "10", "5", "2"]),
        # Ordinals are sequence words, unless they are denominators.
        ("the 1st, 2nd, 3rd and 11th day", []),
        ("1/4th of it, 2/3rds, 3/10ths", ["1", "4", "2", "3", "3", "10"]),
    ],
)
def test_digits_are_found_as_written(text, numbers):
    assert find_numbers(text) == numbers
    assert count_numbers(text) == len(numbers)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1. Find the total.\n2. Subtract it.", []),
        ("1) Find it\n(2) Subtract 3\n  3) So", ["3"]),
        ("- 1. **Find** it", []),
        ("Step 1: add. Step 2. subtract. STEP 3) done", []),
        # No label: no word follows, or the line has begun before.
        ("So she pays\n5.", ["5"]),
        ("12 + 3 = 15. Then", ["12", "3", "15"]),
        ("1.5 cups", ["1.5"]),
        ("climb 4 steps", ["4"]),
    ],
)
def test_enumerators_of_a_list_are_no_numbers(text, numbers):
    assert find_numbers(text) == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("the given amount", []),
        ("Three pens and SEVEN cups", ["Three", "SEVEN"]),
        ("twenty-five and one hundred and five", ["twenty-five", "one hundred and five"]),
        ("two and three", ["two", "three"]),
        ("two thousand three hundred and four", ["two thousand three hundred and four"]),
        ("a hundred, a thousand, one million", ["a hundred", "a thousand", "one million"]),
        ("hundreds of people", []),
        ("half of it, the halves", ["half", "halves"]),
        ("one half, two-thirds, three quarters", ["one half", "two-thirds", "three quarters"]),
        ("a third of the rest, an eighth.", ["a third", "an eighth"]),
        ("two and a half", ["two and a half"]),
        ("twice, thrice, double", ["twice", "thrice", "double"]),
        ("doubled, tripled, halved", ["doubled", "tripled", "halved"]),
        ("two dozen, a dozen, half a dozen", ["two dozen", "a dozen", "half a dozen"]),
        ("a couple of pens, a pair of socks", ["a couple", "a pair"]),
        ("a married couple, three pairs", ["three"]),
        ("zero", ["zero"]),
        # Sequence words.
        ("First, find it. Second step. Third, add.", []),
        ("the third day, a third friend, seventh", []),
        ("twenty-first", []),
        ("each quarter, the last quarter", []),
        ("double-check; once we know", []),
        # "one" as a pronoun, and as a number.
        ("each one, no one, the one, the larger one, that one", []),
        ("one of them, one by one, one-on-one, one's share", []),
        ("the one hundred", ["one hundred"]),
        ("one apple; multiply by one", ["one", "one"]),
        # Inside other words.
        ("someone often weighs tenants, height, canine, stone, network", []),
    ],
)
def test_spelled_numbers_are_found_as_written(text, numbers):
    assert find_spelled_numbers(text) == numbers
    assert count_spelled_numbers(text) == len(numbers)


@pytest.mark.parametrize(
    ("phrase", "value"),
    [
        ("zero", 0),
        ("Twenty-five", 25),
        ("one hundred and five", 105),
        ("a hundred", 100),
        ("two thousand three hundred and four", 2304),
        ("one million two hundred thousand", 1_200_000),
        ("one hundred twenty-five thousand", 125_000),
        ("two dozen", 24),
        ("a dozen", 12),
        ("two-thirds", None),
        ("twice", None),
        ("a couple", None),
        ("half", None),
        ("", None),
    ],
)
def test_cardinals_have_their_value(phrase, value):
    assert cardinal_value(phrase) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1,234.50", Fraction(2469, 2)),
        (".5", Fraction(1, 2)),
        ("2½", Fraction(5, 2)),
        ("⅓", Fraction(1, 3)),
        ("7.0", 7),
        ("007", 7),
    ],
)
def test_digits_have_their_exact_value(written, value):
    assert number_value(written) == value


_SPELLED_ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_SPELLED_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@given(st.integers(2, 9), st.integers(1, 9), st.integers(1, 9))
def test_every_composite_is_one_number_of_the_right_value(tens, ones, hundreds):
    phrase = (
        f"{_SPELLED_ONES[hundreds - 1]} hundred and "
        f"{_SPELLED_TENS[tens - 2]}-{_SPELLED_ONES[ones - 1]}"
    )
    assert find_spelled_numbers(f"He sold {phrase} pens.") == [phrase]
    assert cardinal_value(phrase) == 100 * hundreds + 10 * tens + ones


@given(st.lists(st.integers(0, 10**9), max_size=8))
def test_every_integer_of_a_list_is_found_with_and_without_commas(integers):
    assert find_numbers(" ".join(f"{n}" for n in integers)) == [f"{n}" for n in integers]
    assert [number_value(n) for n in find_numbers("; ".join(f"${n:,}" for n in integers))] == (
        integers
    )


@given(st.text())
def test_any_text_can_be_read_and_spans_cut_out_what_is_found(text):
    numbers, words = number_spans(text), spelled_number_spans(text)
    assert [text[a:b] for a, b in numbers] == find_numbers(text)
    assert [text[a:b] for a, b in words] == find_spelled_numbers(text)
    for spans in (numbers, words):
        assert all(a < b for a, b in spans)
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for number in find_numbers(text):
        assert number_value(number) >= 0
    assert count_operations(text) >= 0


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("", {}),
        ("Add the sum to the total.", {"add": 3}),
        ("Subtract the remaining from the difference, minus it", {"subtract": 4}),
        ("Multiply it; the product is times two; double it", {"multiply": 4}),
        ("Divide per person, split by the ratio of the percent", {"divide": 5}),
        ("5+3, 5 + 3, 5 apples + 3 apples, price + tax", {"add": 4}),
        ("10-3, 10 - 3, 10 apples - 3 apples, 10 − $3", {"subtract": 4}),
        ("5*2, 5 * 2, 5x2, 5 x 2, 5×2, 4 hours x $5, price * count", {"multiply": 7}),
        ("48/2, 48 / 2, 48÷2, $5/hour, cost / people", {"divide": 5}),
        ("(5+3)*2=16", {"add": 1, "multiply": 1}),
        # Hyphens, bullets, ranges and emphasis are no signs.
        ("twenty-five, 20-year-old, COVID-19, 3–4 days", {}),
        ("- 5 apples\n* 3 pens\n+ 2 cups", {}),
        ("**bold** and/or he - she", {}),
        # Inside other words.
        ("address, summer, sometimes, person, production, super, additionally", {}),
        ("double-check", {}),
    ],
)
def test_operations_are_counted_by_kind(text, operations):
    assert find_operations(text) == Counter(operations)
    assert count_operations(text) == sum(operations.values())
    assert set(find_operations(text)) <= set(OPERATIONS)


def test_a_gsm8k_solution_is_read_as_a_person_reads_it():
    text = (
        "Natalia sold 48/2 = 24 clips in May.\n"
        "Natalia sold 48+24 = 72 clips altogether in April and May.\n"
        "#### 72"
    )
    assert find_numbers(text) == ["48", "2", "24", "48", "24", "72", "72"]
    assert find_operations(text) == {"divide": 1, "add": 2}


WORDS = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety "
    "hundred thousand million billion zero dozen half halves quarter quarters thirds fourths "
    "fifths sixths sevenths eighths ninths tenths twelfths hundredths thousandths twice thrice "
    "doubled tripled quadrupled halved"
)


@pytest.mark.parametrize("word", WORDS.split())
def test_every_word_for_a_number_is_found_by_itself(word):
    assert find_spelled_numbers(f"Take {word}, then go on.") == [word]
