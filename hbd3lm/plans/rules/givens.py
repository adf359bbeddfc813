"""The values a question states, with the names a plan gives them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from hbd3lm.plans.numbers import cardinal_value, find_spelled_numbers
from hbd3lm.plans.rules.figures import FIGURE, read_figure
from hbd3lm.plans.rules.phrases import CLAUSE_END, split_noun
from hbd3lm.plans.wording import drop_numbers, has_numbers, is_noun

_WINDOW = 1_000  # characters around a value that may name it: the time grows faster than the text


@dataclass
class Given:
    """A value the question states, with the name the plan gives it."""

    value: Fraction
    name: str
    kind: str = "number"  # number, percent, fraction or multiple
    used: bool = False


_RELATIONS = {
    "half": ("fraction", Fraction(1, 2)),
    "halves": ("fraction", Fraction(1, 2)),
    "third": ("fraction", Fraction(1, 3)),
    "thirds": ("fraction", Fraction(1, 3)),
    "quarter": ("fraction", Fraction(1, 4)),
    "fourth": ("fraction", Fraction(1, 4)),
    "fifth": ("fraction", Fraction(1, 5)),
    "twice": ("multiple", Fraction(2)),
    "double": ("multiple", Fraction(2)),
    "doubled": ("multiple", Fraction(2)),
    "doubles": ("multiple", Fraction(2)),
    "triple": ("multiple", Fraction(3)),
    "tripled": ("multiple", Fraction(3)),
    "thrice": ("multiple", Fraction(3)),
    "quadruple": ("multiple", Fraction(4)),
}
_QUANTITY = re.compile(
    rf"(?P<money>[$£€]\s?)?(?P<value>{FIGURE})(?P<percent>\s?%|[\s-]per\s?cent)?"
    rf"|\b(?P<relation>{'|'.join(_RELATIONS)})\b",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"^\s*(?:dollars?|cents?)?\s*"
    r"(?:(?:per|an?|every|for (?:each|every|an?)|for)\s+(?P<unit>[a-z]+)|(?P<each>each|apiece))\b"
)
_PRICED = re.compile(
    r"\b(?:an?|the|each|every|per|his|her)\s(?:[a-z]+\s)?([a-z]+)\s"
    r"(?:costs?|for|at|is|was|worth|costing|sells for)\s(?:only |just )?$"
)
_SPENT_ON = re.compile(r"^\s(on|from|in|for)\s(?:an?|the|his|her|their|some)?\s?([a-z]+)\b")
_PRICE = re.compile(
    r"\b(?:costs?|prices?|priced|sells?|sold|buys?|bought|charges?|charged|fee|tickets?)\b"
    r"[^.]{0,25}$",
    re.IGNORECASE,
)


def read_givens(question: str) -> list[Given]:
    """The values a question states, in figures or in words, in order, all unused."""
    return [replace(given) for given in _read_givens(question)]


@lru_cache(maxsize=64)
def _read_givens(question: str) -> list[Given]:
    text = _SPELLED_FRACTION.sub(_fraction_figure, question.replace("’", "'"))
    for word in sorted(set(find_spelled_numbers(text)), key=len, reverse=True):
        value = cardinal_value(word)
        if value is not None and "dozen" not in word.lower():
            text = re.sub(rf"\b{re.escape(word)}\b", str(value), text)
    givens = []
    for match in _QUANTITY.finditer(text):
        before = text[max(0, match.start() - _WINDOW) : match.start()]
        after = text[match.end() : match.end() + _WINDOW]
        if match["relation"]:
            kind, value = _RELATIONS[match["relation"].lower()]
            name = "the given fraction" if kind == "fraction" else "the given multiple"
            givens.append(Given(value, name, kind))
            continue
        value = read_figure(match["value"])
        if value is None:
            continue
        if match["percent"]:
            givens.append(Given(value, "the given percentage", "percent"))
        elif "/" in match["value"]:
            givens.append(Given(value, "the given fraction", "fraction"))
        elif match["money"]:
            givens.append(Given(value, _money_name(before, after)))
        elif re.match(r"[\s-]*times\b", after):
            givens.append(Given(value, "the given multiple", "multiple"))
        else:
            givens.append(Given(value, _count_name(after)))
    for given in givens:
        if has_numbers(given.name):  # "per dozen", "in quarters"
            given.name = "the given amount"
    return givens


_NUMERATORS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DENOMINATORS = "half|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
_SPELLED_FRACTION = re.compile(
    rf"\b({'|'.join(_NUMERATORS)})[- ](quarter|{_DENOMINATORS})s?\b", re.I
)


def _fraction_figure(match: re.Match[str]) -> str:
    part = match[2].lower().replace("quarter", "fourth")
    return f"{_NUMERATORS.index(match[1].lower()) + 1}/{_DENOMINATORS.split('|').index(part) + 2}"


def _money_name(before: str, after: str) -> str:
    rate = _RATE.match(after)
    if rate and rate["unit"] and is_noun(rate["unit"]):
        return f"the given amount per {rate['unit']}"
    if rate and rate["each"]:
        return "the given amount each"
    if (thing := _PRICED.search(before)) and is_noun(thing[1]):
        return f"the given {thing[1]} price"
    if _PRICE.search(before):
        return "the given price"
    if (purpose := _SPENT_ON.match(after)) and is_noun(purpose[2]):
        return f"the given amount {purpose[1]} {purpose[2]}"
    return "the given amount"


def _count_name(after: str) -> str:
    if re.match(r"[\s-]*years?[\s-]+old\b", after):
        return "the given age"
    after = re.sub(r"^\s*dozens?\b", " packs", after)
    after = re.sub(r"^(\s*[a-z]+)\s?/\s?(?=[a-z])", r"\1 per ", after)  # "elephants/hour"
    if re.match(r"\s*(?:more|fewer|less)\b", after):
        return "the given difference"
    after = re.sub(
        r"^\s*(?:different|other|of (?:the|his|her|their|its|those|these)|of)\s", " ", after
    )
    if compound := re.match(r"-([a-z]{3,})\b", after):  # "a 120-page book"
        unit = compound[1]
        return f"the given {unit if unit.endswith(('s', 'ed')) else unit + 's'}"
    noun, rest = split_noun(CLAUSE_END.split(after + " ", maxsplit=1)[0])
    noun = drop_numbers(noun)
    if not noun:
        return "the given amount"
    rate = re.match(r"^(?:per|an?|each|every)\s+([a-z]+)\b", rest)
    per = f" per {rate[1]}" if rate and is_noun(rate[1]) else ""
    return f"the given {noun}{per}"
