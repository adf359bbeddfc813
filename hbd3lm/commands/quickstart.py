"""``hbd3lm quickstart``: the whole pipeline, small, in minutes, told on one page.

Problems -> plans -> analysis -> mask -> training -> perplexity -> answers -> ``index.html``. Each
stage calls the very code its own command calls, and the page prints that command.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbd3lm.commands.arguments import count, positive
from hbd3lm.commands.overrides import override_value, quote_text
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from hbd3lm.data.records import Problem


@dataclass(frozen=True)
class Recipe:
    """What is trained on, and for how long.

    Attributes:
        train_problems: the first so many; None: all.
        test_problems: held-out problems to score.
        max_calculations: most steps of an embedded problem's solution (published ones have what
            they have).
        largest_number: of those, only problems without a larger number in question or answer.
        steps: optimiser steps.
        settings: further settings of ``main.py``.
    """

    train_problems: int | None
    test_problems: int
    max_calculations: int | None
    largest_number: int | None
    steps: int
    settings: dict[str, str]


_COMMON = {
    "model": "nano",
    "training.hierarchical.plan_block_size": "8",
    "training.hierarchical.exec_block_size": "4",
    "training.batch_size": "16",
    # Muon answers more after 800 steps than AdamW after 2,000 (docs/log.md, 2026-11-28).
    "training.optimizer": "muon",
    "training.lr_schedule": "cosine",
    "training.learning_rate": "5e-3",
    "training.warmup_steps": "50",
    "training.valid_every": "200",
    "training.valid_samples": "1",
    "data.valid_size": "64",
    # Small blocks learn from high mask rates (BD3-LM's clipped schedules).
    "algo.t_min": "0.3",
    "trainer.devices": "1",
}
# What a nano learns in minutes on two cores: one calculation with small numbers.
EMBEDDED = Recipe(
    train_problems=4000,
    test_problems=200,
    max_calculations=1,
    largest_number=20,
    steps=800,
    settings=_COMMON,
)
# Real problems are longer and far harder: the same page, with no promise.
GSM8K = Recipe(
    train_problems=None,
    test_problems=200,
    max_calculations=None,
    largest_number=None,
    steps=400,
    settings=_COMMON,
)
EVAL_SAMPLES = 8  # noise draws per problem of the perplexity

STAGES = (
    "problems and plans",
    "analysis of the plans",
    "attention mask",
    "training",
    "perplexity",
    "answers to held-out problems",
    "page",
)
_OWN = ("mode", "run_dir", "run_name", "checkpoint", "sampling.mode", "eval.split")


def build_parser() -> argparse.ArgumentParser:
    """The command line; light, so that ``--help`` answers at once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm quickstart",
        description="Run the whole pipeline on a small scale: problems, plans, analysis, training, "
        "sampling, scores; everything ends on one page, OUTPUT_DIR/index.html. Run again, it "
        "continues where it stopped.",
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="folder with gsm8k_train.jsonl and gsm8k_test.jsonl (default: HBD3LM_DATA_DIR, else "
        "the hub, else embedded problems)",
    )
    parser.add_argument(
        "--dataset",
        choices=("gsm8k", "embedded"),
        default="gsm8k",
        help="embedded: generated problems, even if GSM8K is there (default: gsm8k)",
    )
    parser.add_argument("--output_dir", type=Path, default=Path("quickstart"), metavar="DIR",
                        help="where all files go (default: %(default)s)")  # fmt: skip
    for flag, default, what in (
        ("steps", "steps", "optimiser steps"),
        ("num_train", "train_problems", "training problems"),
        ("num_test", "test_problems", "held-out problems to score"),
    ):
        embedded, real = getattr(EMBEDDED, default), getattr(GSM8K, default) or "all"
        parser.add_argument(f"--{flag}", type=positive, metavar="N",
                            help=f"{what} (default: {embedded}; GSM8K: {real})")  # fmt: skip
    parser.add_argument("--seed", type=count, default=0, help="default: 0")
    parser.add_argument(
        "--overwrite", action="store_true", help="discard an earlier run with other settings"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="further settings, as main.py takes them, e.g. model=tiny",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run all stages. Returns 0.

    Raises:
        UserError: missing data, an unknown setting, or a folder that holds another run.
    """
    args = build_parser().parse_args(argv)
    overrides = _user_overrides(args.overrides)
    clock = Clock()
    with clock.stage(0):
        work = _prepare(args, overrides)
        _write_plans(work)
    with clock.stage(1):
        _analyze(work)
    with clock.stage(2):
        _check_mask(work)
    with clock.stage(3):
        _train(work)
    with clock.stage(4):
        _run_mode(work.settings_of("ppl_eval"))
    with clock.stage(5):
        _run_mode(work.settings_of("sample_eval"))
    with clock.stage(6):
        from hbd3lm.commands.quickstart_page import write_quickstart_page

        verdict = write_quickstart_page(work, clock.seconds)
    print(f"\n{verdict}\n")
    print(f"everything on one page: {work.page}")
    print(f"all files: {work.run_dir}")
    return 0


class Clock:
    """Announces the stages and remembers how long each took, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def stage(self, index: int) -> Iterator[None]:
        name = STAGES[index]
        print(f"\n[{index + 1}/{len(STAGES)}] {name}", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started
        print(f"[{index + 1}/{len(STAGES)}] {name}: {self.seconds[name]:.1f} s", flush=True)


# --- what is to be done -----------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A run of the quickstart: its problems, its folder, its settings.

    Attributes:
        name: ``embedded`` or ``gsm8k``; each has its own folder in ``output_dir``.
        fallback: why these are not the problems asked for, or None.
        train, test: the problems; ``origins`` says in words where they come from.
        overrides: settings of ``main.py``, the recipe's and the user's, in Hydra's own spelling.
    """

    args: argparse.Namespace
    name: str
    fallback: str | None
    train: Sequence[Problem]
    test: Sequence[Problem]
    origins: tuple[str, str]
    overrides: dict[str, str]

    @property
    def run_dir(self) -> Path:
        return self.args.output_dir / self.name

    @property
    def page(self) -> Path:
        return self.args.output_dir / "index.html"

    @property
    def data_dir(self) -> str | None:
        """The folder of real problems; None: the hub, or embedded problems."""
        found = self.args.data_dir or os.environ.get("HBD3LM_DATA_DIR")
        return found if self.name == "gsm8k" else None

    @functools.cached_property
    def training_config(self) -> DictConfig:
        """The configuration of the training; composing it checks every setting."""
        return _compose(self.settings_of("train"))

    def data(self, split: str) -> Path:
        """The file of a split's problems with plans."""
        return self.run_dir / "data" / f"{split}.json"

    def analysis_arguments(self) -> list[str]:
        """The flags of ``hbd3lm analyze`` for the training problems."""
        figure = str(self.run_dir / "analysis.png")
        return ["--data_path", str(self.data("train")), "--output_plot", figure,
                "--num_samples", "1"]  # fmt: skip

    def lengths_arguments(self) -> list[str]:
        """The flags of ``hbd3lm lengths``."""
        output = str(self.run_dir / "lengths.json")
        return ["--data_path", str(self.data("train")), "--analyze", "--output_json", output]

    def mask_arguments(self) -> list[str]:
        """The flags of ``hbd3lm mask``: a handful of blocks, enough to see the pattern."""
        h = self.training_config.hierarchical
        plan, execution = h.plan_block_size, h.exec_block_size
        sizes = {"question_len": 4 * plan, "plan_len": 4 * plan, "exec_len": 6 * execution,
                 "plan_block_size": plan, "exec_block_size": execution}  # fmt: skip
        arguments = ["--output_plot", str(self.run_dir / "mask.png")]
        return arguments + [text for key, size in sizes.items() for text in (f"--{key}", str(size))]

    def settings_of(self, mode: str) -> list[str]:
        """The arguments of ``main.py`` for a mode."""
        settings = {
            "mode": mode,
            "run_dir": override_value(self.run_dir),
            "seed": str(self.args.seed),
        }
        if mode == "train":
            settings |= {"data.train_path": override_value(self.data("train"))} | self.overrides
        else:
            settings["data.test_path"] = override_value(self.data("test"))
            # The network comes from its checkpoint, whatever is said about model and training.
            settings |= {
                key: value
                for key, value in self.overrides.items()
                if key.partition(".")[0] in ("sampling", "eval", "trainer")
            }
        if mode == "ppl_eval":
            settings.setdefault("eval.samples", str(EVAL_SAMPLES))
        return [f"{key}={value}" for key, value in settings.items()]


def _user_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """``KEY=VALUE`` arguments as a dictionary; their keys are checked when Hydra composes."""
    overrides = {}
    for argument in arguments:
        key, separator, value = quote_text(argument).partition("=")
        if not separator:
            raise UserError(f"{argument!r} is no setting; write KEY=VALUE, e.g. model=tiny")
        if key in _OWN or key.partition(".")[0] == "data":
            raise UserError(f"{argument}: quickstart sets {key} itself; see hbd3lm quickstart -h")
        overrides[key] = value
    return overrides


def _prepare(args: argparse.Namespace, user: dict[str, str]) -> Work:
    """Find the problems, settle the recipe and claim the folder."""
    name, recipe, fallback, train, test, origins = _problems(args)
    overrides = {**recipe.settings, "training.max_steps": str(args.steps or recipe.steps), **user}
    work = Work(args, name, fallback, train, test, origins, overrides)
    _ = work.training_config  # a wrong setting is told before anything is written
    _claim(work)
    for origin in origins:
        print(f"problems: {origin}")
    return work


def _problems(args: argparse.Namespace):
    """Name, recipe, fallback, problems and their origins: GSM8K, or else embedded ones."""
    from hbd3lm.commands.problems import announce
    from hbd3lm.data.sources import find_problems
    from hbd3lm.data.synthetic.laboratory import laboratory_problems

    fallback = None
    if args.dataset == "gsm8k":
        counts = (
            args.num_train or GSM8K.train_problems,
            args.num_test or GSM8K.test_problems,
        )
        sets = []
        for split, limit in zip(("train", "test"), counts):
            sets.append(find_problems("gsm8k", split, args.data_dir, limit))
            fallback = sets[-1].fallback
            if fallback:
                break
        else:
            train, test = sets
            origins = (train.origin, test.origin)
            return "gsm8k", GSM8K, None, train.problems, test.problems, origins
        announce(fallback)
    elif args.data_dir:
        raise UserError("--data_dir names real problems, --dataset embedded wants none; choose one")
    n_train = args.num_train or EMBEDDED.train_problems
    n_test = args.num_test or EMBEDDED.test_problems
    # Not the generator's own test split, whose numbers no training problem of the kind has: what
    # minutes of training teach is reading a problem in new words, not yet arithmetic as such.
    easy, held_out = laboratory_problems(
        n_train, n_test, args.seed, 1, EMBEDDED.max_calculations, EMBEDDED.largest_number
    )
    kind = (
        f"(calculations: at most {EMBEDDED.max_calculations}, numbers: up to "
        f"{EMBEDDED.largest_number}), generated with seed {args.seed}"
    )
    origins = (
        f"embedded problems, train: {n_train} {kind}",
        f"embedded problems, held out: {n_test} more of them, no question among the trained ones",
    )
    return "embedded", EMBEDDED, fallback, easy, held_out, origins


def _compose(settings: Sequence[str]) -> DictConfig:
    """The configuration ``main.py`` would run with.

    Raises:
        UserError: an unknown key or value.
    """
    from hbd3lm.commands.compose import compose_settings

    return compose_settings(list(settings))


def _claim(work: Work) -> None:
    """Make the folder this run's own; one of other settings is refused, never mixed with.

    Raises:
        UserError: the folder holds another run, or files that are no run of the quickstart.
    """
    from hbd3lm.files import atomic_write, read_json

    problems = json.dumps([asdict(p) for p in (*work.train, *work.test)], sort_keys=True)
    mine = {
        "problems": hashlib.sha256(problems.encode()).hexdigest()[:16],
        "train_problems": len(work.train),
        "test_problems": len(work.test),
        "seed": work.args.seed,
        **{key: value for key, value in work.overrides.items() if key.split(".")[0] != "trainer"},
    }
    record, folder = work.run_dir / "quickstart.json", work.run_dir
    if record.is_file():
        theirs = {}
        if not work.args.overwrite:
            theirs = read_json(record, "--output_dir", "give --overwrite to discard that run")
        different = [
            f"{key}: {theirs.get(key)} != {mine.get(key)}"
            for key in sorted({*mine, *theirs})
            if mine.get(key) != theirs.get(key)
        ]
        if different and not work.args.overwrite:
            raise UserError(
                f"{folder} holds a run with other settings ({'; '.join(different[:4])}); give "
                "--overwrite to discard it, or another --output_dir"
            )
        if work.args.overwrite:
            shutil.rmtree(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} holds files that are no quickstart; give another --output_dir")
    with atomic_write(record) as file:
        json.dump(mine, file, indent=2)
        file.write("\n")


# --- stages -----------------------------------------------------------------------------------


def _write_plans(work: Work) -> None:
    from hbd3lm.plans.generate import generate_plans
    from hbd3lm.plans.planner import load_planner

    for split in ("train", "test"):
        settings = {"planner": "rules", "dataset": work.name, "split": split}
        examples = generate_plans(
            getattr(work, split),
            load_planner("rules"),
            work.data(split),
            settings=settings,
            overwrite=True,
            progress=sys.stderr.isatty(),
        )
        print(f"wrote {len(examples)} examples with rules plans to {work.data(split)}")


def _analyze(work: Work) -> None:
    from hbd3lm.commands import analyze_plans, token_lengths

    analyze_plans.main(work.analysis_arguments())
    token_lengths.main(work.lengths_arguments())


def _check_mask(work: Work) -> None:
    from hbd3lm.commands import check_mask

    if check_mask.main(work.mask_arguments()):
        raise UserError("the attention mask is wrong on this machine (see FAIL above)")


def _train(work: Work) -> None:
    """Train, or go on, or leave a finished run as it is."""
    from hbd3lm.files import read_json

    summary, steps = work.run_dir / "train_summary.json", work.training_config.training.max_steps
    remedy = f"remove {work.run_dir} and run the same command again"
    if summary.is_file() and read_json(summary, "--output_dir", remedy).get("steps", 0) >= steps:
        print(f"already trained for {steps} steps: {work.run_dir / 'checkpoints'}")
        return
    _run_mode(work.settings_of("train"))


def _run_mode(settings: Sequence[str]) -> None:
    from hbd3lm.commands.run import dispatch_or_exit

    dispatch_or_exit(_compose(settings))
