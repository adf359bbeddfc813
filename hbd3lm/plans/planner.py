"""What a planner is, and how one is found by name.

A planner turns problems into plans by itself, without a language model (those are engines,
:mod:`hbd3lm.plans.engines`), and does nothing else; batching, resuming and writing records sit
above it (:mod:`hbd3lm.plans.generate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from hbd3lm.data.records import Problem
from hbd3lm.plans.registry import build_by_name


@runtime_checkable
class Planner(Protocol):
    """Writes one plan a problem."""

    name: str

    def plan(self, problems: Sequence[Problem]) -> list[str]:
        """One plan a problem, in the same order.

        Raises:
            UserError: a problem lacks what this planner needs; the message names it.
        """
        ...


# name -> "module:class"; imported when asked for.
_REGISTRY: dict[str, str] = {
    "rules": "hbd3lm.plans.rules.planner:RulesPlanner",
    "socratic": "hbd3lm.plans.socratic:SocraticPlanner",
}

PLANNERS: tuple[str, ...] = tuple(_REGISTRY)


def load_planner(name: str, **options: Any) -> Planner:
    """The planner called ``name``, built with ``options`` (its constructor's keywords).

    Raises:
        UserError: no such planner, an option it does not have, or a missing one.
    """
    return build_by_name("planner", _REGISTRY, name, options)
