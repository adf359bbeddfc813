"""The calculations of a line: its annotations, else the equations it shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from hbd3lm.data.annotations import find_annotations
from hbd3lm.plans.rules.expressions import Expression, parse_calculation
from hbd3lm.plans.rules.figures import CASH, FIGURE, PLAIN, SHARE
from hbd3lm.plans.wording import word_set

_AFTER_ANNOTATION = re.compile(rf"\s*[$£€]?\s*-?(?:{FIGURE})?%?")
_RESULT = re.compile(rf"=\s*(?P<value>[$£€]?\s?-?{FIGURE}\s?%?)(?!\w)(?!\s*[-+*/x×÷(=])")
_EQUATION_TOKEN = re.compile(
    r"(?P<number>[(\[]*-?[$£€]?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)\s?%?)|(?P<sign>(?<![A-Za-z])x(?![A-Za-z])|[-+*/×÷·=])"
    r"|(?P<word>[A-Za-z][A-Za-z'.]*)|(?P<other>[^\s)\]])"
)
_ADJACENT = re.compile(r"\(")
# Words that never name the unit of an operand, so an equation cannot reach beyond them.
_NOT_UNITS = word_set(
    "is are was were so and because for he she they it there then has have will which if in on to "
    "that who therefore or a total"
)


def _equation_start(text: str) -> tuple[int, int]:
    """Where the equation that ends ``text`` begins ("She paid 2 hats * $5 = "), and its signs.

    Read backwards: operands (a number and up to four words of unit) with signs between them.
    Returns ``len(text)`` and 0 if ``text`` does not end in an operand.
    """
    tokens = [match for match in _EQUATION_TOKEN.finditer(text) if match.lastgroup]
    start, signs, index = len(text.rstrip(" $£€")), 0, len(tokens) - 1
    while index >= 0 and (tokens[index].lastgroup == "sign" or tokens[index][0] in "$£€"):
        index -= 1
    while index >= 0:
        words = 0
        while index >= 0 and (tokens[index].lastgroup == "word" or tokens[index][0] == "/"):
            words += tokens[index].lastgroup == "word"
            if words > 4 or tokens[index][0].lower() in _NOT_UNITS:
                return start, signs
            index -= 1
        if index < 0 or tokens[index].lastgroup != "number":
            break
        start = tokens[index].start()
        # "3 -5": the minus was read as the number's own, but it joins two operands.
        joined = re.match(r"[(\[]*-", tokens[index][0]) is not None and index > 0
        index -= 1
        if index >= 0 and tokens[index].lastgroup == "sign":
            signs += tokens[index][0] != "="
            index -= 1
        elif joined or (index >= 0 and _ADJACENT.match(tokens[index + 1][0])):
            signs += 1  # "3 -5" and "40(.10)"
        else:
            break
    return start, signs


class Equation(NamedTuple):
    """A calculation in a line: ``before`` stands the text since the last one, then ``written``.

    ``mark`` replaces it and its result in the line; the rest of the line begins at ``end``.
    """

    expression: Expression | None
    result: str
    before: str
    written: str
    mark: str
    end: int


def find_equations(line: str) -> Iterator[Equation]:
    """The annotations of a line; without any, the calculations it shows."""
    end = 0
    annotations = find_annotations(line)
    for annotation in annotations:
        written = line[end : annotation.start]
        start, _ = _equation_start(written)
        before, written = written[:start], written[start:]
        after = _AFTER_ANNOTATION.match(line, annotation.end)
        end = after.end()
        expression = parse_calculation(annotation.expression) or parse_calculation(written)
        mark = _mark(written[-2:] + after[0])
        yield Equation(expression, annotation.result, before, written, mark, end)
    for match in () if annotations else _RESULT.finditer(line):
        start, signs = _equation_start(line[end : match.start()])
        before, written = line[end : end + start], line[end + start : match.start()]
        expression = parse_calculation(written) if signs else None
        if expression is not None:
            end = match.end()
            yield Equation(expression, match["value"], before, written, _mark(match["value"]), end)


def _mark(written: str) -> str:
    return CASH if re.search("[$£€]", written) else SHARE if "%" in written else PLAIN
