"""The ``socratic`` planner: the sub-questions of a problem, without their values, are its plan."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.wording import tidy, without_numbers


class SocraticPlanner:
    """Plans from :attr:`Problem.subquestions` (GSM8K ``socratic``, embedded problems)."""

    name = "socratic"

    def plan(self, problems: Sequence[Problem]) -> list[str]:
        """One plan a problem: its sub-questions in order, free of digits and number words.

        Raises:
            UserError: a problem has no sub-questions.
        """
        return [_plan(problem) for problem in problems]


def clean_subquestion(text: str) -> str:
    """One sub-question as a sentence of the plan; "" if nothing is left of it.

    ``"how much do the 3 friends pay ?"`` becomes ``"How much do the friends pay?"``.
    """
    text = tidy(without_numbers(re.sub(r"\s+", " ", text)))
    text = text.strip(" .,;:-*")
    if not text.strip("?! "):
        return ""
    text = text[0].upper() + text[1:]
    return text if text.endswith(("?", "!")) else text + "."


def _plan(problem: Problem) -> str:
    if not problem.subquestions:
        raise UserError(
            f"problem {problem.id} has no sub-questions, which --planner socratic is made of; "
            "use --dataset gsm8k (its socratic file) or --dataset embedded, or --planner rules"
        )
    sentences = [clean_subquestion(text) for text in problem.subquestions]
    # A sub-question asked twice in a row ("Simplify") says nothing new the second time.
    kept = [s for i, s in enumerate(sentences) if s and (i == 0 or s != sentences[i - 1])]
    return " ".join(kept)
