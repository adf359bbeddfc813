"""Numbers that suit the running quantity: what an event draws."""

from __future__ import annotations

from fractions import Fraction

from hbd3lm.data.synthetic.chance import Chance
from hbd3lm.data.synthetic.events import Draw, Number, Numbers
from hbd3lm.data.synthetic.words import FRACTIONS, PARTS, TIMES

PRICES = [Fraction(cents, 100) for cents in (50, 75, 125, 150, 200, 250, 300, 400, 500)]
PRICES += [Fraction(dollars, 2) for dollars in (12, 15, 16, 18, 20, 24, 30)]
PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80)


def ints(**ranges: tuple[int, int]) -> Draw:
    """Independent whole numbers, whatever v is."""
    return lambda r, v: {name: r.int(low, high) for name, (low, high) in ranges.items()}


def nothing(r: Chance, v: Number) -> Numbers:
    """No number: the event only combines what is known."""
    return {}


def below(low: int = 2) -> Draw:
    """k that leaves at least 2 of v."""

    def draw(r: Chance, v: Number) -> Numbers | None:
        high = min(int(v) - 2, 300)
        return {"k": r.int(low, high)} if high >= low else None

    return draw


def above(step: int, high: int) -> Draw:
    """k beyond v: v rounded up to a multiple of ``step``, and up to ``high`` steps more."""
    return lambda r, v: {"k": (int(v) // step + r.int(1, high)) * step}


def divisor(low: int, high: int) -> Draw:
    """k that divides v exactly, leaving at least 2."""

    def draw(r: Chance, v: Number) -> Numbers | None:
        fits = [k for k in range(low, high + 1) if v % k == 0 and v >= 2 * k]
        return {"k": r.pick(fits)} if fits else None

    return draw


def percent(r: Chance, v: Number) -> Numbers | None:
    """p percent of v that is a whole number of at least 2."""
    fits = [p for p in PERCENTS if (v * p) % 100 == 0 and v * p >= 200]
    return {"p": r.pick(fits)} if fits else None


def small_percent(r: Chance, v: Number) -> Numbers | None:
    """A rate that a tax may have."""
    fits = [p for p in (5, 10, 15, 20, 25) if (v * p) % 50 == 0]
    return {"p": r.pick(fits)} if fits else None


def fraction(r: Chance, v: Number) -> Numbers | None:
    """n/d of v, whole, at least 2."""
    fits = [(n, d) for n, d in FRACTIONS if v % d == 0 and v >= 2 * d]
    if not fits:
        return None
    n, d = r.pick(fits)
    return {"n": n, "d": d}


def price(r: Chance, v: Number) -> Numbers:
    """p dollars for each."""
    return {"p": r.pick(PRICES)}


def affordable(r: Chance, v: Number) -> Numbers | None:
    """A price that v pays exactly, a whole number of times."""
    fits = [p for p in PRICES if v % p == 0 and 2 * p <= v <= 200 * p]
    return {"p": r.pick(fits)} if fits else None


def times(r: Chance, v: Number) -> Numbers:
    """k times as many."""
    return {"k": r.pick(tuple(TIMES))}


def part(r: Chance, v: Number) -> Numbers | None:
    """One d-th as many."""
    fits = [d for d in PARTS if v % d == 0 and v >= 2 * d]
    return {"d": r.pick(fits)} if fits else None


def groups_within(low: int, high: int) -> Draw:
    """k groups of m that together stay below v."""

    def draw(r: Chance, v: Number) -> Numbers | None:
        k, m = r.int(low, high), r.int(2, 6)
        return {"k": k, "m": m} if k * m <= v - 2 else None

    return draw


def share_of_total(r: Chance, v: Number) -> Numbers:
    """k things that m people can share."""
    m = r.int(3, 12)
    return {"k": m * r.int(3, 20), "m": m}


def fraction_start(r: Chance, v: Number) -> Numbers:
    """k, and the part d of it that somebody else has."""
    d = r.pick(tuple(PARTS))
    return {"k": d * r.int(3, 30), "d": d}


def percent_start(r: Chance, v: Number) -> Numbers:
    """k, and p percent of it."""
    return {"k": 20 * r.int(2, 15), "p": r.pick(PERCENTS)}
