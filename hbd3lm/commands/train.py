"""``mode=train``: from a composed configuration to a trained run in its folder."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from hbd3lm.commands import build
from hbd3lm.commands.next_step import command_line
from hbd3lm.commands.overrides import override_value
from hbd3lm.commands.rank import get_rank
from hbd3lm.commands.settings import read_seed, typed
from hbd3lm.errors import UserError
from hbd3lm.lock import output_lock

if TYPE_CHECKING:
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.diffusion.objective import Objective
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.transformer import Transformer
    from hbd3lm.train.config import TrainerConfig, TrainingConfig


LINGER = 20.0
"""Seconds by which the processes that prepared batches for a run that was killed outlive it."""


@dataclass(frozen=True)
class Setup:
    """What a training run is made of, before a problem is read.

    Attributes:
        fill: gives a network the weights of ``model=pretrained``; None: there are none to give.
    """

    config: TrainingConfig
    where: TrainerConfig
    seed: int
    tokenizer: ProblemTokenizer
    card: ModelCard
    objective: Objective
    fill: Callable[[Transformer], dict[str, str]] | None


def set_up(cfg: DictConfig) -> Setup:
    """Check all settings of a run against one another; the doctor's first step as well.

    Raises:
        UserError: settings or files that no run could start with.
    """
    from hbd3lm.commands import pretrained_start
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.train.config import TrainerConfig, TrainingConfig, check_strategy
    from hbd3lm.train.lora import check_lora
    from hbd3lm.train.start import check_freeze

    config = typed(TrainingConfig, cfg.training, "training")
    where = typed(TrainerConfig, cfg.trainer, "trainer")
    check_strategy(config, where)
    seed = read_seed(cfg)
    source = pretrained_start.resolve_pretrained(cfg)
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    if source is not None:
        pretrained_start.check_vocabulary(source, tokenizer)
    card = build.build_card(cfg, tokenizer)
    objective = build.build_training_objective(cfg, card, tokenizer)
    check_freeze(config, card)
    check_lora(config, card)
    fill = None
    if source is not None and not cfg.model.scratch:
        fill = partial(
            pretrained_start.fill_pretrained, source=source, tokenizer=tokenizer, seed=seed
        )
    return Setup(config, where, seed, tokenizer, card, objective, fill)


def train(cfg: DictConfig) -> int | None:
    """Train into ``run_dir``, or go on where it stopped.

    Of several processes the first one speaks for all, and keeps other runs off ``run_dir``.

    Raises:
        UserError: settings or data no run can start with, or another run is writing ``run_dir``.
    """
    if get_rank() == 0:
        setup = set_up(cfg)
        with output_lock(Path(cfg.run_dir) / "checkpoints", LINGER, "run_dir"):
            return _train(cfg, setup)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            _train(cfg, set_up(cfg))
        except UserError:
            return 1
    return 0  # also when preempted: Lightning kills the others if one of them ends otherwise


def _train(cfg: DictConfig, setup: Setup) -> int | None:
    from hbd3lm.commands.memory_advice import explain_training
    from hbd3lm.commands.problems import load_training_examples
    from hbd3lm.files import atomic_write, writing

    config, tokenizer, card = setup.config, setup.tokenizer, setup.card
    run_dir = Path(cfg.run_dir)
    with writing(run_dir, "run_dir"):
        run_dir.mkdir(parents=True, exist_ok=True)
    documents = {}
    for split, examples in zip(("train", "valid"), load_training_examples(cfg)):
        documents[split] = build.build_documents(examples, tokenizer, card.layout)

    import torch

    from hbd3lm.model.cost import pass_operations
    from hbd3lm.model.transformer import Transformer
    from hbd3lm.train.preemption import EXIT_STATUS, Preempted, leave_processes
    from hbd3lm.train.run import train as run_training

    torch.manual_seed(setup.seed)
    with explain_training(cfg, card.model, card.layout, documents["train"]):
        net = Transformer(card.model, setup.where.attention)
    print(
        f"model: {_name_model(cfg)}, {net.count_parameters():,} parameters "
        f"({net.count_parameters(embeddings=False):,} without embeddings), "
        f"{pass_operations(card.model, 1, 0, 1).total / 1e6:,.1f} million operations a token "
        "(attention's aside); "
        f"{len(documents['train'])} problems, {len(documents['valid'])} held out; "
        f"layout {build.describe_layout(card.layout)}"
    )

    def describe_run() -> None:
        tokenizer.save(run_dir / "tokenizer")
        with atomic_write(run_dir / "config.yaml") as file:
            file.write(OmegaConf.to_yaml(cfg, resolve=True))

    try:
        with explain_training(cfg, card.model, card.layout, documents["train"]):
            summary = run_training(
                net,
                setup.objective,
                documents["train"],
                documents["valid"],
                config,
                setup.where,
                card,
                run_dir,
                setup.seed,
                describe_run,
                setup.fill and partial(setup.fill, net),
            )
    except Preempted as stop:
        print(
            f"stopped after step {stop.step} of {config.max_steps}, as asked by a signal, and "
            f"saved to {run_dir / 'checkpoints'}. The same command goes on from there "
            f"(exit status {EXIT_STATUS})",
            flush=True,
        )
        return EXIT_STATUS
    finally:
        leave_processes()
    if get_rank():
        return None
    if "csv" in setup.where.loggers:
        from hbd3lm.report.loss_figure import draw_loss_figure

        draw_loss_figure(run_dir / "logs", run_dir / "loss.png")
    print(json.dumps(summary, indent=2))
    print("next:", command_line("main.py mode=sample_eval", "sample_eval", _same_place(cfg)))
    return None


def _same_place(cfg: DictConfig) -> list[str]:
    """Overrides with which another mode finds this run and its data."""
    found = [f"data={cfg.data.name}"] if cfg.data.name != "gsm8k" else []
    places = {
        "data.dir": cfg.data.dir, "data.test_path": cfg.data.test_path, "run_dir": cfg.run_dir
    }  # fmt: skip
    return found + [f"{key}={override_value(str(p))}" for key, p in places.items() if p is not None]


def _name_model(cfg: DictConfig) -> str:
    """Its name, and of separate modules in what they equal the shared model of that name."""
    h, freeze = cfg.hierarchical, cfg.training.freeze
    text = cfg.model.name
    if h.modules == "separate":
        text += f" with separate modules (as many {h.match} as shared)"
    return text + (f", {freeze} frozen" if freeze else "")
