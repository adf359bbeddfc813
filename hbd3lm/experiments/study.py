"""A study: a folder of runs, each trained and evaluated once, however often the command is given.

An experiment names its runs by the settings in which they differ; everything else, training,
likelihood, sampling and scoring, is what the modes of ``main.py`` do, called with settings that
are kept and printed, so that every number can be made again by hand::

    study = Study.open("comparison", overrides)
    runs = [study.run("flat", ["algo=flat"], seed) for seed in study.seeds]
    study.each(runs, lambda run: run.train())
    result, records = runs[0].sample()

Every step is stamped with the settings and the weights it was made with; a step whose stamp is the
same is read, not made again. Trained models lie in a store beside the studies, named by all that
their training depends on: two studies that ask for the same model train it once. Several processes
may work on one study, or on several: each takes models that nobody holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hbd3lm.errors import UserError
from hbd3lm.experiments.kept import read_kept
from hbd3lm.experiments.problems import STANDS_IN, prepare_problems
from hbd3lm.experiments.run import Run
from hbd3lm.experiments.settings import compose
from hbd3lm.files import atomic_write
from hbd3lm.lock import LockedError, output_lock
from hbd3lm.progress import time_left

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hbd3lm.data.records import HierarchicalExample

T = TypeVar("T")

STORE = "models"
"""Folder of the trained models, beside those of the studies."""
OWN = ("mode", "run_dir", "run_name", "checkpoint", "seed", "eval.output_dir")
"""Settings that a study gives its runs itself."""
LENGTHS = tuple(f"training.hierarchical.{part}_len=" for part in ("question", "plan", "exec"))
BELONG = {"data": ("data=", "data.", *LENGTHS), "model": ("model=", "model.")}
"""Settings of an experiment that fit its own data, or model, only."""
READ_SECONDS = 1.0
"""A run that takes less was done before, and says nothing of how long others take."""


@dataclass(frozen=True)
class Study:
    """One experiment with its settings and its folder.

    Attributes:
        settings: the ``experiment`` group: what is compared, seeds, sizes.
        base: overrides common to all runs: the experiment's, then the user's.
        given: of these, the user's.
    """

    settings: DictConfig
    base: tuple[str, ...]
    given: tuple[str, ...] = ()

    @classmethod
    def open(cls, name: str, overrides: Sequence[str] = (), smoke: bool = False) -> Study:
        """The study ``experiment=name`` with the user's overrides (KEY=VALUE).

        Overrides of ``experiment.*`` change the study, all others every run. ``smoke``: the
        size of the group's ``smoke_size``, where the user does not say otherwise. With a ``data=``
        of the user's, the experiment's own settings of data and lengths are left out; with a
        ``model=``, those of the model.

        Raises:
            UserError: an unknown key or experiment, or a setting that the study gives itself.
        """
        from omegaconf import OmegaConf

        mine = [o for o in overrides if o.lstrip("+~").startswith("experiment.")]
        # Under the name that the experiment's own settings have, which they then override.
        others = [
            f"training.{o}" if o.startswith("hierarchical.") else o
            for o in overrides
            if o not in mine
        ]
        for override in others:
            key = override.lstrip("+~").partition("=")[0]
            if key in OWN:
                hint = "; use experiment.seeds=[0,1]" if key == "seed" else ""
                raise UserError(f"{override}: an experiment sets {key} for its runs itself{hint}")
        group = compose([f"experiment={name}", *mine]).experiment
        smoke = smoke or group.smoke
        if smoke:
            size = compose([f"experiment={name}"]).experiment.smoke_size
            given = OmegaConf.create({})
            for override in mine:
                key = override.lstrip("+~").partition("=")[0].removeprefix("experiment.")
                OmegaConf.update(given, key, OmegaConf.select(group, key))
            group = OmegaConf.merge(group, size, given, {"smoke": True})
        if not group.seeds:
            raise UserError("experiment.seeds: at least one seed is needed, e.g. [0]")
        settings = list(group.settings)
        for group_name, belong in BELONG.items():
            if any(o.startswith(f"{group_name}=") for o in others):
                settings = [s for s in settings if not s.startswith(belong)]
        study = cls(group, ("trainer.devices=1", *settings, *others), tuple(others))
        cfg = compose(study.base)
        if cfg.eval.split != "test":
            raise UserError(
                f"eval.split={cfg.eval.split}: an experiment compares models with the data's test "
                "problems; to compare on others, give them as data.test_path"
            )
        devices = cfg.trainer.devices
        if devices != 1:
            raise UserError(
                f"trainer.devices={devices}: an experiment trains its runs in one process. Give "
                "the same command several times (in several terminals, or as a job array) and the "
                "processes divide the runs, or train a run by its own command "
                "(metrics.json, commands) with several devices: the experiment goes on from it"
            )
        return study

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def folder(self) -> Path:
        """``results/<name>``: where everything goes but trained models and data."""
        return Path(self.settings.output_dir)

    @property
    def store(self) -> Path:
        """``results/models``: trained models and their data, for all studies beside this one."""
        return self.folder.parent / STORE

    @property
    def seeds(self) -> list[int]:
        return list(self.settings.seeds)

    def run(self, arm: str, overrides: Sequence[str], seed: int) -> Run:
        """The run of one arm with one seed. Nothing is computed yet."""
        return Run(self, arm, tuple(overrides), seed)

    def each(self, runs: Sequence[Run], work: Callable[[Run], T]) -> list[T]:
        """``work(run)`` for every run, while nobody else works on it; results in order.

        After each it says how many are done, and how long the others take at this pace; other
        processes that are seen to help are not counted.
        Runs that another process holds come last, when that process has finished them: then
        ``work`` finds its steps done.

        Raises:
            UserError: a run has settings with which it cannot start; before any has begun.
        """
        for run in runs:
            run.check()
        results: dict[str, T] = {}
        took: list[float] = []  # seconds, of runs that had anything left to do

        def do(run: Run) -> None:
            started = time.monotonic()
            results[run.name] = work(run)
            seconds = time.monotonic() - started
            if seconds < READ_SECONDS:
                return
            took.append(seconds)
            left = time_left(sum(took), len(took), len(runs) - len(results))
            alone = " for this process alone" if left and held else ""
            print(f"\n[{self.name}] {len(results)} of {len(runs)} models{left}{alone}", flush=True)

        waiting = list(runs)
        while waiting:
            held: list[Run] = []  # by other processes
            for run in waiting:
                try:
                    with output_lock(run.model):
                        do(run)
                except LockedError:
                    held.append(run)
            if len(held) == len(waiting):
                first = held.pop(0)
                print(f"waiting for the process that works on {first.model}", flush=True)
                with output_lock(first.model, wait=True):
                    do(first)
            waiting = held
        return [results[run.name] for run in runs]

    def once(self, name: str, stamp: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict:
        """What ``work`` returns (JSON-ready), kept in ``<name>.json`` of the folder.

        It is made again where ``stamp`` is another; by one process, for which others wait.
        """
        path = self.folder / f"{name}.json"
        with output_lock(path, wait=True):
            found = read_kept(path)
            if found.get("made_with") != json.loads(json.dumps(stamp)):
                print(f"\n[{self.name}] {name}", flush=True)
                found = {"made_with": stamp, **work()}
                with atomic_write(path) as file:
                    json.dump(found, file, indent=2)
                    file.write("\n")
            return found

    @cached_property
    def data(self) -> tuple[str, ...]:
        """Overrides that give all runs the same problems and plans (:func:`prepare_problems`)."""
        return prepare_problems(self.base, self.store)

    @property
    def problems(self) -> str:
        """Whose problems these are, for the report."""
        name = compose(self.base).data.name
        if any(STANDS_IN in override for override in self.data):
            return f"embedded problems, in place of {name}, which could not be had"
        return name

    def examples(self, split: str) -> list[HierarchicalExample]:
        """The examples of ``train``, ``valid`` or ``test``; of the last only those evaluated."""
        from hbd3lm.commands.problems import load_examples

        cfg = compose([*self.base, *self.data])
        return load_examples(cfg, split)[: cfg.eval.num_examples if split == "test" else None]

    def are_new(self, questions: Sequence[str]) -> np.ndarray:
        """[questions] bool: the question is none of those learned or chosen from (spaces and
        case aside). Generated problems may be the same where two kinds of them overlap."""
        learned = {
            _words(example.question)
            for split in ("train", "valid")
            for example in self.examples(split)
        }
        return np.array([_words(question) not in learned for question in questions], dtype=bool)


def _words(question: str) -> str:
    return " ".join(question.lower().split())
