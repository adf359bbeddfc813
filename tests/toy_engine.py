"""A scripted language model: answers are a function of the request, their order is scrambled.

Without torch, so that the kill tests can start it in a subprocess again and again. Run as a
program it is one run of plan generation::

    toy_engine.py OUTPUT TRACE PROBLEMS [SHARD]
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hbd3lm.data.records import Problem
from hbd3lm.errors import run_command
from hbd3lm.plans.ask import Recipe
from hbd3lm.plans.engines.engine import Completion, Request
from hbd3lm.plans.prompt import load_prompt

GOOD = "Add the given amounts of both days. Then subtract what was given away to find the rest."
BAD = {
    "numbers": "Add 3 and 4 of the given amounts to find how many there are in all.",
    "empty": "",
    "too_short": "Just add them.",
    "too_long": "Add the given amounts. " * 40,
}


def toy_problems(count: int) -> list[Problem]:
    """``p0``, ``p1``, ...: answers 900, 901, ..., which no scripted plan holds."""
    return [
        Problem(
            f"p{i}",
            f"Ann has {800 + i} hats and gets 100 more {{solution}}. How many has she?",
            f"Ann now owns all of {800 + i}+100=<<{800 + i}+100={900 + i}>>{900 + i} hats "
            f"in her big old house.\n#### {900 + i}",
            str(900 + i),
        )
        for i in range(count)
    ]


def scripted(request: Request) -> str:
    """Four in ten answers bad, by the request's own seed."""
    rng = random.Random(request.seed)
    return rng.choice(list(BAD.values())) if rng.random() < 0.4 else f"{GOOD[:-1]} of it."


class ToyEngine:
    """Answers with ``script(request)``, a random few of those in flight at a time.

    Args:
        script: the answer's text, or a whole completion.
        trace: file that gets the key of every submitted request.
        seconds: that every poll takes.
        model: what :meth:`describe` says.
    """

    name = "toy"
    constrained = False

    def __init__(
        self,
        script: Callable[[Request], str | Completion] = scripted,
        trace: Path | None = None,
        seconds: float = 0.0,
        seed: int = 0,
        model: str = "toy-1",
    ) -> None:
        self.script, self.trace, self.seconds, self.model = script, trace, seconds, model
        self.asked: list[Request] = []
        self.flying: dict[str, Request] = {}
        self.most_in_flight = 0
        self.closed = False
        self._random = random.Random(seed)

    def submit(self, request: Request) -> None:
        assert request.key not in self.flying
        self.asked.append(request)
        self.flying[request.key] = request
        self.most_in_flight = max(self.most_in_flight, len(self.flying))

    def poll(self) -> list[Completion]:
        time.sleep(self.seconds)
        keys = self._random.sample(
            sorted(self.flying), self._random.randint(1, min(5, len(self.flying)))
        )
        return [self._answer(self.flying.pop(key)) for key in keys]

    def _answer(self, request: Request) -> Completion:
        if self.trace is not None:  # one write a line: whole, whatever happens to us
            handle = os.open(self.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(handle, f"{request.key}\n".encode())
            os.close(handle)
        answer = self.script(request)
        if isinstance(answer, Completion):
            return answer
        return Completion(request.key, answer, True, 100, len(answer.split()))

    def describe(self) -> dict[str, object]:
        return {"engine": "toy", "model": self.model, "revision": None}

    def close(self) -> None:
        self.closed = True


def toy_recipe(**changes) -> Recipe:
    return Recipe(**{"prompt": load_prompt(), **changes})


def main(arguments: list[str]) -> int:
    from hbd3lm.plans.generate import generate_plans, problems_digest
    from hbd3lm.plans.shards import Shard

    output, trace, count, *shard = arguments
    problems = toy_problems(int(count))
    about = {
        "problems": {"sha256": problems_digest(problems), "origin": "toys"},
        "shard": shard[0] if shard else None,
    }
    path = Path(output)
    if shard:
        path, problems = Shard.parse(shard[0]).path(path), Shard.parse(shard[0]).take(problems)
    engine = ToyEngine(trace=Path(trace), seconds=0.002, seed=os.getpid())
    generate_plans(
        problems, lambda: engine, path, recipe=toy_recipe(), about=about, batch_size=8,
        progress=False, say=print,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
