"""A run of a study: one model, trained and evaluated by the modes of ``main.py``, each step once.

Every step is stamped with the settings and the weights it was made with; a step whose stamp is the
same is read, not made again.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.overrides import override_value
from hbd3lm.commands.settings import EvalConfig, read_sampling, typed
from hbd3lm.errors import UserError
from hbd3lm.experiments.kept import digest, read_kept, read_lines
from hbd3lm.experiments.settings import compose, of_one_data_set, plain
from hbd3lm.files import atomic_write
from hbd3lm.plans.manifest import file_digest

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hbd3lm.commands.build import LoadedModel
    from hbd3lm.experiments.study import Study

NOT_TRAINED = ("mode", "run_dir", "run_name", "checkpoint", "sampling", "eval")
"""Groups of the configuration that no trained weight depends on."""


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
        trained = {name: value for name, value in plain(cfg).items() if name not in NOT_TRAINED}
        del trained["data"]["test_path"], trained["trainer"]["activation_checkpoint"]
        contents = self._contents(cfg)
        if contents:
            trained["contents"] = contents
        name = f"{cfg.algo.name}_{cfg.model.name}-seed{self.seed}-{digest(trained)}"
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
        return of_one_data_set(settings)

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
        found = read_kept(self.model / "train_summary.json")
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
        return result, read_lines(self.folder / label / "perplexity.jsonl")

    def sample(
        self, label: str = "eval", mode: str = "full", *further: str
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What ``mode=sample_eval`` writes, made in ``folder/label``: scores and records."""
        further = (f"sampling.mode={mode}", *further)
        result = self._evaluate("sample_eval", f"sample_eval_{mode}.json", label, further)
        return result, read_lines(self.folder / label / f"samples_{mode}.jsonl")

    def measure(self, label: str, about: dict[str, Any], make: Callable[[], Any]) -> Any:
        """What ``make()`` returns, JSON-ready: an experiment's own measurement, made once.

        Args:
            about: what it depends on besides the model.
        """
        path = self.folder / f"{label}.json"
        done = {"settings": self.settings_of("ppl_eval"), "weights": self.weights, **about}
        stamp = path.with_name(f"{path.name}.stamp")
        if not path.is_file() or read_kept(stamp) != done:
            print(f"\n[{self.study.name}] {self.name}: {label}", flush=True)
            content = make()
            stamp.unlink(missing_ok=True)  # it speaks of what is replaced now
            for file, value in ((path, content), (stamp, done)):
                with atomic_write(file) as out:
                    json.dump(value, out)
        return read_kept(path)

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
        if not path.is_file() or read_kept(stamp) != done:
            print(f"\n[{self.study.name}] {self.name}: {mode} ({label})", flush=True)
            stamp.unlink(missing_ok=True)  # it speaks of what is replaced now, file by file
            _dispatch(cfg)
            with atomic_write(stamp) as out:
                json.dump(done, out, indent=2)
        return read_kept(path)


def _dispatch(cfg: DictConfig) -> None:
    from hbd3lm.commands.run import dispatch_or_exit

    dispatch_or_exit(cfg)


def _weights_file(path: Path) -> Path:
    """A checkpoint, or the weights in a folder that ``hbd3lm export`` wrote."""
    return path / "model.safetensors" if path.is_dir() else path
