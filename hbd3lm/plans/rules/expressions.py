"""Arithmetic expressions as trees of n-ary sums and products: what a step computes."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction

from hbd3lm.data.annotations import parse_expression


@dataclass(frozen=True)
class Number:
    """A leaf; ``5%`` has the value 1/20."""

    value: Fraction


@dataclass(frozen=True)
class Sum:
    """``terms``: (positive?, operand)."""

    terms: tuple[tuple[bool, Expression], ...]


@dataclass(frozen=True)
class Product:
    """``factors``: (multiplied? else divided by, operand)."""

    factors: tuple[tuple[bool, Expression], ...]


Expression = Number | Sum | Product

_WORD_IN_EXPRESSION = re.compile(r"(?<![\d.])\b(?!x\b)[A-Za-z][\w'’.]*")


def parse_calculation(text: str) -> Expression | None:
    """The tree of an arithmetic expression with at least one operation; ``None`` if it is none.

    Units (``7 stickers/page * 6 pages``) and currency signs are skipped; the grammar is that of
    :func:`hbd3lm.data.annotations.parse_expression`. Nothing is evaluated.
    """
    sides = [side for side in re.sub(r"[–—]", "-", text).split("=") if re.search(r"\d", side)]
    text = sides[-1] if sides else ""  # of "48/2 = 24 + 0 =" the part nearest to the result
    text = re.sub(r"[/-]\s*(?!x\b)[A-Za-z][\w'’.]*", " ", text)  # 7 stickers/page, 8-hour
    text = _WORD_IN_EXPRESSION.sub(" ", text)
    text = re.sub(r"[$£€=]", "", text).replace("[", "(").replace("]", ")")
    text = re.sub(r"(\d|\))\s*\(", r"\1*(", text)
    text = re.sub(r"\)\s*(?=\d)", ")*", text)
    try:
        tree = _flatten(parse_expression(text.strip(" .+")))
    except ValueError:
        return None
    return None if isinstance(tree, Number) else tree


def _flatten(node: ast.expr) -> Expression:
    match node:
        case ast.Constant(value=value):
            return Number(Fraction(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _flatten(operand)
            return Number(-inner.value) if isinstance(inner, Number) else Sum(((False, inner),))
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            positive = isinstance(op, ast.Add)
            terms = _as(Sum, left)
            # Brackets on the right are kept apart only where they change the operation.
            return Sum(terms + (_as(Sum, right) if positive else ((False, _flatten(right)),)))
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            multiplied = isinstance(op, ast.Mult)
            factors = _as(Product, left)
            tail = _as(Product, right) if multiplied else ((False, _flatten(right)),)
            return Product(factors + tail)
    raise ValueError("an operation that no step of ours is told with")


def _as(kind: type, node: ast.expr) -> tuple[tuple[bool, Expression], ...]:
    tree = _flatten(node)
    if isinstance(tree, kind):
        return tree.terms if isinstance(tree, Sum) else tree.factors
    return ((True, tree),)
