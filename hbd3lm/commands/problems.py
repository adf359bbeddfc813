"""The problems of a configuration with their plans: read from a file, or planned."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from hbd3lm.commands.rank import get_rank
from hbd3lm.commands.settings import DataConfig, typed

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.sources import ProblemSet


def load_examples(cfg: DictConfig, split: str) -> list[HierarchicalExample]:
    """The examples of ``train``, ``valid`` or ``test``; see :func:`load_training_examples`."""
    data = typed(DataConfig, cfg.data, "data")
    if split == "test" or (split == "valid" and data.valid_path is not None):
        return _read_or_plan(cfg, data, split)
    train, valid = load_training_examples(cfg)
    return train if split == "train" else valid


def load_training_examples(
    cfg: DictConfig,
) -> tuple[list[HierarchicalExample], list[HierarchicalExample]]:
    """Examples to train on and to validate on, read or planned once for both.

    ``data.<split>_path`` if given, else problems of ``data.name`` with plans by ``planner``,
    written to ``run_dir/data``. Without ``data.valid_path``, validation is a fixed slice held
    out of the training examples; the test set is never used for it.
    """
    data = typed(DataConfig, cfg.data, "data")
    examples = _read_or_plan(cfg, data, "train")
    if data.valid_path is not None:
        return examples, _read_or_plan(cfg, data, "valid")
    if len(examples) == 1:
        print("data: one training problem; it is its own validation set")
        return examples, examples
    held_out = min(data.valid_size, max(1, len(examples) // 10))
    if held_out < data.valid_size:
        print(
            f"data: {held_out} of {len(examples)} training problems held out for validation, a "
            f"tenth, not data.valid_size={data.valid_size}"
        )
    # A slice of the file alone: the same for every seed, model and method.
    order = np.random.default_rng(0).permutation(len(examples))
    train, valid = np.sort(order[held_out:]), order[:held_out]
    return [examples[i] for i in train], [examples[i] for i in valid]


def _read_or_plan(cfg: DictConfig, data: DataConfig, split: str) -> list[HierarchicalExample]:
    from hbd3lm.data.records import read_examples

    path = getattr(data, f"{split}_path")
    examples = read_examples(path, f"data.{split}_path") if path else _plan(cfg, data, split)
    return examples[: data.num_train] if split == "train" else examples


def _plan(cfg: DictConfig, data: DataConfig, split: str) -> list[HierarchicalExample]:
    from hbd3lm.plans.generate import generate_plans
    from hbd3lm.plans.planner import load_planner

    planner = cfg.planner.name
    name = _dataset_name(cfg)
    problems = load_problem_set(cfg, split)
    output = Path(cfg.run_dir) / "data" / f"{split}.json"
    print(f"data: {problems.origin}; plans by {planner} -> {output}")
    if problems.fallback:
        name = "embedded"  # what the plans are of, for whoever reads their manifest
    settings = {"planner": planner, "dataset": name, "split": split}
    with contextlib.ExitStack() as stack:
        if get_rank():  # every process of a training run plans; one of them writes the file
            output = Path(stack.enter_context(tempfile.TemporaryDirectory())) / output.name
        return generate_plans(
            problems.problems,
            load_planner(planner),
            output,
            settings=settings,
            overwrite=True,
            wait=True,
            progress=not get_rank(),
        )


def load_problem_set(cfg: DictConfig, split: str) -> ProblemSet:
    """The problems of ``data.name`` with their annotated solutions, as plans are made for them."""
    data = typed(DataConfig, cfg.data, "data")
    limit = data.num_train if split == "train" else cfg.eval.num_examples
    return _load_problems(_dataset_name(cfg), split, data, limit)


def _dataset_name(cfg: DictConfig) -> str:
    socratic = (cfg.data.name, cfg.planner.name) == ("gsm8k", "socratic")
    return "gsm8k_socratic" if socratic else cfg.data.name


def _load_problems(name: str, split: str, data: DataConfig, limit: int | None) -> ProblemSet:
    from hbd3lm.data.sources import ProblemSet, find_problems

    if name != "laboratory":
        problems = find_problems(name, split, data.dir, limit, seed=0)
        if problems.fallback and not get_rank():
            announce(problems.fallback)
        return problems
    from hbd3lm.data.synthetic.laboratory import laboratory_problems

    train, test = laboratory_problems(
        data.num_train or 8000,
        data.num_test,
        0,
        data.min_steps,
        data.max_steps,
        data.largest_number,
    )
    problems = (train if split == "train" else test)[:limit]
    kind = f"{data.min_steps} to {data.max_steps} calculations, numbers up to {data.largest_number}"
    return ProblemSet(problems, f"laboratory problems, {split}: {len(problems)} of {kind}")


@lru_cache  # once for all runs of a process that lack the same thing
def announce(fallback: str) -> None:
    """Say, loudly, that these are not the problems that were asked for."""
    print(f"\nWARNING: {fallback}\n", file=sys.stderr)
