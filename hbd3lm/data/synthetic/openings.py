"""The events that open a problem."""

from __future__ import annotations

from hbd3lm.data.synthetic.draws import PRICES, fraction_start, ints, percent_start, share_of_total
from hbd3lm.data.synthetic.events import Event
from hbd3lm.data.synthetic.texts import HAVE_ALL
from hbd3lm.data.synthetic.words import TIMES

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
