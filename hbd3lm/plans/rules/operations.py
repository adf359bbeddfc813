"""An expression in words: as an imperative, and its operands as noun phrases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hbd3lm.plans.rules.expressions import Expression, Number, Product, Sum
from hbd3lm.plans.rules.names import Names


def imperative(expression: Expression, names: Names) -> str:
    """ "add A and B", "subtract A from B", "multiply A by B", ..."""
    if isinstance(expression, Sum):
        plus = [_noun(term, names) for positive, term in expression.terms if positive]
        minus = [_noun(term, names) for positive, term in expression.terms if not positive]
        if not minus:
            return f"add {list_names(plus)}"
        if len(plus) == 1:
            other = plus[0].replace("the given", "the other given") if plus == minus else plus[0]
            return f"subtract {list_names(minus)} from {other}"
        if not plus:
            return f"subtract {list_names(minus)}"
        return f"add {list_names(plus)} and subtract {list_names(minus)}"
    share, up, down = _factors(expression, names)
    if share:
        if not up and not down:
            return f"take {share}"
        whole = list_names(up) if len(up) < 2 else f"the product of {_join(_distinct(up))}"
        action = f"take {share} of {whole or 'the whole'}"
        return action + (f" and divide by {list_names(down)}" if down else "")
    if not down:
        return f"multiply {up[0]} by {_join(_distinct(up)[1:])}"
    if len(up) == 1:
        if up == down:
            down = [up[0].replace("the given", "the other given")]
        return f"divide {up[0]} by {list_names(down)}"
    if not up:
        return f"divide the whole by {list_names(down)}"
    return f"multiply {up[0]} by {_join(_distinct(up)[1:])} and divide by {list_names(down)}"


def _distinct(factors: list[str]) -> list[str]:
    """The factors, later ones told apart from a first one of the same name."""
    first, *others = factors
    return [first] + [
        n.replace("the given", "the other given") if n == first else n for n in others
    ]


def _noun(expression: Expression, names: Names) -> str:
    """An operand as a noun phrase, nested operations included."""
    if isinstance(expression, Number):
        return names.number(expression)
    if isinstance(expression, Sum):
        plus = [_noun(term, names) for positive, term in expression.terms if positive]
        minus = [_noun(term, names) for positive, term in expression.terms if not positive]
        if not minus:
            return f"the sum of {list_names(plus)}"
        whole = f"the sum of {list_names(plus)}" if len(plus) > 1 else (plus or ["nothing"])[0]
        return f"the difference between {whole} and {list_names(minus)}"
    share, up, down = _factors(expression, names)
    if share:
        whole = list_names(up) or "the whole"
        return f"{share} of {whole}" + (f" over {list_names(down)}" if down else "")
    top = up[0] if len(up) == 1 else f"the product of {_join(_distinct(up))}" if up else "the whole"
    return f"the ratio of {top} to {list_names(down)}" if down else top


def _factors(product: Product, names: Names) -> tuple[str, list[str], list[str]]:
    """Split a product into a share ("the given percentage"), what is multiplied, what divides.

    ``80/100*x``, ``.8*x``, ``3/5*x`` and ``x/2`` with "half" in the question are shares of x.
    """
    up = [factor for multiplied, factor in product.factors if multiplied]
    down = [factor for multiplied, factor in product.factors if not multiplied]
    share = ""
    for top in [f for f in up if isinstance(f, Number)]:
        for bottom in [f for f in down if isinstance(f, Number) and f.value]:
            ratio = top.value / bottom.value
            if bottom.value == 100 and names.percentage(ratio):
                share = "the given percentage"
            elif len(up) > 1 and names.is_given(ratio, "fraction"):
                share = "the given fraction"
            if share:
                up.remove(top)
                down.remove(bottom)
                break
        if share:
            break
    if not share:
        for factor in [f for f in up if isinstance(f, Number) and len(up) > 1]:
            if factor.value < 1 and names.percentage(factor.value):
                share = "the given percentage"
            elif names.is_given(factor.value, "fraction"):
                share = "the given fraction"
            if share:
                up.remove(factor)
                break
    if not share and len(up) == 1:
        for factor in [f for f in down if isinstance(f, Number) and f.value > 1]:
            if names.is_given(1 / factor.value, "fraction"):
                share = "the given fraction"
                down.remove(factor)
                break
    return (
        share,
        [_noun(factor, names) for factor in up],
        [names.number(f, divides=True) if isinstance(f, Number) else _noun(f, names) for f in down],
    )


def list_names(items: Sequence[str]) -> str:
    """ "A, B and C", with like names told once ("the given amounts")."""
    counts = Counter(items)
    results = [name for name in counts if name.endswith(("result", "found earlier", "that"))]
    if sum(counts[name] for name in results) > 2:
        counts = Counter({n: c for n, c in counts.items() if n not in results})
        counts["the earlier results"] = 1
    names: list[str] = []
    for name, count in counts.items():
        if count > 1 and name.startswith(("the given", "a known")):
            names.append(_plural(name))
        else:
            names.append(name)
    return _join(names)


def _plural(name: str) -> str:
    if name.startswith("a known"):
        return "the known amounts"
    head, separator, rest = name.partition(" per ")
    return (head if head.endswith("s") else head + "s") + separator + rest


def _join(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]
