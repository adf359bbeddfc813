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

import copy
import hashlib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hbd3lm.commands.overrides import override_value
from hbd3lm.commands.settings import EvalConfig, read_sampling, typed
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write
from hbd3lm.plans.lock import LockedError, output_lock
from hbd3lm.plans.manifest import file_digest, read_manifest
from hbd3lm.progress import time_left

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hbd3lm.commands.build import LoadedModel
    from hbd3lm.data.records import HierarchicalExample

T = TypeVar("T")

STORE = "models"
"""Folder of the trained models, beside those of the studies."""
STANDS_IN = "-embedded"
"""Ends the name of a folder whose problems stand in for those asked for."""
OWN = ("mode", "run_dir", "run_name", "checkpoint", "seed", "eval.output_dir")
"""Settings that a study gives its runs itself."""
SPLITS = ("train", "test")
LENGTHS = tuple(f"training.hierarchical.{part}_len=" for part in ("question", "plan", "exec"))
BELONG = {"data": ("data=", "data.", *LENGTHS), "model": ("model=", "model.")}
"""Settings of an experiment that fit its own data, or model, only."""
READ_SECONDS = 1.0
"""A run that takes less was done before, and says nothing of how long others take."""
NOT_TRAINED = ("mode", "run_dir", "run_name", "checkpoint", "sampling", "eval")
"""Groups of the configuration that no trained weight depends on."""


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
            found = _read(path)
            if found.get("made_with") != json.loads(json.dumps(stamp)):
                print(f"\n[{self.name}] {name}", flush=True)
                found = {"made_with": stamp, **work()}
                with atomic_write(path) as file:
                    json.dump(found, file, indent=2)
                    file.write("\n")
            return found

    @cached_property
    def data(self) -> tuple[str, ...]:
        """Overrides that give all runs the same problems and plans, prepared once.

        Where GSM8K cannot be had, embedded problems stand in for it, under a name of their own:
        once it can, studies go on to the real ones. So have problems of the user's folder where
        it holds others than when the first were prepared.
        """
        from hbd3lm.commands.problems import load_examples, load_problem_set

        cfg = compose(self.base)
        paths = {}
        for split in SPLITS:
            if cfg.data[f"{split}_path"]:
                continue  # a file of the user's
            what = [_plain(cfg.data), cfg.planner.name, split]
            what += [cfg.eval.num_examples] if split == "test" else []
            folder = self.store / f"data-{_digest(what)}"
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
                    load_examples(compose([*self.base, f"run_dir={override_value(folder)}"]), split)
        return tuple(f"data.{split}_path={override_value(path)}" for split, path in paths.items())

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


@dataclass(frozen=True)
class Run:
    """A model of a study: an arm, a seed, a folder.

    Attributes:
        arm: what it is compared as.
        overrides: the settings in which the arm differs.
    """

    study: Study
    arm: str
    overrides: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Of its evaluations."""
        return self.study.folder / "runs" / self.name

    @cached_property
    def model(self) -> Path:
        """Of its training: ``run_dir``, named by all that the training depends on."""
        cfg = compose(self._common)
        trained = {name: value for name, value in _plain(cfg).items() if name not in NOT_TRAINED}
        del trained["data"]["test_path"], trained["trainer"]["activation_checkpoint"]
        contents = self._contents(cfg)
        if contents:
            trained["contents"] = contents
        name = f"{cfg.algo.name}_{cfg.model.name}-seed{self.seed}-{_digest(trained)}"
        return self.study.store / name

    def _contents(self, cfg: DictConfig) -> list[str]:
        """Digests of the user's files that training begins with: others may take their place.

        What lies in the store is named by what it was made of.
        """
        store = self.study.store.resolve()
        files = [Path(path) for path in (cfg.data.train_path, cfg.data.valid_path) if path]
        start = cfg.training.init_from
        if start and not Path(start).resolve().is_relative_to(store):
            from hbd3lm.train.start import KEY, locate_weights

            files.append(_weights_file(locate_weights(start, KEY)))
        # A file that is not there is missed where it is read.
        own = [f for f in files if f.is_file() and not f.resolve().is_relative_to(store)]
        return [file_digest(file)[:16] for file in own]

    @property
    def _common(self) -> list[str]:
        study = self.study
        return [*study.base, *study.data, *self.overrides, f"seed={self.seed}"]

    def settings_of(self, mode: str, *further: str) -> list[str]:
        """The arguments of ``main.py`` that do a step of this run."""
        settings = [
            f"mode={mode}",
            *self._common,
            f"run_dir={override_value(self.model)}",
            *further,
        ]
        return _of_one_data_set(settings)

    def command(self, mode: str, *further: str) -> str:
        """The same as a line to copy."""
        return shlex.join(["python", "main.py", *self.settings_of(mode, *further)])

    def check(self) -> None:
        """Check the settings of a run that is still to be trained, evaluation's included.

        Raises:
            UserError: it could not start, or not be sampled from; it would say so hours later.
        """
        from hbd3lm.commands.train import set_up

        try:
            if self._given or self._summary:
                return
            cfg = compose(self.settings_of("train"))
            set_up(cfg)
            read_sampling(cfg)
            typed(EvalConfig, cfg.eval, "eval")
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None

    def train(self) -> dict[str, Any]:
        """Train, or go on, or read what is finished: the run's summary."""
        if not self._summary:
            print(f"\n[{self.study.name}] {self.name}: training", flush=True)
            _dispatch(compose(self.settings_of("train")))
        return self._summary

    @property
    def _summary(self) -> dict[str, Any]:
        """Of a training that is finished; empty before."""
        found = _read(self.model / "train_summary.json")
        finished = found and found["steps"] >= compose(self._common).training.max_steps
        return found if finished else {}

    @property
    def _given(self) -> list[str]:
        """The setting that gives a checkpoint, of a model that is not trained here."""
        return [o for o in self.overrides if o.startswith("checkpoint=")]

    @cached_property
    def weights(self) -> str:
        """16 hex digits that name the weights which are evaluated."""
        if self._given:
            return file_digest(_weights_file(Path(compose(self._given).checkpoint)))[:16]
        folder = self.model / "checkpoints"
        best = folder / "best.ckpt"
        return file_digest(best if best.exists() else folder / "last.ckpt")[:16]

    def perplexity(self, label: str = "eval", *further: str) -> dict[str, Any]:
        """What ``mode=ppl_eval`` writes, made in ``folder/label``."""
        return self._evaluate("ppl_eval", "perplexity.json", label, further)

    def likelihoods(
        self, label: str = "eval", *further: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The same, and what it has of every problem: nats and tokens by segment."""
        result = self.perplexity(label, *further)
        return result, _read_lines(self.folder / label / "perplexity.jsonl")

    def sample(
        self, label: str = "eval", mode: str = "full", *further: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What ``mode=sample_eval`` writes, made in ``folder/label``: scores and records."""
        further = (f"sampling.mode={mode}", *further)
        result = self._evaluate("sample_eval", f"sample_eval_{mode}.json", label, further)
        return result, _read_lines(self.folder / label / f"samples_{mode}.jsonl")

    def measure(self, label: str, about: dict[str, Any], make: Callable[[], Any]) -> Any:
        """What ``make()`` returns, JSON-ready: an experiment's own measurement, made once.

        Args:
            about: what it depends on besides the model.
        """
        path = self.folder / f"{label}.json"
        done = {"settings": self.settings_of("ppl_eval"), "weights": self.weights, **about}
        stamp = path.with_name(f"{path.name}.stamp")
        if not path.is_file() or _read(stamp) != done:
            print(f"\n[{self.study.name}] {self.name}: {label}", flush=True)
            content = make()
            stamp.unlink(missing_ok=True)  # it speaks of what is replaced now
            for file, value in ((path, content), (stamp, done)):
                with atomic_write(file) as out:
                    json.dump(value, out)
        return _read(path)

    def load(self) -> LoadedModel:
        """The trained network, with everything needed to use it."""
        from hbd3lm.commands.build import load_model

        return load_model(compose(self.settings_of("ppl_eval")))

    def _evaluate(self, mode: str, file: str, label: str, further: Sequence[str]) -> dict:
        path = self.folder / label / file
        place = f"eval.output_dir={override_value(path.parent)}"
        settings = self.settings_of(mode, place, *further)
        cfg = compose(settings)
        problems = Path(cfg.data[f"{cfg.eval.split}_path"] or "")
        done = {
            "settings": settings,
            "weights": self.weights,
            "problems": file_digest(problems)[:16] if problems.is_file() else None,
        }
        stamp = path.with_name(f"{path.name}.stamp")
        if not path.is_file() or _read(stamp) != done:
            print(f"\n[{self.study.name}] {self.name}: {mode} ({label})", flush=True)
            stamp.unlink(missing_ok=True)  # it speaks of what is replaced now, file by file
            _dispatch(cfg)
            with atomic_write(stamp) as out:
                json.dump(done, out, indent=2)
        return _read(path)


def _of_one_data_set(settings: list[str]) -> list[str]:
    """``settings`` less those of data that the data set named last does not know.

    A model that has learned laboratory problems (``data.max_steps=2``) may be evaluated on others.
    """
    names = [o for o in settings if o.startswith("data=")]
    if len(set(names)) < 2:
        return settings
    known = compose(names[-1:]).data
    return [o for o in settings if not o.startswith("data.") or o[5:].partition("=")[0] in known]


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


def _dispatch(cfg: DictConfig) -> None:
    from hbd3lm.commands.run import dispatch_or_exit

    dispatch_or_exit(cfg)


def _other_problems(cfg: DictConfig, split: str, path: Path) -> str:
    """What names the problems of the user's folder, if ``path`` was made of others; else empty."""
    from hbd3lm.commands.problems import load_problem_set
    from hbd3lm.data.catalogue import published_as
    from hbd3lm.data.local_files import local_folder
    from hbd3lm.plans.generate import problems_digest

    generated = published_as(cfg.data.name)[1] is None
    if generated or not local_folder(cfg.data.dir):  # all is in the settings, or on the hub
        return ""
    digest = problems_digest(load_problem_set(cfg, split).problems)
    made_of = read_manifest(path)["settings"]["problems_sha256"]
    return "" if digest == made_of else f"-{digest[:8]}"


def _weights_file(path: Path) -> Path:
    """A checkpoint, or the weights in a folder that ``hbd3lm export`` wrote."""
    return path / "model.safetensors" if path.is_dir() else path


def _words(question: str) -> str:
    return " ".join(question.lower().split())


def _plain(group: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(group, resolve=True)


def _read(path: Path) -> dict[str, Any]:
    """A JSON file of ours; empty where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _digest(value: Any) -> str:
    """8 hex digits that name a plain value."""
    text = json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
