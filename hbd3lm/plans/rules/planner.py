"""The ``rules`` planner: a plan from the solution of a problem, else from its question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from hbd3lm.data.records import Problem
from hbd3lm.plans.rules.question import plan_from_question
from hbd3lm.plans.rules.sentences import tell_plan
from hbd3lm.plans.rules.steps import read_steps

# Characters of a question or a solution that are read (the longest of GSM8K has 1,228), and steps
# told: the time grows faster than the text.
MAX_CHARACTERS, MAX_STEPS = 20_000, 100


class RulesPlanner:
    """Plans from annotated solutions, without a language model.

    Attributes:
        name: ``"rules"``.
        sources: how many plans so far were read off ``annotations`` (GSM8K's ``<<...>>``), plain
            ``equations``, the ``lines`` of a solution without any, or the ``question`` alone.
    """

    name = "rules"

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()

    def plan(self, problems: Sequence[Problem]) -> list[str]:
        """One plan a problem, free of digits and spelled-out numbers."""
        plans = []
        for problem in problems:
            plan, source = plan_problem(problem)
            plans.append(plan)
            self.sources[source] += 1
        return plans


def plan_problem(problem: Problem) -> tuple[str, str]:
    """The plan of one problem and what it was read off (see :attr:`RulesPlanner.sources`).

    Of an overlong question or solution the first ``MAX_CHARACTERS`` and ``MAX_STEPS`` are read.
    """
    problem = replace(
        problem,
        question=problem.question[:MAX_CHARACTERS],
        solution=problem.solution[:MAX_CHARACTERS],
    )
    steps = read_steps(problem.solution)[:MAX_STEPS]
    if not steps:
        return plan_from_question(problem.question), "question"
    plan = tell_plan(steps, problem)
    if any(step.expression is not None for step in steps):
        return plan, "annotations" if "<<" in problem.solution else "equations"
    return plan, "lines"
