"""Embedded problems with small numbers: what a small model learns in minutes on a laptop.

The generator's own test split holds number combinations that no training problem has, which
measures arithmetic as such. Here both splits are drawn from the same problems, each question once:
the held-out ones are new questions about calculations that training has shown, so that what
differs between methods is how well they read and plan.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction

from hbd3lm.data.annotations import find_annotations
from hbd3lm.data.records import Problem
from hbd3lm.data.synthetic.generate import MOST, generate_problems
from hbd3lm.errors import UserError

_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")


@functools.lru_cache(maxsize=2)  # drawn once for both splits: rare kinds take minutes
def laboratory_problems(
    train: int,
    test: int,
    seed: int = 0,
    min_steps: int = 1,
    max_steps: int = 1,
    largest_number: int = 20,
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """So many training and held-out problems, no question twice.

    Args:
        seed: of the generator.
        min_steps, max_steps: calculations of a solution.
        largest_number: no calculation has a larger number in it, result included.

    Raises:
        UserError: counts below 1, steps out of the generator's bounds, or so few problems of the
            kind that not enough are found.
    """
    count = train + test
    if train < 1 or test < 1:
        raise UserError(
            f"laboratory problems: {train} for training and {test} held out were asked for; at "
            "least 1 of each is needed"
        )
    if count > MOST:
        raise UserError(
            f"laboratory problems: {count:,} were asked for; at most {MOST:,} are drawn"
        )
    drawn = min(MOST, 20 * count)
    while True:
        small = {
            problem.question: problem
            for problem in generate_problems("train", drawn, seed, min_steps, max_steps)
            if largest_in_solution(problem) <= largest_number
        }
        if len(small) >= count:
            problems = tuple(small.values())
            return problems[:train], problems[train:count]
        if drawn >= MOST:
            raise UserError(
                f"laboratory problems: only {len(small)} of {drawn} generated problems have "
                f"{min_steps} to {max_steps} calculations with numbers up to {largest_number}, "
                f"{count} were asked for; raise the largest number, or ask for fewer"
            )
        # The first problems are the same however many are drawn.
        drawn = min(MOST, 2 * drawn)


def largest_in_solution(problem: Problem) -> Fraction:
    """The largest number in the calculations of a solution, results included."""
    return max(
        Fraction(number)
        for annotation in find_annotations(problem.solution)
        for number in _NUMBER.findall(f"{annotation.expression} {annotation.result}")
    )
