"""A plan of the steps of a solution: a sentence a step, and which of them is the answer."""

from __future__ import annotations

from collections.abc import Sequence

from hbd3lm.data.records import Problem
from hbd3lm.plans.rules.figures import read_figure
from hbd3lm.plans.rules.names import Names
from hbd3lm.plans.rules.operations import imperative
from hbd3lm.plans.rules.phrases import DANGLING
from hbd3lm.plans.rules.question import question_focus, to_answer
from hbd3lm.plans.rules.steps import Step
from hbd3lm.plans.wording import PREPOSITIONS, drop_numbers, has_numbers

MAX_WORDS = 90  # about 100 tokens; longer plans are told with fewer details:
# are operands named without what they count? from which word on may a purpose be cut off? (The
# last step keeps all of its own.) If that is not enough, the longest purposes are left out.
_DETAIL = ((False, 99), (False, 8), (True, 8), (True, 5))


def _actions(steps: Sequence[Step], problem: Problem, terse: bool) -> list[str]:
    """What to do in each step, as an imperative; "" where only the purpose is known."""
    names = Names(problem, steps, terse)
    actions = []
    for index, step in enumerate(steps):
        names.now = index
        told = imperative(step.expression, names) if step.expression else ""
        actions.append(step.sentence or told)
    return actions


def tell_plan(steps: Sequence[Step], problem: Problem) -> str:
    """The plan, in as much detail as :data:`MAX_WORDS` allows."""
    told: dict[bool, list[str]] = {}
    for terse, cut in _DETAIL:
        if terse not in told:
            told[terse] = _actions(steps, problem, terse)
        actions = told[terse]
        purposes = [_shorten(step.purpose, cut) if step.purpose else "" for step in steps[:-1]]
        purposes.append(steps[-1].purpose or "")
        plan = _compose(actions, purposes, steps, problem)
        if len(plan.split()) <= MAX_WORDS:
            return plan
    while len(plan.split()) > MAX_WORDS and any(purposes[:-1]):
        purposes[purposes.index(max(purposes[:-1], key=lambda text: len(text.split())))] = ""
        plan = _compose(actions, purposes, steps, problem)
    return plan


def _compose(
    actions: Sequence[str], purposes: Sequence[str], steps: Sequence[Step], problem: Problem
) -> str:
    answer = read_figure(problem.answer)
    final = next((i for i in reversed(range(len(steps))) if steps[i].result == answer), None)
    sentences = []
    for index, (action, purpose) in enumerate(zip(actions, purposes)):
        last = index == len(steps) - 1
        if not action:
            action = f"work out {purpose or 'the next amount'}"
        elif purpose:
            action += f" to find {'the answer: ' if last and final == index else ''}{purpose}"
        elif last and final == index:
            action += to_answer(problem.question)
        sentences.append(_ordered(action, index, len(steps)))
    if final is None:
        focus = question_focus(problem.question)
        sentences.append(f"Use the results to answer: {focus or 'the question.'}")
    elif final < len(steps) - 1:
        found = purposes[final] or steps[final].purpose
        sentences.append(f"The answer is {found}." if found else "An earlier result is the answer.")
    plan = " ".join(sentences)
    # Harmless parts can meet as a number ("a", "third of"): the promise is kept for the whole.
    return drop_numbers(plan) if has_numbers(plan) else plan


def _ordered(action: str, index: int, count: int) -> str:
    end = "" if action.endswith("?") else "."
    if count == 1:
        return action[0].upper() + action[1:] + end
    word = "First, " if index == 0 else "Finally, " if index == count - 1 else "Then "
    return word + action + end


def _shorten(purpose: str, limit: int) -> str:
    """``purpose`` without its last prepositional phrases if it has more than ``limit`` words."""
    words = purpose.split()
    cuts = [i for i in range(4, len(words)) if words[i].lower() in PREPOSITIONS - {"of"}]
    if len(words) <= limit or not cuts:
        return purpose
    kept = words[: max([i for i in cuts if i <= limit], default=cuts[0])]
    while kept[-1].lower() in DANGLING:
        kept.pop()
    shorter = " ".join(kept)
    # "from one of the banks" may have become "from one".
    return drop_numbers(shorter) if has_numbers(shorter) else shorter
