"""The problems of a study: read or made once, with their plans, for all its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hbd3lm.commands.overrides import override_value
from hbd3lm.experiments.kept import digest
from hbd3lm.experiments.settings import compose, plain
from hbd3lm.lock import output_lock
from hbd3lm.plans.manifest import read_manifest

if TYPE_CHECKING:
    from omegaconf import DictConfig

STANDS_IN = "-embedded"
"""Ends the name of a folder whose problems stand in for those asked for."""
SPLITS = ("train", "test")


def prepare_problems(base: Sequence[str], store: Path) -> tuple[str, ...]:
    """Overrides that give all runs the same problems and plans, prepared once.

    Where GSM8K cannot be had, embedded problems stand in for it, under a name of their own:
    once it can, studies go on to the real ones. So have problems of the user's folder where
    it holds others than when the first were prepared.

    Args:
        base: the overrides common to all runs.
        store: the folder that holds the prepared data of all studies.
    """
    from hbd3lm.commands.problems import load_examples, load_problem_set

    cfg = compose(base)
    paths = {}
    for split in SPLITS:
        if cfg.data[f"{split}_path"]:
            continue  # a file of the user's
        what = [plain(cfg.data), cfg.planner.name, split]
        what += [cfg.eval.num_examples] if split == "test" else []
        folder = store / f"data-{digest(what)}"
        path = paths[split] = folder / "data" / f"{split}.json"
        with output_lock(folder, wait=True):
            if path.is_file():
                differs = _other_problems(cfg, split, path)
            else:
                differs = STANDS_IN if load_problem_set(cfg, split).fallback else ""
            if differs:
                folder = folder.with_name(folder.name + differs)
                path = paths[split] = folder / "data" / f"{split}.json"
            if not path.is_file():
                load_examples(compose([*base, f"run_dir={override_value(folder)}"]), split)
    return tuple(f"data.{split}_path={override_value(path)}" for split, path in paths.items())


def _other_problems(cfg: DictConfig, split: str, path: Path) -> str:
    """What names the problems of the user's folder, if ``path`` was made of others; else empty."""
    from hbd3lm.commands.problems import load_problem_set
    from hbd3lm.data.catalogue import published_as
    from hbd3lm.data.local_files import local_folder
    from hbd3lm.plans.generate import problems_digest

    generated = published_as(cfg.data.name)[1] is None
    if generated or not local_folder(cfg.data.dir):  # all is in the settings, or on the hub
        return ""
    now = problems_digest(load_problem_set(cfg, split).problems)
    made_of = read_manifest(path)["settings"]["problems_sha256"]
    return "" if now == made_of else f"-{now[:8]}"
