"""What can be answered without understanding: the accuracy a model must beat.

Three guessers, each as good as such a guesser gets; the best of them is the chance accuracy.
"""

from __future__ import annotations

import itertools
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from hbd3lm.errors import UserError
from hbd3lm.plans.numbers import (
    cardinal_value,
    find_numbers,
    find_spelled_numbers,
    number_value,
)

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample

_OPERATIONS = (operator.add, operator.sub, operator.mul, operator.truediv)


@dataclass(frozen=True)
class ChanceAccuracy:
    """Accuracies of guessing on one set of problems, each from 0 to 1.

    Attributes:
        problems: how many were scored.
        frequent_answer: the most frequent answer of the training problems.
        frequent: accuracy of always giving it.
        number: expected accuracy of giving one of the question's numbers, drawn at random.
        operation: expected accuracy of one operation, drawn at random, on two of them.
    """

    problems: int
    frequent_answer: str
    frequent: float
    number: float
    operation: float

    @property
    def best(self) -> float:
        """The accuracy of the best guesser."""
        return max(self.frequent, self.number, self.operation)

    def rows(self) -> list[tuple[str, float]]:
        """What each guesser does, and its accuracy."""
        return [
            (f"always the most frequent training answer ({self.frequent_answer})", self.frequent),
            ("a number of the question, drawn at random", self.number),
            ("one random operation on two numbers of the question", self.operation),
        ]

    def to_dict(self) -> dict:
        """JSON-ready, ``best`` included."""
        return {**asdict(self), "best": self.best}


def chance_accuracy(
    train: Sequence[HierarchicalExample], test: Sequence[HierarchicalExample]
) -> ChanceAccuracy:
    """How often guessing answers ``test`` rightly, for a guesser that has seen ``train``.

    Numbers of a question are those in digits and in words ("twelve"), each as often as it
    stands there. The operations are a + b, a - b, a * b and a / b for two different places in
    the question with a >= b: a guesser knows that answers are rarely negative. Expected values
    are exact, nothing is drawn.

    Raises:
        UserError: no problems, or an answer that is not a number.
    """
    if not train or not test:
        raise UserError("chance accuracy: training and test problems are needed")
    answers = [_value(example) for example in test]
    counts = Counter(_value(example) for example in train)
    # Of equally frequent answers the smallest, so that the result does not depend on the order.
    frequent = min(counts, key=lambda value: (-counts[value], value))
    numbers = [question_numbers(example.question) for example in test]
    total = len(test)
    return ChanceAccuracy(
        problems=total,
        frequent_answer=f"{float(frequent):g}",
        frequent=answers.count(frequent) / total,
        number=sum(map(_share, answers, numbers)) / total,
        operation=sum(map(_share, answers, map(_results, numbers))) / total,
    )


def question_numbers(question: str) -> list[Fraction]:
    """The values of the numbers in ``question``: those in digits, then those in words."""
    spelled = (cardinal_value(phrase) for phrase in find_spelled_numbers(question))
    return [
        *(number_value(number) for number in find_numbers(question)),
        *(Fraction(value) for value in spelled if value is not None),
    ]


def _value(example: HierarchicalExample) -> Fraction:
    try:
        return Fraction(example.answer_numerical.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        raise UserError(
            f"chance accuracy: the answer of {example.id} is {example.answer_numerical!r}, "
            "not a number"
        ) from None


def _results(numbers: list[Fraction]) -> list[Fraction]:
    """All results of one operation on two of ``numbers``, the larger first."""
    pairs = [(max(pair), min(pair)) for pair in itertools.combinations(numbers, 2)]
    return [
        operation(a, b)
        for a, b in pairs
        for operation in _OPERATIONS
        if b or operation is not operator.truediv
    ]


def _share(answer: Fraction, guesses: list[Fraction]) -> float:
    """The probability that one of ``guesses``, drawn at random, is right; 0 if there are none."""
    return guesses.count(answer) / len(guesses) if guesses else 0.0
