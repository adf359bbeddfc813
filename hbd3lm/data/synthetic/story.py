"""The abstract problem: a chain of events with their numbers, no word chosen yet."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from hbd3lm.data.synthetic.chance import Chance
from hbd3lm.data.synthetic.events import MONEY_KINDS, Event, Number, Numbers
from hbd3lm.data.synthetic.openings import OPENINGS
from hbd3lm.data.synthetic.sequels import SEQUELS

LARGEST = 5000  # results stay in the range of grade-school problems
TEST_SHARE = 5  # one abstract problem in so many belongs to the test split


@dataclass(frozen=True, slots=True)
class Calculation:
    """One step: ``operands[0] operators[0] operands[1] ... = result``."""

    operands: tuple[Number, ...]
    operators: tuple[str, ...]
    result: Number


@dataclass(frozen=True, slots=True)
class Scene:
    """An event with the numbers drawn for it and its one or two calculations."""

    event: Event
    numbers: Numbers
    calculations: tuple[Calculation, ...]


Story = list[Scene]


def draw_story(chance: Chance, steps: int) -> Story | None:
    """A chain of events with ``steps`` calculations in all, or None if it ran into a dead end."""
    story: Story = []
    value: Number = 0
    kind = previous = ""
    rival: Number | None = None  # what the person compared with has, while that holds
    met_as_two = compared = False
    remaining = steps
    while remaining:
        used = {scene.event.name for scene in story}
        options = [
            event
            for event in _followers(kind)
            if event.name not in used
            and len(event.steps) <= remaining
            and (not event.last or len(event.steps) == remaining)
            and (not event.after or previous in event.after)
            and (event.actor != "both" or (rival is not None and not met_as_two))
            and not (compared and event.actor == "other" and event.gives == kind)
        ]
        scene = None
        while options and scene is None:
            event = options.pop(chance.int(0, len(options) - 1))
            scene = _draw_scene(chance, event, value, rival)
        if scene is None:
            return None
        event = scene.event
        story.append(scene)
        if event.rival:
            rival = scene.numbers[event.rival]
        elif event.actor == "other" and event.gives == kind:
            rival = value
        elif event.gives != kind or event.thing != "same" or event.actor != "same":
            rival = None
        # "Mia has twice as many as Tom. Ann has half as many as Mia." is a riddle: not in a row.
        compared = bool(event.rival) or (event.actor == "other" and event.gives == kind)
        met_as_two = met_as_two or event.actor == "both"
        value, kind, previous = scene.calculations[-1].result, event.gives, event.name
        remaining -= len(event.steps)
    return story


def is_test(story: Story) -> bool:
    """Whether the abstract problem belongs to the test split.

    Decided by a hash of events and numbers alone, so the two splits share no problem whatever the
    seeds, names and wordings.
    """
    return hashlib.sha256(signature(story).encode("ascii")).digest()[0] % TEST_SHARE == 0


def signature(story: Story) -> str:
    """Events and numbers as one line of text, e.g. ``boxes k=3 m=12; loss k=7``."""
    return "; ".join(
        " ".join([scene.event.name, *(f"{n}={x}" for n, x in sorted(scene.numbers.items()))])
        for scene in story
    )


@cache
def _followers(kind: str) -> tuple[Event, ...]:
    return tuple(event for event in SEQUELS if kind in event.needs) if kind else OPENINGS


def _draw_scene(chance: Chance, event: Event, value: Number, rival: Number | None) -> Scene | None:
    """The event with numbers that suit ``value``; None if no numbers or no fit result do."""
    numbers = event.draw(chance, value)
    if numbers is None:
        return None
    known = {"v": value, **numbers}
    if rival is not None:
        known["u"] = rival
    calculations = []
    for step in event.steps:
        calculation = _calculate(_tokens(step), known)
        if not _fits(calculation.result, event.gives):
            return None
        calculations.append(calculation)
        known["r1"] = calculation.result
    return Scene(event, numbers, tuple(calculations))


@cache
def _tokens(step: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]\w*|\d+|[-+*/]", step))


def _calculate(tokens: tuple[str, ...], known: Numbers) -> Calculation:
    """Evaluate left to right (no step mixes sums with products); ``* 1`` is not written."""

    def number(token: str) -> Number:
        return int(token) if token.isdigit() else known[token]

    result = number(tokens[0])
    operands, operators = [result], []
    for operator, token in zip(tokens[1::2], tokens[2::2]):
        operand = number(token)
        if operator == "*":
            if operand == 1:
                continue
            result *= operand
        elif operator == "/":
            result = Fraction(result) / operand
        elif operator == "+":
            result += operand
        else:
            result -= operand
        operands.append(operand)
        operators.append(operator)
    if result.denominator == 1:
        result = int(result)  # plain integers are ten times faster
    return Calculation(tuple(operands), tuple(operators), result)


def _fits(result: Number, kind: str) -> bool:
    """Counts are whole and plural (2 and more), money is whole cents and at least a dollar."""
    if kind in MONEY_KINDS:
        return 1 <= result <= LARGEST and 100 % result.denominator == 0
    return 2 <= result <= LARGEST and result.denominator == 1
