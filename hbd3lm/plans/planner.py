"""What a planner is, and how one is found by name.

A planner turns problems into plans and nothing else. The prompt and the cleaning of a language
model's answer belong to the planner that needs them; batching, resuming and writing records sit
above it (:mod:`hbd3lm.plans.generate`) and know no backend.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol, runtime_checkable

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError


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


# name -> "module:class"; imported when asked for, so that heavy engines cost nothing here.
_REGISTRY: dict[str, str] = {
    "rules": "hbd3lm.plans.rules:RulesPlanner",
    "socratic": "hbd3lm.plans.socratic:SocraticPlanner",
}

PLANNERS: tuple[str, ...] = tuple(_REGISTRY)


def load_planner(name: str, **options: Any) -> Planner:
    """The planner called ``name``, built with ``options`` (its constructor's keywords).

    Raises:
        UserError: no such planner, an option it does not have, a missing one, or an engine that
            is not installed.
    """
    if name not in _REGISTRY:
        raise UserError(f"--planner: there is no {name!r}; choose from {', '.join(PLANNERS)}")
    module, _, attribute = _REGISTRY[name].partition(":")
    planner: Callable[..., Planner] = getattr(import_module(module), attribute)
    _check_options(name, inspect.signature(planner).parameters, options)
    return planner(**options)


def _check_options(
    name: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    known = ", ".join(parameters) or "none"
    for option in options:
        if option not in parameters:
            raise UserError(f"planner {name!r} has no option {option!r}; its options: {known}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"planner {name!r} needs the option {option!r}")
