"""What an operand is called: by where its value comes from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from hbd3lm.data.records import Problem
from hbd3lm.plans.rules.expressions import Number
from hbd3lm.plans.rules.givens import Given, read_givens
from hbd3lm.plans.rules.steps import Step

# What everybody knows: value, name, and the words of which both sides must be talked about.
_KNOWN = [
    (60, "the minutes in an hour", r"minute", r"hour"),
    (60, "the seconds in a minute", r"second", r"minute"),
    (24, "the hours in a day", r"hour", r"day|daily|night"),
    (7, "the days in a week", r"", r"week"),
    (52, "the weeks in a year", r"week", r"year|annual"),
    (12, "the months in a year", r"month", r"year|annual"),
    (365, "the days in a year", r"day|daily|dog", r"year|annual"),
    (4, "the weeks in a month", r"week", r"month"),
    (30, "the days in a month", r"day|daily|week", r"month|june|april|september|november"),
    (31, "the days in a month", r"day|daily|week", r"month|january|march|may|july|august|october"),
    (10, "the years in a decade", r"year", r"decade"),
    (100, "the years in a century", r"year", r"centur"),
    (100, "the cents in a dollar", r"cent\b|cents|penn|quarter|dime|nickel", r"\$|dollar"),
    (12, "the inches in a foot", r"inch", r"f[oe]{2}t"),
    (3, "the feet in a yard", r"f[oe]{2}t", r"yard"),
    (16, "the ounces in a pound", r"ounce", r"pound"),
    (1000, "the grams in a kilogram", r"gram|\bg\b", r"kilogram|kg"),
    (1000, "the meters in a kilometer", r"meter", r"kilometer|km"),
    (1000, "the milliliters in a liter", r"ml|milliliter", r"liter"),
    (100, "the centimeters in a meter", r"cm|centimeter", r"meter"),
    (12, "the size of a pack", r"dozen", r""),
    (4, "the quarts in a gallon", r"quart", r"gallon"),
    (25, "the value of a coin", r"quarter", r""),
    (10, "the value of a coin", r"dime", r""),
    (5, "the value of a coin", r"nickel", r""),
    (4, "the legs of each animal", r"legs|feet|paws|hooves", r""),
    (4, "the sides of the shape", r"square|perimeter|sides|rect", r""),
]
_KNOWN = [
    (Fraction(value), name, re.compile(small, re.I), re.compile(large, re.I))
    for value, name, small, large in _KNOWN
]


class Names:
    """Names operands while the steps of one problem are told in order."""

    def __init__(self, problem: Problem, steps: Sequence[Step], terse: bool) -> None:
        self.givens = read_givens(problem.question)
        self.text = problem.question + "\n" + problem.solution
        self.steps = steps
        self.now = 0
        self.terse = terse
        self.used: set[int] = set()

    def number(self, number: Number, divides: bool = False) -> str:
        """The name of one operand of the current step."""
        value = number.value
        earlier = [
            index for index in reversed(range(self.now)) if self.steps[index].result == value
        ]
        fresh = [index for index in earlier if index not in self.used]
        given = self._given(number, divides)
        if earlier and given and given.kind == "percent":
            given = None
        if given and (not given.used and value <= 3 and self.now - 1 not in fresh):
            return self._use(given)
        if fresh or (earlier and not given):
            index = (fresh or earlier)[0]
            self.used.add(index)
            return self._result(index)
        if given:
            return self._use(given)
        return self._known(value)

    def is_given(self, value: Fraction, kind: str) -> bool:
        """Whether the question states ``value`` as a ``kind`` (and no earlier step found it)."""
        return any(given.kind == kind and given.value == value for given in self.givens)

    def percentage(self, value: Fraction) -> bool:
        """Whether ``value`` (0.2) is a percentage the question states (20%)."""
        return any(g.kind == "percent" and g.value == 100 * value for g in self.givens)

    def _given(self, number: Number, divides: bool) -> Given | None:
        matches = [given for given in self.givens if self._matches(given, number, divides)]
        # The value as stated first, then one not used yet, then the order of the question.
        return min(matches, key=lambda g: (g.value != number.value, g.used), default=None)

    @staticmethod
    def _matches(given: Given, number: Number, divides: bool) -> bool:
        if given.kind == "percent":
            return number.value in (given.value, given.value / 100)
        if given.kind == "fraction" and divides and given.value.numerator == 1:
            return number.value in (given.value, 1 / given.value)
        return given.value == number.value

    def _use(self, given: Given) -> str:
        given.used = True
        if self.terse and given.kind == "number":
            return "the given amount"
        return given.name

    def _result(self, index: int) -> str:
        if index == self.now - 1:
            return "that" if self.terse else "the previous result"
        noun = self.steps[index].noun
        alone = [step.noun for step in self.steps[: self.now]].count(noun) == 1
        if noun and alone and len(noun.split()) <= 3 and not noun.startswith(("more", "fewer")):
            return f"the {noun} found earlier"
        return ("the first result", "the second result", "an earlier result")[min(index, 2)]

    def _known(self, value: Fraction) -> str:
        for known, name, small, large in _KNOWN:
            if value == known and small.search(self.text) and large.search(self.text):
                return name
        # "With three people, ..." where the question only names them.
        for given in read_givens(self.steps[self.now].line):
            if given.value == value and given.name not in ("the given amount", "the given price"):
                return (
                    given.name.replace("the given ", "the ")
                    if given.kind == "number"
                    else given.name
                )
        if value in (1, 100) and ("%" in self.text or "percent" in self.text or "/" in self.text):
            return "the whole"
        return "a known amount"
