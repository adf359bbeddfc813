"""From overrides to a configuration; what does not fit is refused in words to act on."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hbd3lm.commands.overrides import quote
from hbd3lm.errors import UserError

CONFIGS = str(Path(__file__).resolve().parents[1] / "configs")


def check_overrides(overrides: list[str]) -> None:
    """Refuse, in words a user can act on, what :func:`compose_settings` refuses."""
    compose_settings(overrides)


def compose_settings(overrides: list[str]) -> DictConfig:
    """The configuration, with what does not fit refused in words a user can act on.

    Raises:
        UserError: an unknown key (with the nearest known one), group option or bad syntax.
    """
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        try:
            cfg = hydra.compose("config", overrides=overrides)
            OmegaConf.to_container(cfg, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(error, overrides)) from None
    refuse_contradictions(cfg, overrides)
    return cfg


def refuse_contradictions(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuse ``hierarchical.X`` beside another ``training.hierarchical.X`` (and ``block_size``
    beside another ``training.block_size``): one is the other's short name, and neither may win in
    silence.

    Args:
        cfg: what the overrides composed to.
        overrides: as on the command line.

    Raises:
        UserError: both are given, with different values.
    """
    given = {
        key: override.input_line
        for override in OverridesParser.create().parse_overrides(overrides)
        for key in _known_keys({override.key_or_group: override.value()})
    }
    for short in ("block_size", *(f"hierarchical.{name}" for name in cfg.hierarchical)):
        long = f"training.{short}"
        different = OmegaConf.select(cfg, short) != OmegaConf.select(cfg, long)
        if short in given and long in given and different:
            raise UserError(
                f"{given[short]} contradicts {given[long]}: {short} is the short name of {long}; "
                "give one of them"
            )


def settle_names(cfg: DictConfig) -> None:
    """Give the long name of a setting the value that its short name was given, and the other way.

    What a run saves, and compares when it goes on, must not depend on which name was typed.
    """
    cfg.training.hierarchical = OmegaConf.create(
        OmegaConf.to_container(cfg.hierarchical, resolve=True)
    )
    cfg.block_size = cfg.training.block_size


def options_of(group: str) -> list[str]:
    """The files a group offers, by name: ``model`` has ``nano``, ``tiny``, ...

    Empty for what is no group.
    """
    return sorted(path.stem for path in Path(CONFIGS, group).glob("*.yaml"))


def _explain(error: Exception, overrides: list[str]) -> str:
    groups = [path.name for path in Path(CONFIGS).iterdir() if path.is_dir()]
    # A key may belong to the option that was chosen of a group: data.max_steps to data=laboratory.
    chosen = [o for o in overrides for g, _, name in [o.partition("=")] if g in groups
              and name in options_of(g)]  # fmt: skip
    composed = hydra.compose("config", overrides=chosen)
    known = _known_keys(OmegaConf.to_container(composed, resolve=False))
    for override in overrides:
        key, separator, value = override.lstrip("+~").partition("=")
        if not separator:
            return f"{override!r} is no override; write KEY=VALUE, e.g. training.max_steps=1000"
        if reason := _grammar_error(override):
            text = value[1:-1] if len(value) > 1 and value[0] == value[-1] in "'\"" else value
            name = override[: len(override) - len(value)]
            return (
                f"{override} does not fit Hydra's grammar: {reason}; text with quotes, commas, "
                f"brackets and the like is written {shlex.quote(name + quote(text))}"
            )
        if key in groups:
            options = options_of(key)
            if value not in options:
                return f"{key}={value}: there is no such {key}; choose from {', '.join(options)}"
        elif key not in known:
            near = _nearest(key, value, [*known, *groups])
            tails = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
            hint = (tails or near)[:1]
            suggestion = f"; did you mean {hint[0]}?" if hint else ""
            return f"unknown key {key!r} in {override!r}{suggestion} (all keys: main.py --cfg job)"
    return " ".join(str(error).split())


def _grammar_error(override: str) -> str:
    """What Hydra's parser has against one override, in one line; nothing: it reads it."""
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        return str(error).splitlines()[0]
    return ""


def _nearest(key: str, value: str, known: list[str]) -> list[str]:
    """The known keys most like ``key``, the likeliest first.

    Likeness alone would take ``modle=nano`` for ``mode``, which shares as many letters in order as
    ``model`` but in a shorter word; a group that has such an option, or a key of the same letters,
    is what was meant.
    """

    def rank(name: str) -> tuple[bool, bool]:
        return Path(CONFIGS, name, f"{value}.yaml").is_file(), sorted(name) == sorted(key)

    near = difflib.get_close_matches(key, dict.fromkeys(known), n=5, cutoff=0.5)
    return sorted(near, key=rank, reverse=True)  # stable: of equals the more alike


def _known_keys(tree: dict, prefix: str = "") -> list[str]:
    """The keys of a tree, those within groups with their dots."""
    keys = []
    for name, value in tree.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys += _known_keys(value, f"{prefix}{name}.")
    return keys
