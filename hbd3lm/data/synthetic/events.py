"""The grammar of the embedded problems: what can happen, what it does to the running quantity.

A problem is a chain of events. Each takes the quantity the story is at (``v``: some things, some
dollars, some miles ...), draws numbers that suit it, and leaves a new quantity of a certain kind;
which events may follow is decided by that kind alone. So a problem of n steps is n operations, each
built on the one before, and not a template with n slots.

Templates are ``str.format`` strings with these names:

=====================  ==========================================================================
``{A}`` ``{s}``        the person the story is at, by name / by name or pronoun; also ``{his}``,
                       ``{him}`` and ``{whose}`` (opens a sentence: his, or the name with 's)
``{B}``                somebody new (the story goes on with them where ``actor="other"``)
``{U}``                the person compared with, for ``together``
``{k}`` ``{$k}`` ...   the number k as a count, ``{$k}`` as dollars, ``{%p}`` as a percentage
``{e1}`` ``{d2}``      the calculation of step 1, annotated; ``{d2}`` of step 2, in dollars
``{things}`` ...       words of :mod:`~hbd3lm.data.synthetic.words`, chosen once an event
``[was|is|are]``       past / present of one person / of two: a problem keeps its tense
=====================  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from hbd3lm.data.synthetic.chance import Chance

Number = int | Fraction  # an int where it is whole
Numbers = dict[str, Number]
Draw = Callable[[Chance, Number], Numbers | None]
Texts = tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """One thing that happens, with one or two calculation steps.

    Attributes:
        name: unique; part of the signature that separates train from test.
        needs: kinds of quantity it can follow (empty: it opens a problem).
        gives: kind of the new quantity.
        draw: numbers for the running quantity, or None if none suit.
        steps: calculations over the drawn numbers, ``v`` (running quantity), ``u`` (the quantity
            of the person compared with) and ``r1`` (result of the first step), left to right.
        tell: sentences of the question. asks, solves: for each step, how it is asked for and how
            it is worked out.
        actor: who the story goes on with: the same person, the new one, or both together.
        after: names of the events it may directly follow (empty: any).
        last: nothing can follow it.
        rival: for an opening that compares with B, the name of B's number.
        thing: whether the story goes on with other things: new ones, or packed in gift bags.
    """

    name: str
    needs: Texts
    gives: str
    draw: Draw
    steps: Texts
    tell: Texts
    asks: tuple[Texts, ...]
    solves: tuple[Texts, ...]
    actor: Literal["same", "other", "both"] = "same"
    after: Texts = ()
    last: bool = False
    rival: str = ""
    thing: Literal["same", "new", "bag"] = "same"


MONEY_KINDS = frozenset(
    ("funds", "profit", "money_share", "gap", "cost", "gas", "each", "change", "wage")
)
