"""``main.py``: the configuration that Hydra overrides make, handed to the mode it names."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from hbd3lm.allocator import keep_freed_memory
from hbd3lm.commands.compose import (
    CONFIGS,
    check_overrides,
    options_of,
    refuse_contradictions,
    settle_names,
)
from hbd3lm.commands.evaluate import ppl_eval, sample, sample_eval
from hbd3lm.commands.overrides import quote_text
from hbd3lm.commands.settings import check_text
from hbd3lm.commands.train import train
from hbd3lm.errors import UserError, run_command

MODES = ("train", "ppl_eval", "sample_eval", "sample", "doctor")


_SHOWING = ("--cfg", "-c", "--info", "-i", "--hydra-help", "--version")
"""Flags of Hydra's with which it prints something and ends."""


def main() -> None:
    """Check the overrides on the command line, then hand over to Hydra."""
    status = run_command(_main)
    if status:
        sys.exit(status)


def _main() -> None:
    sys.argv[1:] = arguments = [quote_text(argument) for argument in sys.argv[1:]]
    others = [argument for argument in arguments if not argument.startswith("mode=")]
    if others and set(others) <= {"-h", "--help"}:
        print(usage())
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if len(overrides) == len(arguments):  # flags such as --multirun or --help are Hydra's own
        if "mode=experiment" in overrides:
            from hbd3lm.commands.experiment import run_mode

            # It composes a configuration for every run of its own, with settings of its own before
            # the user's: data.max_steps=2 is known where the experiment says data=laboratory.
            return run_mode(overrides)
        check_overrides(overrides)
    if not any(argument.partition("=")[0] in _SHOWING for argument in arguments):
        return _hydra_main()
    # Printed by us: of a reader who leaves, Hydra reports an error.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            _hydra_main()
    finally:
        print(printed.getvalue(), end="")


@hydra.main(version_base=None, config_path=CONFIGS, config_name="config")
def _hydra_main(cfg: DictConfig) -> None:
    # Once more, for --multirun: with flags of Hydra's own main() leaves the check to it.
    overrides = list(HydraConfig.get().overrides.task)
    status = run_command(lambda: refuse_contradictions(cfg, overrides) or dispatch(cfg, overrides))
    if status:
        sys.exit(status)


def usage() -> str:
    """What ``--help`` prints: every key with its default and meaning, as the files have them.

    Hydra's own help says less and takes a second.
    """
    text = Path(CONFIGS, "config.yaml").read_text(encoding="utf-8")
    defaults = [d for d in OmegaConf.create(text).defaults if OmegaConf.is_dict(d)]
    chosen = {group: name for d in defaults for group, name in d.items() if " " not in group}
    settings = re.split(r"\n(?=\S)", text)
    lines = [
        "usage: python main.py KEY=VALUE ...       (or hbd3lm VERB KEY=VALUE ...)",
        "",
        "Train, evaluate and sample.",
        "",
        "== groups: GROUP=NAME picks a file of hbd3lm/configs/ ==",
        "",
    ]
    for group in sorted(chosen):
        lines.append(f"{group}: {', '.join(options_of(group))}")
    lines += ["", "== settings and their defaults: KEY=VALUE, e.g. training.max_steps=1000 ==", ""]
    lines += [s.rstrip() for s in settings if not s.startswith(("#", "defaults:", "hydra:"))]
    for group, name in sorted(chosen.items()):
        if name is None:  # experiment: a group that is chosen by its own mode
            continue
        content = Path(CONFIGS, group, f"{name}.yaml").read_text(encoding="utf-8")
        lines += ["", f"{group}:", *(f"  {line}" for line in content.splitlines())]
    lines += ["", "With settings of yours: main.py KEY=VALUE ... --cfg job. Hydra's own flags:",
              "--hydra-help."]  # fmt: skip
    return "\n".join(lines)


def dispatch(cfg: DictConfig, given: Sequence[str] = ()) -> int | None:
    """Run the mode the configuration names; the exit status if it is not 0.

    Args:
        given: the user's overrides, for what a checkpoint decides instead.
    """
    keep_freed_memory()  # before torch is imported
    check_text(cfg)
    settle_names(cfg)
    modes = {
        "train": train,
        "ppl_eval": partial(ppl_eval, given=given),
        "sample_eval": partial(sample_eval, given=given),
        "sample": partial(sample, given=given),
        "doctor": doctor,
    }
    if cfg.mode == "experiment":
        raise UserError("mode=experiment has seeds and runs of its own: leave --multirun out")
    if cfg.mode not in modes:
        raise UserError(f"mode={cfg.mode}: choose one of {', '.join([*modes, 'experiment'])}")
    return modes[cfg.mode](cfg)


def dispatch_or_exit(cfg: DictConfig) -> None:
    """Run the mode as one stage of several, none of which may follow one that was cut short.

    Raises:
        SystemExit: with the mode's status, where that is not 0: stopped by a signal, and saved.
    """
    status = dispatch(cfg)
    if status:
        raise SystemExit(status)


def doctor(cfg: DictConfig) -> int:
    """Check everything a training run with these settings depends on; 1 if something fails."""
    from hbd3lm.commands.doctor import examine

    return examine(cfg)
