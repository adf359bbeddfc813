"""Finding a planner or an engine by name, and checking its options before it is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hbd3lm.errors import UserError


def build_by_name(kind: str, registry: Mapping[str, str], name: str, options: dict) -> Any:
    """The ``kind`` ("planner", "engine") called ``name``, built with its constructor's keywords.

    Args:
        registry: name -> ``"module:class"``; the module is imported when asked for, so that
            heavy ones cost nothing before.

    Raises:
        UserError: no such name, an option it does not have, or a missing one.
    """
    if name not in registry:
        raise UserError(f"--planner: there is no {name!r}; choose from {', '.join(registry)}")
    module, _, attribute = registry[name].partition(":")
    constructor = getattr(import_module(module), attribute)
    _check_options(f"{kind} {name!r}", inspect.signature(constructor).parameters, options)
    return constructor(**options)


def _check_options(
    what: str, parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Any]
) -> None:
    known = ", ".join(parameters) or "none"
    for option in options:
        if option not in parameters:
            raise UserError(f"{what} has no option {option!r}; its options: {known}")
    for option, parameter in parameters.items():
        if parameter.default is parameter.empty and option not in options:
            raise UserError(f"{what} needs the option {option!r}")
