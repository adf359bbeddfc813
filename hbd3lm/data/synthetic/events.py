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
from hbd3lm.data.synthetic.words import FRACTIONS, PARTS, TIMES

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
PRICES = [Fraction(cents, 100) for cents in (50, 75, 125, 150, 200, 250, 300, 400, 500)]
PRICES += [Fraction(dollars, 2) for dollars in (12, 15, 16, 18, 20, 24, 30)]
PERCENTS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80)


# --- numbers that suit the running quantity v --------------------------------------------------


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


# --- asked again and again --------------------------------------------------------------------

HAVE_NOW = (
    "How many {things} [did {s} have then|does {s} have now|do {s} have now]?",
    "How many {things} [did|does|do] {s} have after that?",
)
HAVE_LEFT = (
    "How many {things} [did|does|do] {s} have left?",
    "How many {things} [did|does|do] {s} still have?",
)
HAVE_ALL = (
    "How many {things} [did|does|do] {s} have in total?",
    "How many {things} [did|does|do] {s} have altogether?",
)
B_HAS = ("How many {things} [did|does|does] {B} have?",)
LEFT_SOLVED = (
    "{s} [had|has|have] {e1} {things} left.",
    "That [left|leaves|leaves] {e1} {things}.",
)
LEFT_SOLVED_2 = (
    "{s} [had|has|have] {e2} {things} left.",
    "That [left|leaves|leaves] {e2} {things}.",
)
NOW_SOLVED = ("{s} now [had|has|have] {e1} {things}.", "That [made|makes|makes] {e1} {things}.")
NOW_SOLVED_2 = ("{s} now [had|has|have] {e2} {things}.", "That [made|makes|makes] {e2} {things}.")
B_SOLVED = ("{B} [had|has|has] {e1} {things}.", "So {B} [had|has|has] {e1} {things}.")
MONEY_LEFT = (
    "How much money [did|does|do] {s} have left?",
    "How many dollars [did|does|do] {s} have left?",
)
MONEY_LEFT_SOLVED = (
    "{s} [had|has|have] {d1} left.",
    "That [left|leaves|leaves] {him} with {d1}.",
)
MONEY_LEFT_SOLVED_2 = (
    "{s} [had|has|have] {d2} left.",
    "That [left|leaves|leaves] {him} with {d2}.",
)
MONEY_NOW = (
    "How much money [did {s} have then|does {s} have now|do {s} have now]?",
    "How many dollars [did|does|do] {s} have after that?",
)
MONEY_NOW_SOLVED = (
    "{s} now [had|has|have] {d1}.",
    "That [made|makes|makes] {d1}.",
)
COST_NOW = (
    "How much [did|does|do] {s} have to pay in total?",
    "What [was|is|is] the total cost?",
)

ITEMS = ("items",)
CALM_ITEMS = ("items", "packs")  # nothing here names boxes or how the things are made

# --- openings ---------------------------------------------------------------------------------

OPENINGS = (
    Event(
        "boxes", (), "items", ints(k=(2, 14), m=(3, 16)), ("k*m",),
        (
            "{A} [had|has|have] {k} {boxes} of {things} with {m} {things} in each {box}.",
            "There [were|are|are] {m} {things} in each of the {k} {boxes} that {A} [had|has|have].",
            "{A} [kept|keeps|keep] {his} {things} in {k} {boxes}. "
            "Each {box} [held|holds|holds] {m} {things}.",
        ),
        (HAVE_ALL,),
        (
            (
                "{s} [had|has|have] {e1} {things} in total.",
                "The {boxes} [held|hold|hold] {e1} {things} in all.",
            ),
        ),
    ),
    Event(
        "daily", (), "items", ints(k=(3, 25), m=(3, 10)), ("k*m",),
        (
            "{A} {made} {k} {things} every day for {m} days.",
            "For {m} days, {A} {made} {k} {things} a day.",
            "Every morning, {A} {made} {k} {things}. {s} [kept|keeps|keep] this up for {m} days.",
        ),
        (("How many {things} [did|does|do] {s} {make} in all?",),),
        (
            ("{s} {made} {e1} {things} in all.", "In {m} days, {s} {made} {e1} {things}."),
        ),
    ),
    Event(
        "two_amounts", (), "items", ints(k=(4, 60), m=(4, 60)), ("k+m",),
        (
            "{A} {made} {k} {things} in the morning and {m} {things} in the afternoon.",
            "On Saturday, {A} {made} {k} {things}. On Sunday, {s} {made} {m} {things}.",
            "{A} {made} {k} {things} on Monday and {m} {things} on Tuesday.",
        ),
        (("How many {things} [did|does|do] {s} {make} altogether?",),),
        (
            ("Altogether, {s} {made} {e1} {things}.", "{s} {made} {e1} {things} in all."),
        ),
    ),
    Event(
        "shared_out", (), "items", share_of_total, ("k/m",),
        (
            "A teacher [shared|shares|shares] {k} {things} equally among {m} students. "
            "{A} [was|is|are] one of the students.",
            "{k} {things} [were|are|are] split equally among {m} students, one of them {A}.",
        ),
        (("How many {things} [did|does|do] {A} get?",),),
        (
            ("{A} [got|gets|get] {e1} {things}.", "Each student [got|gets|gets] {e1} {things}."),
        ),
    ),
    Event(
        "times_as_many", (), "items",
        lambda r, v: {"m": r.int(4, 40), "k": r.pick(tuple(TIMES))}, ("m*k",),
        (
            "{B} [had|has|has] {m} {things}. {A} [had|has|have] {times} as many {things} as {B}.",
            "{A} [had|has|have] {times} as many {things} as {B}, who [had|has|has] {m} {things}.",
        ),
        (("How many {things} [did|does|do] {A} have?",),),
        (("{A} [had|has|have] {e1} {things}.",),),
        rival="m",
    ),
    Event(
        "part_as_many", (), "items", fraction_start, ("k/d",),
        (
            "{B} [had|has|has] {k} {things}. {A} [had|has|have] {part} as many {things} as {B}.",
            "{B} [had|has|has] {k} {things}, and {A} [had|has|have] only {part} as many.",
        ),
        (("How many {things} [did|does|do] {A} have?",),),
        (("{A} [had|has|have] {e1} {things}.",),),
        rival="k",
    ),
    Event(
        "more_than", (), "items", ints(k=(4, 60), m=(3, 30)), ("k+m",),
        (
            "{B} [had|has|has] {k} {things}. {A} [had|has|have] {m} more {things} than {B}.",
            "{A} [had|has|have] {m} more {things} than {B}, who [had|has|has] {k} {things}.",
        ),
        (("How many {things} [did|does|do] {A} have?",),),
        (("{A} [had|has|have] {e1} {things}.",),),
        rival="k",
    ),
    Event(
        "fewer_than", (), "items",
        lambda r, v: {"k": r.int(20, 80), "m": r.int(3, 16)}, ("k-m",),
        (
            "{B} [had|has|has] {k} {things}. {A} [had|has|have] {m} fewer {things} than {B}.",
            "{A} [had|has|have] {m} fewer {things} than {B}, who [had|has|has] {k} {things}.",
        ),
        (("How many {things} [did|does|do] {A} have?",),),
        (("{A} [had|has|have] {e1} {things}.",),),
        rival="k",
    ),
    Event(
        "percent_of", (), "items", percent_start, ("k*p/100",),
        (
            "A store [had|has|has] {k} {things}. {A} [bought|buys|buy] {%p} of them.",
            "Of the {k} {things} at the market, {A} [bought|buys|buy] {%p}.",
        ),
        (("How many {things} [did|does|do] {s} buy?",),),
        (("{A} [bought|buys|buy] {e1} {things}.",),),
    ),
    Event(
        "wage", (), "wage", ints(k=(8, 30), m=(2, 9)), ("k*m",),
        (
            "{A} [earned|earns|earn] {$k} an hour and [worked|works|work] {m} hours a day.",
            "{A}'s job [paid|pays|pays] {$k} per hour. {s} [worked|works|work] {m} hours a day.",
        ),
        (("How much money [did|does|do] {s} earn per day?",),),
        (("{s} [earned|earns|earn] {d1} per day.", "In one day, {s} [earned|earns|earn] {d1}."),),
    ),
    Event(
        "savings", (), "funds", ints(k=(5, 45), m=(3, 12)), ("k*m",),
        (
            "{A} [saved|saves|save] {$k} every week for {m} weeks.",
            "For {m} weeks, {A} [put|puts|put] {$k} into {his} piggy bank each week.",
            "Each week, {A} [got|gets|get] an allowance of {$k}. {s} [saved|saves|save] all of it "
            "for {m} weeks.",
        ),
        (("How much money [did|does|do] {s} save?",),),
        (("{s} [saved|saves|save] {d1}.", "In {m} weeks, {s} [saved|saves|save] {d1}."),),
    ),
    Event(
        "purchase", (), "cost",
        lambda r, v: {"k": r.int(3, 16), "p": r.pick(PRICES)}, ("k*p",),
        (
            "{A} [bought|buys|buy] {k} {things} that [cost|cost|cost] {$p} each.",
            "{A} [bought|buys|buy] {k} {things}. Each {thing} [cost|costs|costs] {$p}.",
            "At the store, {A} [picked|picks|pick] out {k} {things} at {$p} each.",
        ),
        (("How much [did|do|do] the {things} cost?",),),
        (("The {things} [cost|cost|cost] {d1}.",),),
    ),
    Event(
        "two_buys", (), "cost", ints(k=(6, 90), m=(6, 90)), ("k+m",),
        (
            "{A} [bought|buys|buy] {small} for {$k} and {big} for {$m}.",
            "{A} [ordered|orders|order] {big} that [cost|costs|costs] {$m} and "
            "{small} that [cost|costs|costs] {$k}.",
        ),
        (("How much [did|does|do] {s} have to pay for both?",),),
        (("Together, they [cost|cost|cost] {d1}.",),),
    ),
    Event(
        "drive", (), "miles",
        lambda r, v: {"k": 5 * r.int(6, 14), "m": r.int(2, 6)}, ("m*k",),
        (
            "{A} [drove|drives|drive] for {m} hours at {k} miles per hour.",
            "On a trip, {A} [drove|drives|drive] at a steady {k} miles per hour for {m} hours.",
        ),
        (("How many miles [did|does|do] {s} drive?",),),
        (("{s} [drove|drives|drive] {e1} miles.",),),
    ),
    Event(
        "reading", (), "pages", ints(k=(6, 40), m=(3, 9)), ("k*m",),
        (
            "{A} [read|reads|read] {k} pages of a book every day for {m} days.",
            "{A} [was|is|are] reading a book and [finished|finishes|finish] {k} pages a day. "
            "{s} [did|does|do] this for {m} days.",
        ),
        (("How many pages [did|does|do] {s} read?",),),
        (("{s} [read|reads|read] {e1} pages.",),),
    ),
    Event(
        "crafting", (), "minutes",
        lambda r, v: {"k": 5 * r.int(1, 9), "m": r.int(3, 12)}, ("k*m",),
        (
            "It [took|takes|takes] {A} {k} minutes to wrap one present. "
            "{s} [wrapped|wraps|wrap] {m} presents.",
            "{A} [painted|paints|paint] {m} signs and [took|takes|take] {k} minutes for each one.",
            "Washing a car [took|takes|takes] {A} {k} minutes. {s} [washed|washes|wash] {m} cars.",
        ),
        (("How many minutes [did|does|do] {s} work?",),),
        (("{s} [worked|works|work] for {e1} minutes.",),),
    ),
)  # fmt: skip

# --- what can follow --------------------------------------------------------------------------

SEQUELS = (
    # Things.
    Event(
        "gain", CALM_ITEMS, "items", ints(k=(3, 60)), ("v+k",),
        (
            "{then}{s} [bought|buys|buy] {k} more {things}.",
            "{then}{s} [got|gets|get] {k} more {things} from {B}.",
            "{then}{B} [gave|gives|gives] {him} {k} more {things}.",
        ),
        (HAVE_NOW,), (NOW_SOLVED,),
    ),
    Event(
        "loss", CALM_ITEMS, "items", below(), ("v-k",),
        (
            "{then}{s} [gave|gives|give] {k} {things} to {B}.",
            "{then}{s} [lost|loses|lose] {k} of the {things}.",
            "{then}{s} [gave|gives|give] away {k} of {his} {things}.",
            "{then}{s} [gave|gives|give] {B} {k} of the {things}.",
        ),
        (HAVE_LEFT,), (LEFT_SOLVED,),
    ),
    Event(
        "fraction_away", CALM_ITEMS, "items", fraction, ("v*n/d", "v-r1"),
        (
            "{then}{s} [gave|gives|give] {frac} of the {things} to {B}.",
            "{then}{s} [gave|gives|give] away {frac} of {his} {things}.",
            "{then}{s} [donated|donates|donate] {frac} of the {things} to a school.",
        ),
        (("How many {things} [did|does|do] {s} give away?",), HAVE_LEFT),
        (("{s} [gave|gives|give] away {e1} {things}.",), LEFT_SOLVED_2),
    ),
    Event(
        "percent_spoiled", ITEMS, "items", percent, ("v*p/100", "v-r1"),
        (
            "{then}{s} [noticed|notices|notice] that {%p} of the {things} [were|are|are] damaged "
            "and [threw|throws|throw] those away.",
            "{%p} of {whose} {things} [turned|turn|turn] out to be damaged, so {s} "
            "[threw|throws|throw] them away.",
        ),
        (("How many {things} [were|are|are] damaged?",), HAVE_LEFT),
        (("Of these, {e1} {things} [were|are|are] damaged.",), LEFT_SOLVED_2),
    ),
    Event(
        "each_gives", ITEMS, "items", ints(k=(2, 8), m=(2, 12)), ("k*m", "v+r1"),
        (
            "{then}{k} {receivers} each [gave|give|give] {him} {m} more {things}.",
            "{then}{s} [got|gets|get] {m} more {things} from each of {k} {receivers}.",
        ),
        (("How many {things} [did|do|do] the {receivers} give {A}?",), HAVE_NOW),
        (("The {receivers} [gave|give|give] {him} {e1} {things}.",), NOW_SOLVED_2),
    ),
    Event(
        "gives_each", CALM_ITEMS, "items", groups_within(2, 9), ("k*m", "v-r1"),
        (
            "{then}{s} [gave|gives|give] {m} {things} to each of {his} {k} {receivers}.",
            "{then}{s} [handed|hands|hand] out {m} {things} each to {k} {receivers}.",
        ),
        (("How many {things} [did|does|do] {s} give to the {receivers}?",), HAVE_LEFT),
        (("The {receivers} [got|get|get] {e1} {things}.",), LEFT_SOLVED_2),
    ),
    Event(
        "new_boxes", ITEMS, "items", ints(k=(2, 6), m=(4, 15)), ("k*m", "v+r1"),
        (
            "{then}{s} [bought|buys|buy] {k} new {boxes} with {m} {things} in each.",
            "{then}{s} [got|gets|get] {k} more {boxes}, each with {m} {things}.",
        ),
        (("How many {things} [were|are|are] in the new {boxes}?",), HAVE_NOW),
        (("The new {boxes} [held|hold|hold] {e1} {things}.",), NOW_SOLVED_2),
    ),
    Event(
        "pack", ITEMS, "packs", divisor(2, 12), ("v/k",),
        (
            "{then}{s} [packed|packs|pack] all the {things} into gift bags, with {k} {things} in "
            "each bag.",
            "{then}{s} [put|puts|put] all the {things} into gift bags of {k}.",
        ),
        (("How many gift bags [did|does|do] {s} fill?",),),
        (("{s} [filled|fills|fill] {e1} gift bags.",),),
        thing="bag",
    ),
    Event(
        "share", ITEMS, "share", divisor(2, 12), ("v/k",),
        (
            "{then}{s} [shared|shares|share] all the {things} equally among {k} {receivers}.",
            "{then}{s} [divided|divides|divide] all the {things} equally among {k} {receivers}.",
        ),
        (("How many {things} [did|does|does] each of the {receivers} get?",),),
        (("Each of the {receivers} [got|gets|gets] {e1} {things}.",),),
    ),
    Event(
        "share_joins", ("share",), "items", ints(k=(3, 40)), ("v+k",),
        (
            "One of them, {B}, already [had|has|has] {k} {things}.",
            "{B}, who [got|gets|gets] one of these shares, already [had|has|has] {k} {things}.",
        ),
        (("How many {things} [did {B} have then|does {B} have now|does {B} have now]?",),),
        (("{B} now [had|has|has] {e1} {things}.",),),
        actor="other",
    ),
    Event(
        "sell", CALM_ITEMS, "funds", price, ("v*p",),
        (
            "{then}{s} [sold|sells|sell] all the {things} for {$p} each.",
            "{then}{s} [sold|sells|sell] every {thing} for {$p}.",
            "{then}{s} [took|takes|take] all the {things} to the market and [sold|sells|sell] them "
            "at {$p} each.",
        ),
        (
            (
                "How much money [did|does|do] {s} make?",
                "How many dollars [did|does|do] {s} get for the {things}?",
            ),
        ),
        (("{s} [got|gets|get] {d1} for the {things}.", "{s} [made|makes|make] {d1}."),),
    ),
    Event(
        "b_times", ITEMS, "items", times, ("v*k",),
        (
            "{B} [had|has|has] {times} as many {things} as {A} {now}[had|has|have].",
            "{then}{A} [met|meets|meet] {B}, who [had|has|has] {times} as many {things}.",
        ),
        (B_HAS,), (B_SOLVED,), actor="other",
    ),
    Event(
        "b_part", ITEMS, "items", part, ("v/d",),
        (
            "{B} [had|has|has] {part} as many {things} as {A} {now}[had|has|have].",
            "{then}{A} [met|meets|meet] {B}, who [had|has|has] only {part} as many {things}.",
        ),
        (B_HAS,), (B_SOLVED,), actor="other",
    ),
    Event(
        "b_more", ITEMS, "items", ints(k=(3, 40)), ("v+k",),
        (
            "{B} [had|has|has] {k} more {things} than {A} {now}[had|has|have].",
            "{then}{A} [met|meets|meet] {B}, who [had|has|has] {k} more {things} than {him}.",
        ),
        (B_HAS,), (B_SOLVED,), actor="other",
    ),
    Event(
        "b_fewer", ITEMS, "items", below(), ("v-k",),
        (
            "{B} [had|has|has] {k} fewer {things} than {A} {now}[had|has|have].",
            "{then}{A} [met|meets|meet] {B}, who [had|has|has] {k} fewer {things} than {him}.",
        ),
        (B_HAS,), (B_SOLVED,), actor="other",
    ),
    Event(
        "together", ITEMS, "items", nothing, ("u+v",),
        (
            "{U} and {A} [put|put|put] all their {things} together.",
            "{U} and {A} [decided|decide|decide] to combine their {things}.",
        ),
        (("How many {things} [did|do|do] {U} and {A} have together?",),),
        (("Together, {U} and {A} [had|have|have] {e1} {things}.",),),
        actor="both",
    ),
    # Money in hand.
    Event(
        "spend", ("funds",), "funds", below(3), ("v-k",),
        (
            "{then}{s} [spent|spends|spend] {$k} on {small}.",
            "{then}{s} [bought|buys|buy] {small} for {$k}.",
        ),
        (MONEY_LEFT,), (MONEY_LEFT_SOLVED,),
    ),
    Event(
        "earn", ("funds",), "funds", ints(k=(5, 80)), ("v+k",),
        (
            "{then}{s} [earned|earns|earn] another {$k} by {chore}.",
            "{then}{s} [got|gets|get] {$k} more as a birthday gift.",
            "{then}{s} [made|makes|make] {$k} more by {chore}.",
        ),
        (MONEY_NOW,), (MONEY_NOW_SOLVED,),
    ),
    Event(
        "profit", ("funds",), "profit", below(3), ("v-k",),
        (
            "The supplies had cost {him} {$k}.",
            "{s} had paid {$k} for supplies.",
        ),
        (("How much profit [did|does|do] {s} make?",),),
        (("{s} [made|makes|make] a profit of {d1}.", "The profit [was|is|is] {d1}."),),
        after=("sell",),
    ),
    Event(
        "profit_weeks", ("profit",), "funds", ints(k=(2, 12)), ("v*k",),
        (
            "{s} [made|makes|make] the same profit every week for {k} weeks.",
            "This [went|goes|goes] on for {k} weeks, with the same profit each week.",
        ),
        (("How much profit [did|does|do] {s} make in these weeks?",),),
        (("In {k} weeks, {s} [made|makes|make] {d1}.",),),
    ),
    Event(
        "fraction_spent", ("funds", "profit"), "funds", fraction, ("v*n/d", "v-r1"),
        (
            "{then}{s} [spent|spends|spend] {frac} of this money on {big}.",
            "{then}{s} [used|uses|use] {frac} of this money to pay for {big}.",
        ),
        (("How much [did|does|do] {s} pay for {big}?",), MONEY_LEFT),
        (("{s} [paid|pays|pay] {d1} for {big}.",), MONEY_LEFT_SOLVED_2),
    ),
    Event(
        "percent_donated", ("funds", "profit"), "funds", percent, ("v*p/100", "v-r1"),
        (
            "{then}{s} [donated|donates|donate] {%p} of this money to an animal shelter.",
            "{then}{s} [gave|gives|give] {%p} of this money to a charity.",
        ),
        (("How much money [did|does|do] {s} give away?",), MONEY_LEFT),
        (("{s} [gave|gives|give] away {d1}.",), MONEY_LEFT_SOLVED_2),
    ),
    Event(
        "wage_costs", ("wage",), "wage", lambda r, v: {"k": r.int(3, 8)}, ("v-k",),
        (
            "Every day, {s} [spent|spends|spend] {$k} of this on lunch.",
            "The bus to work and back [cost|costs|costs] {him} {$k} a day.",
        ),
        (("How much money [did|does|do] {s} have left each day?",),),
        (("Each day, {s} [had|has|have] {d1} left.",),),
    ),
    Event(
        "wage_days", ("wage",), "funds", ints(k=(3, 24)), ("v*k",),
        (
            "{s} [did|does|do] this for {k} days.",
            "{s} [worked|works|work] {k} days like this.",
        ),
        (("How much money [did|does|do] {s} have after these days?",),),
        (("After {k} days, {s} [had|has|have] {d1}.",),),
    ),
    Event(
        "money_split", ("funds", "profit"), "money_share", divisor(2, 6), ("v/k",),
        (
            "{then}{s} [split|splits|split] all of this money equally among {k} {children}.",
            "{then}{s} [shared|shares|share] all of this money equally among {his} {k} {children}.",
        ),
        (("How much money [did|does|does] each of the {children} get?",),),
        (("Each of the {children} [got|gets|gets] {d1}.",),),
    ),
    Event(
        "money_joins", ("money_share",), "funds", ints(k=(4, 60)), ("v+k",),
        (
            "One of them, {B}, already [had|has|has] {$k}.",
            "{B}, who [got|gets|gets] one of these shares, [had|has|has] another {$k} at home.",
        ),
        (("How much money [did {B} have then|does {B} have now|does {B} have now]?",),),
        (("{B} now [had|has|has] {d1}.",),),
        actor="other",
    ),
    Event(
        "goal", ("funds",), "gap", above(10, 12), ("k-v",),
        (
            "{s} [wanted|wants|want] to buy {big} that [cost|costs|costs] {$k}.",
            "{s} [needed|needs|need] {$k} to buy {big}.",
        ),
        (("How much more money [did|does|do] {s} need?",),),
        (("{s} still [needed|needs|need] {d1}.", "{s} [was|is|are] {d1} short."),),
    ),
    Event(
        "goal_weeks", ("gap",), "weeks", divisor(2, 30), ("v/k",),
        (
            "From then on, {s} [saved|saves|save] {$k} every week.",
            "To get the rest, {s} [earned|earns|earn] {$k} a week by {chore}.",
        ),
        (("How many weeks [did|does|do] it take {him} to get the rest of the money?",),),
        (("It [took|takes|takes] {e1} weeks.",),),
        last=True,
    ),
    Event(
        "spend_all", ("funds",), "items", affordable, ("v/p",),
        (
            "{then}{s} [spent|spends|spend] all of this money on {things} that [cost|cost|cost] "
            "{$p} each.",
            "{then}{s} [used|uses|use] all of this money to buy {things} at {$p} each.",
        ),
        (("How many {things} [did|does|do] {s} buy?",),),
        (("{s} [bought|buys|buy] {e1} {things}.",),),
        thing="new",
    ),
    Event(
        "money_times", ("funds",), "funds", times, ("v*k",),
        (
            "{B} [had|has|has] {times} as much money as {A} {now}[had|has|have].",
            "{A}'s cousin {B} [had|has|has] {times} as much money as that.",
        ),
        (("How much money [did|does|does] {B} have?",),),
        (("{B} [had|has|has] {d1}.",),),
        actor="other",
    ),
    Event(
        "money_together", ("funds",), "funds", nothing, ("u+v",),
        ("{U} and {A} [put|put|put] all their money together.",),
        (("How much money [did|do|do] {U} and {A} have together?",),),
        (("Together, {U} and {A} [had|have|have] {d1}.",),),
        actor="both",
    ),
    # A bill to pay.
    Event(
        "fee", ("cost",), "cost", ints(k=(3, 25)), ("v+k",),
        (
            "Delivery [cost|costs|costs] another {$k}.",
            "{s} also [bought|buys|buy] a gift card for {$k}.",
        ),
        (COST_NOW,),
        (("In total, {s} [had|has|have] to pay {d1}.", "The total cost [was|is|is] {d1}."),),
    ),
    Event(
        "coupon", ("cost",), "cost", below(2), ("v-k",),
        (
            "{s} [had|has|have] a coupon for {$k} off the total.",
            "At the register, {s} [used|uses|use] a gift card worth {$k}.",
        ),
        (("How much [did|does|do] {s} still have to pay?",),),
        (("{s} still [had|has|have] to pay {d1}.",),),
    ),
    Event(
        "discount", ("cost",), "cost", percent, ("v*p/100", "v-r1"),
        (
            "The store [gave|gives|gives] {him} a {%p} discount on this amount.",
            "A sale [took|takes|takes] {%p} off this amount.",
        ),
        (
            ("How much money [did|does|do] {s} save with the discount?",),
            ("How much [did|does|do] {s} have to pay after the discount?",),
        ),
        (
            ("The discount [was|is|is] {d1}.",),
            ("After the discount, {s} [had|has|have] to pay {d2}.",),
        ),
    ),
    Event(
        "tax", ("cost",), "cost", small_percent, ("v*p/100", "v+r1"),
        (
            "On top of this amount, there [was|is|is] a service charge of {%p}.",
            "A sales tax of {%p} [was|is|is] added to this amount.",
        ),
        (("How much money [was|is|is] added?",), ("How much [was|is|is] the total after that?",)),
        (
            ("The amount added [was|is|is] {d1}.",),
            ("The total after that [was|is|is] {d2}.",),
        ),
    ),
    Event(
        "cost_split", ("cost", "gas"), "each", divisor(2, 6), ("v/k",),
        (
            "{s} [shared|shares|share] the cost with friends, so {k} people in all [paid|pay|pay] "
            "equal parts.",
            "The cost [was|is|is] split equally among {k} people, one of them {A}.",
        ),
        (("How much [did|does|does] each person pay?",),),
        (("Each person [paid|pays|pays] {d1}.",),),
    ),
    Event(
        "change", ("cost", "gas", "each"), "change", above(10, 3), ("k-v",),
        (
            "{s} [paid|pays|pay] with {$k} in cash.",
            "{s} [handed|hands|hand] the cashier {$k}.",
        ),
        (("How much change [did|does|do] {s} get back?",),),
        (("{s} [got|gets|get] {d1} back.", "The change [was|is|is] {d1}."),),
    ),
    Event(
        "change_added", ("change",), "funds", ints(k=(5, 90)), ("v+k",),
        (
            "{s} [put|puts|put] the change into a jar that already [held|holds|holds] {$k}.",
            "{s} [added|adds|add] the change to the {$k} in {his} piggy bank.",
        ),
        (("How much money [did {s} have then|does {s} have now|do {s} have now]?",),),
        (MONEY_NOW_SOLVED,),
    ),
    # On the road.
    Event(
        "drive_on", ("miles",), "miles", ints(k=(10, 120)), ("v+k",),
        (
            "{then}{s} [drove|drives|drive] another {k} miles.",
            "After a break, {s} [went|goes|go] on for {k} more miles.",
        ),
        (("How many miles [did|does|do] {s} drive in total?",),),
        (("In total, {s} [drove|drives|drive] {e1} miles.",),),
    ),
    Event(
        "drive_back", ("miles",), "miles", nothing, ("v*2",),
        (
            "{then}{s} [drove|drives|drive] all the way back by the same roads.",
            "{then}{s} [turned|turns|turn] around and [drove|drives|drive] home the same way.",
        ),
        (("How many miles [did|does|do] {s} drive there and back?",),),
        (("There and back, {s} [drove|drives|drive] {e1} miles.",),),
    ),
    Event(
        "drive_often", ("miles",), "miles", ints(k=(2, 5)), ("v*k",),
        (
            "{s} [made|makes|make] exactly this trip {k} times.",
            "{s} [did|does|do] this on each of {k} days.",
        ),
        (("How many miles [did|does|do] {s} drive altogether?",),),
        (("Altogether, {s} [drove|drives|drive] {e1} miles.",),),
    ),
    Event(
        "drive_rest", ("miles",), "rest_miles", above(10, 20), ("k-v",),
        (
            "{s} [planned|plans|plan] to drive {k} miles in all.",
            "{whose} goal [was|is|is] a total of {k} miles.",
        ),
        (("How many miles [did|does|do] {s} still have to drive?",),),
        (("{s} still [had|has|have] {e1} miles to drive.",),),
    ),
    Event(
        "rest_hours", ("rest_miles",), "hours", divisor(20, 70), ("v/k",),
        (
            "{s} [drove|drives|drive] the rest at {k} miles per hour.",
            "For the rest, {s} [went|goes|go] at a speed of {k} miles per hour.",
        ),
        (("How many hours [did|does|do] {s} need for the rest?",),),
        (("{s} [needed|needs|need] {e1} hours for the rest.",),),
        last=True,
    ),
    Event(
        "gallons", ("miles", "rest_miles"), "gallons", divisor(15, 40), ("v/k",),
        (
            "{whose} car [could|can|can] go {k} miles on one gallon of gas.",
            "{whose} car [used|uses|uses] one gallon of gas for every {k} miles.",
        ),
        (("How many gallons of gas [did|does|do] {s} need for these miles?",),),
        (("{s} [needed|needs|need] {e1} gallons of gas.",),),
    ),
    Event(
        "gas_price", ("gallons",), "gas", lambda r, v: {"p": r.pick(PRICES[4:8])}, ("v*p",),
        (
            "Gas [cost|costs|costs] {$p} per gallon.",
            "The price of gas [was|is|is] {$p} a gallon.",
        ),
        (("How much [did|does|do] {s} pay for this gas?",),),
        (("The gas [cost|costs|costs] {d1}.",),),
    ),
    # A book.
    Event(
        "read_on", ("pages",), "pages", ints(k=(5, 60)), ("v+k",),
        (
            "On the weekend, {s} [read|reads|read] {k} more pages.",
            "{then}{s} [finished|finishes|finish] another {k} pages.",
        ),
        (("How many pages [did|does|do] {s} read in total?",),),
        (("In total, {s} [read|reads|read] {e1} pages.",),),
    ),
    Event(
        "pages_left", ("pages",), "rest_pages", above(10, 25), ("k-v",),
        (
            "The book [had|has|has] {k} pages.",
            "There [were|are|are] {k} pages in the book.",
        ),
        (("How many pages of the book [were|are|are] left?",),),
        (("There [were|are|are] {e1} pages left.",),),
    ),
    Event(
        "pages_skip", ("rest_pages",), "rest_pages", below(3), ("v-k",),
        (
            "{s} [skipped|skips|skip] the index, which [was|is|is] {k} pages long.",
            "The last {k} pages [were|are|are] blank, so {s} [did|does|do] not have to read them.",
        ),
        (("How many pages [did|does|do] {s} still have to read?",),),
        (("{s} still [had|has|have] to read {e1} pages.",),),
    ),
    Event(
        "pages_days", ("rest_pages",), "days", divisor(4, 40), ("v/k",),
        (
            "{s} [wanted|wants|want] to read {k} pages a day until the end of the book.",
            "From then on, {s} [read|reads|read] {k} pages a day.",
        ),
        (("How many days [did|does|do] {s} need for the rest of the book?",),),
        (("{s} [needed|needs|need] {e1} days for the rest.",),),
        last=True,
    ),
    # Working time.
    Event(
        "tidy_up", ("minutes",), "minutes", lambda r, v: {"k": 5 * r.int(1, 8)}, ("v+k",),
        (
            "{then}{s} [spent|spends|spend] {k} more minutes on cleaning up.",
            "Getting everything ready [took|takes|takes] {him} another {k} minutes.",
        ),
        (("How many minutes [did|does|do] all of this take {him}?",),),
        (("All of this [took|takes|takes] {e1} minutes.",),),
    ),
    Event(
        "b_slower", ("minutes",), "minutes", times, ("v*k",),
        (
            "{B} [needed|needs|needs] {times} as much time as {A} for the same work.",
            "{B} [worked|works|works] {times} as long as {A}.",
        ),
        (("How many minutes [did|does|does] {B} work?",),),
        (("{B} [worked|works|works] for {e1} minutes.",),),
        actor="other",
    ),
    Event(
        "b_quicker", ("minutes",), "minutes", below(5), ("v-k",),
        (
            "{B} [was|is|is] faster than {A} and [needed|needs|needs] {k} minutes less "
            "for the same work.",
            "{B} [started|starts|starts] together with {A} but [stopped|stops|stops] {k} minutes "
            "earlier.",
        ),
        (("How many minutes [did|does|does] {B} work?",),),
        (("{B} [worked|works|works] for {e1} minutes.",),),
        actor="other",
    ),
    Event(
        "time_together", ("minutes",), "team_minutes", nothing, ("u+v",),
        ("{U} and {A} [added|add|add] up their working time.",),
        (("How many minutes [did|do|do] {U} and {A} work altogether?",),),
        (("Altogether, {U} and {A} [worked|work|work] for {e1} minutes.",),),
        actor="both",
    ),
    Event(
        "planned_time", ("minutes", "team_minutes"), "spare_minutes", above(10, 12), ("k-v",),
        (
            "{s} had planned {k} minutes of work in all.",
            "{s} had set aside {k} minutes for this.",
        ),
        (("How many minutes of the planned time [were|are|are] left?",),),
        (("Of the planned time, {e1} minutes [were|are|are] left.",),),
        last=True,
    ),
    Event(
        "to_hours", ("minutes", "team_minutes"), "hours",
        lambda r, v: {} if v % 60 == 0 and v >= 120 else None, ("v/60",),
        ("",),
        (("How many hours of work [was|is|is] that?",),),
        (("That [was|is|is] {e1} hours of work.",),),
    ),
    Event(
        "paid", ("hours",), "funds", ints(k=(8, 30)), ("v*k",),
        (
            "{s} [was|is|are] paid {$k} per hour for this.",
            "For this, {s} [got|gets|get] {$k} an hour.",
        ),
        (("How much money [did|does|do] {s} get for these hours?",),),
        (("For these hours, {s} [got|gets|get] {d1}.",),),
    ),
)  # fmt: skip
