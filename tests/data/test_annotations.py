"""``hbd3lm.data.annotations``: calculator annotations found, parsed, checked and stripped."""

from __future__ import annotations

import ast
import json
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.annotations import (
    Annotation,
    Token,
    check_annotation,
    evaluate_expression,
    execution_text,
    find_annotations,
    format_expression,
    operand_tokens,
    parse_expression,
    strip_annotations,
)
from hbd3lm.data.records import Problem

STEP = "Natalia sold 48/2 = <<48/2=24>>24 clips in May."
NUMBERS = st.decimals(min_value=0, max_value=10**6, places=2).map(lambda n: f"{n:f}")
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda e: f"(-{e})")
    ),
    max_leaves=8,
)


def checks(expression: str, result: str) -> bool:
    return check_annotation(Annotation(expression, result, 0, 0))


def test_annotations_are_found_where_they_stand():
    text = f"{STEP}\nThen 48+24 = <<48+24=72>>72."
    found = find_annotations(text)
    assert [(a.expression, a.result) for a in found] == [("48/2", "24"), ("48+24", "72")]
    assert [text[a.start : a.end] for a in found] == ["<<48/2=24>>", "<<48+24=72>>"]


@pytest.mark.parametrize(
    ("text", "expression", "result"),
    [
        ("<<48/2>>", "48/2", ""),
        ("<<3/4=3/4>>", "3/4", "3/4"),
        ("<<1+1=2=2>>", "1+1=2", "2"),
        ("<< 1 + 1 = 2 >>", "1 + 1", "2"),
        ("<<>>", "", ""),
    ],
)
def test_odd_annotations_are_found_too(text, expression, result):
    assert find_annotations(text) == [Annotation(expression, result, 0, len(text))]


@pytest.mark.parametrize("text", ["", "1 < 2", "<<48/2=24", "48/2=24>>", "<48/2=24>", "<<4\n8>>"])
def test_what_is_no_annotation_is_left_alone(text):
    assert find_annotations(text) == []
    assert strip_annotations(text) == text


def test_stripping_removes_the_brackets_and_nothing_else():
    assert strip_annotations(STEP) == "Natalia sold 48/2 = 24 clips in May."
    assert strip_annotations("a $<<2*.5=1>>1\n#### 1,080") == "a $1\n#### 1,080"


def test_the_execution_keeps_its_final_line_and_drops_annotations_unless_told():
    problem = Problem("gsm8k_train_0", "How many?", f"{STEP}\n#### 24", "24")
    assert execution_text(problem) == "Natalia sold 48/2 = 24 clips in May.\n#### 24"
    assert execution_text(problem, keep_annotations=True) == problem.solution


def test_tokens_come_in_the_order_written():
    assert operand_tokens("2*(1,000.0 - .5)") == [
        Token("number", "2"),
        Token("operator", "*"),
        Token("paren", "("),
        Token("number", "1000"),
        Token("operator", "-"),
        Token("number", "0.5"),
        Token("paren", ")"),
    ]


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        ("5%*200", ["5%", "*", "200"]),
        ("$3x4", ["3", "*", "4"]),
        ("6 ÷ 2 × 3 − 1", ["6", "/", "2", "*", "3", "-", "1"]),
        ("7//2**2", ["7", "//", "2", "**", "2"]),
        ("007+1.", ["7", "+", "1"]),
    ],
)
def test_tokens_are_written_one_way(expression, texts):
    assert [token.text for token in operand_tokens(expression)] == texts


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", 24),
        ("16-3-4", 9),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        (".1+.2", Fraction(3, 10)),  # no floats: exactly 0.3
        ("1/3", Fraction(1, 3)),
        ("5%*200", 10),
        ("80,000*1.5", 120000),
        ("560//10", 56),
        ("7//2", 3),
        ("-7//2", -4),
        ("-14+-8+1", -21),
        ("+30+46", 76),  # some annotators began a sum with a plus
        ("3*+6", 18),
        ("2**10", 1024),
        ("2**-1", Fraction(1, 2)),
        ("-2**2", -4),
        ("010*2", 20),
        ("6", 6),
    ],
)
def test_expressions_have_their_exact_value(expression, value):
    assert evaluate_expression(expression) == value
    assert evaluate_expression(parse_expression(expression)) == value


@pytest.mark.parametrize(
    "expression",
    [
        *("", " ", "()", "(1", "1)", "1+", "*2", "2 3", "2(3)", "(2)(3)", "1 2+3", "2 ** * 3"),
        *("x+1", "3n", "1e5", "1=1", "1<2", "1,2", "12,34", "5%3", "1;2", "1\n=2", "0b1", "1_0"),
        *("__import__('os').system('true')", "[1]", "{1}", "a.b", "lambda:1", "True", "1j", "٣+1"),
        *("(" * 290, "-" * 290 + "x1", "1" * 301),
    ],
)
def test_everything_but_arithmetic_is_refused(expression):
    with pytest.raises(ValueError, match=r"arithmetic|at most 300"):
        parse_expression(expression)
    assert not checks(expression, "1")


@pytest.mark.parametrize(
    "expression", ["1/0", "1//0", "0**-1", "9**9**9", "2**(2**64)", "(1/7)**99999", "4**.5"]
)
def test_what_has_no_exact_value_or_a_huge_one_is_refused_at_once(expression):
    parse_expression(expression)
    with pytest.raises(ValueError, match=r"zero|too large|fractional"):
        evaluate_expression(expression)
    assert not checks(expression, "1")


@pytest.mark.parametrize(
    "expression", ["-" * 200 + "1", "1" + "+1" * 149, "2*(" * 50 + "1" + ")" * 50]
)
def test_the_longest_allowed_expressions_do_not_exhaust_the_stack(expression):
    assert evaluate_expression(expression) in (1, 150, 2**50)
    format_expression(parse_expression(expression))


def test_the_tree_is_plain_arithmetic_with_exact_constants():
    tree = parse_expression("2*(1,000-.10)")
    assert isinstance(tree, ast.BinOp)
    assert isinstance(tree.op, ast.Mult)
    assert tree.left.value == Decimal(2)
    assert isinstance(tree.right.op, ast.Sub)
    assert [tree.right.left.value, tree.right.right.value] == [Decimal(1000), Decimal("0.1")]
    assert parse_expression("+5").value == Decimal(5)
    assert parse_expression("5%").value == Decimal("0.05")
    negative = parse_expression("-5")
    assert isinstance(negative.op, ast.USub)
    assert negative.operand.value == 5


@pytest.mark.parametrize("source", ["7 % 2", "7 @ 2", "~7", "f(7)", "7 < 8"])
@pytest.mark.parametrize("function", [evaluate_expression, format_expression])
def test_trees_of_other_makers_are_refused_unless_they_are_arithmetic(function, source):
    with pytest.raises(ValueError, match="arithmetic"):
        function(ast.parse(source, mode="eval").body)


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("( ( 76.0 - 25.0 ) )", "76 - 25"),
        ("( ( 4.0 + 2.0 ) * 3.0 )", "(4 + 2) * 3"),
        ("( 9.0 - ( 4.0 + 2.0 ) )", "9 - (4 + 2)"),
        ("( ( 9.0 - 4.0 ) - 2.0 )", "9 - 4 - 2"),
        ("-0.50+2", "-0.5 + 2"),
        ("100000000000000000000000.0", "100000000000000000000000"),
    ],
)
def test_trees_are_written_with_the_fewest_parentheses(expression, written):
    assert format_expression(parse_expression(expression)) == written


@given(EXPRESSIONS)
def test_writing_a_tree_keeps_its_value(expression):
    tree = parse_expression(expression)
    try:
        value = evaluate_expression(tree)
    except ValueError:  # a division by zero was drawn
        return
    assert evaluate_expression(format_expression(tree)) == value
    # Python computes the same, up to its floats.
    assert float(value) == pytest.approx(eval(expression), rel=1e-6, abs=1e-3)


@given(st.text(alphabet="0123456789+-*/().,%x$ =", max_size=40))
def test_no_text_makes_the_checker_fail(text):
    for annotation in find_annotations(f"<<{text}>>"):
        assert check_annotation(annotation) in (True, False)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("48/2", "24"),
        ("25.50+35.00", "60.50"),
        ("2.46/3", ".82"),
        ("1000*2", "2,000"),
        ("1000*2", "$2000"),
        ("5-8", "-3"),
        ("3/4", "3/4"),
        ("6", "6"),
        ("5/3", "1.67"),  # rounded
        ("5/3", "1.66"),  # cut off
        ("2/3", "0.67"),
        ("2/3", ".66"),
        ("100/3", "33"),
        ("7/2", "4"),
        ("2/3", "67%"),
        ("-5/3", "-1.67"),
    ],
)
def test_right_results_pass_to_the_digits_they_print(expression, result):
    assert checks(expression, result)


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("48/2", "25"),
        ("48/2", "-24"),
        ("48/2", "24.1"),
        ("2+2", "5"),
        ("5/3", "1.5"),
        ("5/3", "1.68"),
        ("1/3", "0.34"),  # off by less than a unit, but neither rounded nor cut off
        ("10/3", "3.34"),
        ("-10/3", "-3.34"),
        ("5.01*1", "5.1"),
        ("5/3", "1"),
        ("100/3", "34"),
        ("1/4", "0"),  # rounded to nothing
        ("4/4", "3/4"),
        ("2/3", "70%"),
        ("2/3", "0.67%"),
        ("48/2", ""),
        ("48/2", "many"),
    ],
)
def test_wrong_results_fail(expression, result):
    assert not checks(expression, result)


@pytest.mark.parametrize(("split", "count"), [("train", 23716), ("test", 4282)])
def test_the_annotations_of_gsm8k_parse_and_check(data_dir, split, count):
    lines = (data_dir / f"gsm8k_{split}.jsonl").read_text(encoding="utf-8").strip().split("\n")
    solutions = [json.loads(line)["answer"] for line in lines]
    annotations = [a for solution in solutions for a in find_annotations(solution)]
    assert len(annotations) == count
    for annotation in annotations:
        parse_expression(annotation.expression)
    # All of the copy this was written with check; published versions differ in a few rows.
    assert sum(map(check_annotation, annotations)) > 0.99 * count
    assert not any("<<" in strip_annotations(s) or ">>" in strip_annotations(s) for s in solutions)
