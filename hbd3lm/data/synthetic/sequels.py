"""The events that can follow, by the kind of quantity they need."""

from __future__ import annotations

from hbd3lm.data.synthetic.draws import (
    PRICES,
    above,
    affordable,
    below,
    divisor,
    fraction,
    groups_within,
    ints,
    nothing,
    part,
    percent,
    price,
    small_percent,
    times,
)
from hbd3lm.data.synthetic.events import Event
from hbd3lm.data.synthetic.texts import (
    B_HAS,
    B_SOLVED,
    CALM_ITEMS,
    COST_NOW,
    HAVE_LEFT,
    HAVE_NOW,
    ITEMS,
    LEFT_SOLVED,
    LEFT_SOLVED_2,
    MONEY_LEFT,
    MONEY_LEFT_SOLVED,
    MONEY_LEFT_SOLVED_2,
    MONEY_NOW,
    MONEY_NOW_SOLVED,
    NOW_SOLVED,
    NOW_SOLVED_2,
)

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
