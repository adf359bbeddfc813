"""Asking a language model for plans, and again where a plan is not good: the loop above an engine.

At most so many requests are in flight as were allowed. What is asked, with which temperature and
seed, is a function of (recipe, problem, earlier attempts at it) alone: neither the order in which
answers come nor an interruption changes a plan.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Engine, Request
from hbd3lm.plans.journal import Attempt
from hbd3lm.plans.judge import Limits, badness, judge
from hbd3lm.plans.prompt import Prompt, clean_plan

HOTTER = 0.15
"""How much temperature a round of repair adds, ..."""
HOTTEST = 1.3
"""... up to here (or to the temperature asked for, if that is higher)."""
_HOPELESS = 20  # so many errors in a row: the engine is at fault, not a problem


@dataclass(frozen=True)
class Recipe:
    """How plans are asked for and what is accepted.

    Raises:
        UserError: a value out of range, by the name of its flag.
    """

    prompt: Prompt
    limits: Limits = field(default_factory=Limits)
    temperature: float = 0.7
    """Of the first attempt; 0 is greedy."""
    top_p: float = 0.9
    """Nucleus, in (0, 1]."""
    max_tokens: int = 256
    """Longest answer, in tokens of the model."""
    seed: int = 0
    max_retries: int = 3
    """Rounds of repair after the first attempt."""

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature}: 0 (greedy) or more is needed")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p {self.top_p}: more than 0 and at most 1 is needed")
        if self.max_tokens < 1:
            raise UserError(f"--max_tokens {self.max_tokens}: at least 1 is needed")
        if self.max_retries < 0:
            raise UserError(f"--max_retries {self.max_retries}: 0 or more is needed")

    def settings(self) -> dict[str, Any]:
        """What decides the plans, flat, for journal and manifest."""
        return {
            "prompt": self.prompt.name,
            "prompt_sha256": self.prompt.digest,
            "shows_solution": self.prompt.shows_solution,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
            "max_retries": self.max_retries,
            **asdict(self.limits),
        }

    def faults(self, problem: Problem, attempt: Attempt) -> tuple[str, ...]:
        """What is wrong with an attempt; nothing: it is good."""
        plan = clean_plan(attempt.text)
        return judge(
            plan,
            problem,
            self.limits,
            attempt.finished,
            attempt.error,
            self.prompt.instructions,
        )

    def is_done(self, problem: Problem, attempts: Sequence[Attempt]) -> bool:
        """Whether nothing more is asked: a good plan, or no retries left."""
        if not attempts:
            return False
        return len(attempts) > self.max_retries or not self.faults(problem, attempts[-1])

    def best(self, problem: Problem, attempts: Sequence[Attempt]) -> Attempt:
        """The least bad attempt, the earliest of equals."""

        def rank(attempt: Attempt) -> tuple[int, ...]:
            return badness(clean_plan(attempt.text), self.faults(problem, attempt))

        return min(attempts, key=rank)

    def request(self, problem: Problem, attempts: Sequence[Attempt]) -> Request:
        """What to ask after ``attempts``."""
        number = len(attempts)
        faults = self.faults(problem, attempts[-1]) if attempts else ()
        hottest = max(HOTTEST, self.temperature)
        return Request(
            key=f"{problem.id}#{number}",
            messages=self.prompt.messages(problem, number, faults),
            temperature=round(min(self.temperature + HOTTER * number, hottest), 6),
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=request_seed(self.seed, problem.id, number),
        )


def request_seed(seed: int, problem_id: str, number: int) -> int:
    """31 bits that depend on nothing but the run's seed, the problem and the attempt."""
    digest = hashlib.sha256(f"{seed}/{number}/{problem_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def ask_for_plans(
    engine: Engine,
    recipe: Recipe,
    problems: Sequence[Problem],
    attempts: Mapping[str, Sequence[Attempt]],
    in_flight: int,
) -> Iterator[Attempt]:
    """Ask until every problem is done; yields each attempt as it ends.

    Errors are yielded once an answer after them has shown that the engine still works, or when all
    is done: what a dying server did not answer uses up no attempt and is asked again as it was.

    Args:
        engine: what answers.
        recipe: what is asked and accepted.
        problems: with unique ids.
        attempts: before this call, by problem id.
        in_flight: most requests submitted and not yet answered.

    Raises:
        UserError: the engine cannot go on, or answers nothing but errors.
    """
    series = {problem.id: list(attempts.get(problem.id, ())) for problem in problems}
    any_answer = any(attempt.error is None for tried in series.values() for attempt in tried)
    held: list[Attempt] = []  # errors since the last answer
    flying: dict[str, tuple[Problem, Request]] = {}
    waiting = deque(
        problem for problem in problems if not recipe.is_done(problem, series[problem.id])
    )
    while waiting or flying:
        while waiting and len(flying) < in_flight:
            problem = waiting.popleft()
            request = recipe.request(problem, series[problem.id])
            engine.submit(request)
            flying[request.key] = (problem, request)
        completions = engine.poll()
        if not completions:
            raise RuntimeError(f"engine {engine.name}: nothing came, {len(flying)} asked")
        for completion in completions:
            problem, request = flying.pop(completion.key)
            tried = series[problem.id]
            attempt = _attempt(problem, request, completion, len(tried))
            tried.append(attempt)
            if not recipe.is_done(problem, tried):
                waiting.appendleft(problem)  # before new problems: what is begun is finished first
            held.append(attempt)
            if attempt.error is None:
                any_answer = True
                yield from held
                held.clear()
            elif len(held) >= _HOPELESS or not (any_answer or waiting or flying):
                raise UserError(
                    f"engine {engine.name}: none of the last {len(held)} requests was answered; "
                    f"{attempt.error}; mend that, or choose another --planner"
                )
    yield from held


def _attempt(problem: Problem, request: Request, completion: Completion, number: int) -> Attempt:
    return Attempt(
        id=problem.id,
        number=number,
        text=completion.text,
        finished=completion.finished,
        error=completion.error,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        seed=request.seed,
        temperature=request.temperature,
    )
