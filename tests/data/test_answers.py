"""``hbd3lm.data.answers``: one written form for a number, two ways to find the final answer."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.answers import flexible_answer, normalize_number, same_answer, strict_answer

DECIMALS = st.decimals(
    allow_nan=False, allow_infinity=False, places=4, min_value=-(10**12), max_value=10**12
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("72", "72"),
        ("$1,234.50", "1234.5"),
        ("18.00", "18"),
        ("18.", "18"),
        (".5", "0.5"),
        ("-3", "-3"),
        ("+3", "3"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("− 5", "-5"),
        ("-0.0", "0"),
        ("007", "7"),
        ("100", "100"),
        (" 1,000,000\n", "1000000"),
        # Longer than a float or the default decimal context could hold.
        ("123456789012345678901234567890123.10", "123456789012345678901234567890123.1"),
    ],
)
def test_numbers_have_one_written_form(text, normal):
    assert normalize_number(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "abc", "1.2.3", "1,23", "12,34,567", "1e5", "1_000", "NaN", "inf", "5%", "1/2"),
        *("--5", "-$-5", "٣", "5 apples", ".", "-", "$", "1 2"),
    ],
)
def test_what_is_no_number_is_refused(text):
    with pytest.raises(ValueError, match="not a number"):
        normalize_number(text)


@given(DECIMALS)
def test_normalising_keeps_the_value_and_is_final(value):
    normal = normalize_number(f"${value:,f}" if value >= 0 else f"{value:,f}")
    assert Decimal(normal) == value
    assert normalize_number(normal) == normal


@given(DECIMALS, DECIMALS)
def test_same_answer_is_equality_of_decimals(left, right):
    assert same_answer(f"{left:,f}", f"{left:f}00")
    assert same_answer(str(left), str(right)) == (left == right)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("48+24 = 72\n#### 72", "72"),
        ("#### 1,080", "1080"),
        ("#### -3.50 dollars", "-3.5"),
        ("#### 72.", "72"),
        ("#### 1,080, then", "1080"),
        ("#### 5\nno, wait\n#### 6", "6"),  # the last mark counts
        ("#### 5\n#### none", None),
        ("#### $5", None),  # as the strict filter of lm-eval has it
        ("####5", None),
        ("#### 1.2.3", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_the_strict_answer_follows_the_last_mark(text, answer):
    assert strict_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("She has 48-24", "24"),  # a subtraction, not minus 24
        ("It is -24 degrees", "-24"),
        ("(3)-4", "4"),
        ("ranges from 10-20", "20"),
        ("a loss of -$3.50.", "-3.5"),
        ("a loss of $-3.50.", "-3.5"),
        ("It costs $1,080, then.", "1080"),
        ("Hmm...5", "5"),
        ("only .5 of it", "0.5"),
        ("5 of 7 days", "7"),
        ("#### 72", "72"),
        ("x = −4", "-4"),
        ("no idea", None),
        ("", None),
    ],
)
def test_the_flexible_answer_is_the_last_number(text, answer):
    assert flexible_answer(text) == answer


@given(st.text(alphabet="0123456789.,-$# \nx−+%"))
def test_any_text_has_an_answer_or_none(text):
    for answer in (strict_answer(text), flexible_answer(text)):
        assert answer is None or normalize_number(answer) == answer


@pytest.mark.parametrize(
    ("predicted", "gold", "same"),
    [
        ("18.00", "18", True),
        ("$1,080", "1080", True),
        ("0.30", ".3", True),
        ("18.01", "18", False),
        ("-18", "18", False),
        (None, "18", False),
        ("eighteen", "18", False),
    ],
)
def test_answers_are_compared_as_numbers(predicted, gold, same):
    assert same_answer(predicted, gold) is same


def test_a_gold_answer_that_is_no_number_is_an_error():
    with pytest.raises(ValueError, match="not a number"):
        same_answer("5", "five")


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_every_gold_answer_of_gsm8k_is_found_by_both(data_dir, split, count):
    lines = (data_dir / f"gsm8k_{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")
    solutions = [json.loads(line)["answer"] for line in lines]
    assert len(solutions) == count
    for solution in solutions:
        gold = solution.rpartition("\n#### ")[2].replace(",", "")
        assert strict_answer(solution) == flexible_answer(solution) == gold
