"""GSM8K's calculator annotations, ``48/2 = <<48/2=24>>24``: found, parsed, checked, stripped.

Expressions are read with Python's own parser, restricted to arithmetic, and evaluated in exact
fractions; nothing is ever executed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from hbd3lm.data.answers import normalize_number
from hbd3lm.data.records import Problem

_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_TOKEN = re.compile(
    r"\s*(?:\$?(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?%?|\.[0-9]+%?)"
    r"|(?P<operator>\*\*|//|[-+*/xX×·÷−])|(?P<paren>[()]))\s*"
)
_PRINTED = re.compile(r"-?\$?[0-9,]*(?:\.(?P<decimals>[0-9]*))?(?P<percent>%?)")
_OPERATOR_SPELLINGS = {"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/", "−": "-"}
_BINARY = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Pow)
# The longest expression of GSM8K has 30 characters. The caps keep a model's worst output from
# exhausting the stack (nesting) or the memory (powers of powers).
_MAX_LENGTH = 300
_MAX_POWER_BITS = 4096


@dataclass(frozen=True, slots=True)
class Annotation:
    """One ``<<expression=result>>``, which is ``text[start:end]`` of the text it was found in.

    ``result`` is what stands after the last ``=``; it is empty if the annotation has none.
    """

    expression: str
    result: str
    start: int
    end: int


class Token(NamedTuple):
    """A piece of an expression; ``kind`` is ``"number"``, ``"operator"`` or ``"paren"``.

    ``text`` of a number is normalised (``"1,000.0"`` -> ``"1000"``; ``"5%"`` keeps its sign),
    of an operator one of ``+ - * / // **``.
    """

    kind: str
    text: str


def find_annotations(text: str) -> list[Annotation]:
    """All ``<<...>>`` of ``text`` in order, well-formed or not (see :func:`check_annotation`)."""
    annotations = []
    for match in _ANNOTATION.finditer(text):
        expression, equals, result = match[1].rpartition("=")
        if not equals:
            expression, result = match[1], ""
        annotations.append(Annotation(expression.strip(), result.strip(), *match.span()))
    return annotations


def strip_annotations(text: str) -> str:
    """``text`` without its ``<<...>>``; the printed results behind them stay."""
    return _ANNOTATION.sub("", text)


def execution_text(problem: Problem, keep_annotations: bool = False) -> str:
    """The execution target of ``problem``: its solution, ending in the line ``#### 24``.

    Annotations are stripped unless ``keep_annotations``.
    """
    return problem.solution if keep_annotations else strip_annotations(problem.solution)


def operand_tokens(expression: str) -> list[Token]:
    """``expression`` cut into numbers, operators and parentheses, in the order written.

    Raises:
        ValueError: a sign that is none of these, or an overlong expression.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError(f"expression of {len(expression)} characters, at most {_MAX_LENGTH}")
    tokens, position = [], 0
    while position < len(expression):
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"not arithmetic at character {position}: {expression!r}")
        position, kind, text = match.end(), match.lastgroup, match[match.lastgroup]
        if kind == "number":
            percent = "%" if text.endswith("%") else ""
            text = normalize_number(text.rstrip("%")) + percent
        tokens.append(Token(kind, _OPERATOR_SPELLINGS.get(text, text)))
    return tokens


def parse_expression(expression: str) -> ast.expr:
    """The tree of an arithmetic expression, as Python's grammar binds its operators.

    Nodes are ``BinOp`` (``Add Sub Mult Div FloorDiv Pow``), ``UnaryOp`` (``USub``) and
    ``Constant``, whose value is an exact ``decimal.Decimal`` (``5%`` is ``Decimal("0.05")``).
    A plus sign before a number, as some annotators began their sums (``+3+4``), leaves no node.

    Raises:
        ValueError: anything else.
    """
    numbers: list[Decimal] = []
    pieces = []
    for kind, text in operand_tokens(expression):
        if kind == "number":
            # Python sees the number's index, we keep its exact value: no float is ever made.
            pieces.append(str(len(numbers)))
            numbers.append(Decimal(text.replace("%", "e-2")))
        else:
            pieces.append(text)
    try:
        tree = ast.parse(" ".join(pieces), mode="eval").body
        return map_constants(tree, lambda index: ast.Constant(value=numbers[index]))
    # Memory and recursion: how Python reports nesting too deep for its parser.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"not an arithmetic expression: {expression!r}") from None


def evaluate_expression(expression: str | ast.expr) -> Fraction:
    """The exact value of an expression or of a tree of :func:`parse_expression`.

    Raises:
        ValueError: not arithmetic, division by zero, a power that is fractional or too large.
    """
    tree = parse_expression(expression) if isinstance(expression, str) else expression
    match tree:
        case ast.Constant(value=value):
            return Fraction(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate_expression(operand)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _BINARY):
            return _apply(op, evaluate_expression(left), evaluate_expression(right))
    raise ValueError(f"not an arithmetic expression: {ast.dump(tree)}")


def format_expression(tree: ast.expr) -> str:
    """A tree of :func:`parse_expression` as text, spaced, with the fewest parentheses."""

    # A name is unparsed as it stands, where a Decimal constant would show its type.
    return ast.unparse(
        map_constants(tree, lambda value: ast.Name(id=normalize_number(format(value, "f"))))
    )


def check_annotation(annotation: Annotation) -> bool:
    """Whether the result is the value of the expression, to the digits it is printed with.

    A decimal result may be rounded (``5/3=1.67``) or cut off (``2/3=0.66``) at its last digit,
    a whole one rounded (``100/3=33``), none rounded to zero. What does not parse is not right.
    """
    try:
        value = evaluate_expression(annotation.expression)
        result = evaluate_expression(annotation.result)
    except ValueError:
        return False
    error = abs(value - result)
    digits = _PRINTED.fullmatch(annotation.result)
    if error == 0 or result == 0 or digits is None:
        return error == 0
    places = len(digits["decimals"] or "")
    unit = Fraction(1, 10 ** (places + 2 * bool(digits["percent"])))  # of the last digit printed
    cut_off = places > 0 and error < unit and abs(result) <= abs(value)
    return error <= unit / 2 or (cut_off and error <= abs(value) / 10)


def map_constants(node: ast.expr, leaf: Callable[[Decimal | int], ast.expr]) -> ast.expr:
    """A copy of ``node`` with every constant made anew; refuses nodes other than arithmetic."""
    match node:
        case ast.Constant(value=value):
            return leaf(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return ast.UnaryOp(op=node.op, operand=map_constants(operand, leaf))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return map_constants(operand, leaf)
        case ast.BinOp(left=left, op=op, right=right) if isinstance(op, _BINARY):
            return ast.BinOp(
                left=map_constants(left, leaf), op=op, right=map_constants(right, leaf)
            )
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


def _apply(op: ast.operator, left: Fraction, right: Fraction) -> Fraction:
    if isinstance(op, ast.Add):
        return left + right
    if isinstance(op, ast.Sub):
        return left - right
    if isinstance(op, ast.Mult):
        return left * right
    if isinstance(op, ast.Pow):
        return _power(left, right)
    if right == 0:
        raise ValueError("division by zero")
    return left / right if isinstance(op, ast.Div) else Fraction(left // right)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ValueError(f"fractional exponent {exponent}")
    if base == 0 and exponent < 0:
        raise ValueError("division by zero")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent) > _MAX_POWER_BITS:
        raise ValueError(f"power too large: exponent {exponent}")
    return base**exponent.numerator
