"""The settings of a step: composed as ``main.py`` would, once for all that ask."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration ``main.py`` would run with.

    Raises:
        UserError: an unknown key or value.
    """
    return copy.deepcopy(_compose(tuple(overrides)))


@lru_cache(maxsize=512)
def _compose(overrides: tuple[str, ...]) -> DictConfig:
    """Composing takes 0.1 s, and every step of every run asks for it."""
    from hbd3lm.commands.compose import compose_settings

    return compose_settings(list(overrides))


def of_one_data_set(settings: list[str]) -> list[str]:
    """``settings`` less those of data that the data set named last does not know.

    A model that has learned laboratory problems (``data.max_steps=2``) may be evaluated on others.
    """
    names = [o for o in settings if o.startswith("data=")]
    if len(set(names)) < 2:
        return settings
    known = compose(names[-1:]).data
    return [o for o in settings if not o.startswith("data.") or o[5:].partition("=")[0] in known]


def plain(group: DictConfig) -> dict[str, Any]:
    """A group of the configuration as plain values, references resolved."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(group, resolve=True)
