"""What several events ask and solve in the same words."""

from __future__ import annotations

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
