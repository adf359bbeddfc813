"""A training run: a folder, a trainer, loggers, checkpoints, and where to go on after a break."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from hbd3lm.allocator import HeldMemory
from hbd3lm.data.tokenizer import SPECIAL_TOKENS
from hbd3lm.diffusion.objective import Objective
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write
from hbd3lm.model.attention import choose_backend
from hbd3lm.model.checkpoint import ModelCard
from hbd3lm.model.layout import Document
from hbd3lm.model.precision import resolve_precision
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.callbacks import BoundMemory, PrintProgress, WarmEMA
from hbd3lm.train.checkpoints import (
    BestCheckpoint,
    CheckpointNotWrittenError,
    Found,
    LastCheckpoint,
    SealedCheckpointIO,
    find_checkpoint,
)
from hbd3lm.train.compiled import compile_losses
from hbd3lm.train.config import (
    LATER_SETTINGS,
    TrainerConfig,
    TrainingConfig,
    check_strategy,
    leaves,
)
from hbd3lm.train.data import ProblemData
from hbd3lm.train.lora import attach, check_lora
from hbd3lm.train.metrics_log import MetricsLog
from hbd3lm.train.module import BrokenLossError, TrainingModule
from hbd3lm.train.preemption import Preempted, StopSignals
from hbd3lm.train.sharding import ShardedEMA, ShardedModule, ShardedStrategy
from hbd3lm.train.start import check_freeze, freeze, start_from

FREE_TO_CHANGE = (
    "max_steps",
    # What counts is problems_per_step, over all processes.
    "batch_size",
    "accumulate",
    "global_batch_size",
    "valid_every",
    "valid_samples",
    "gradient_draws",
    "checkpoint_every",
    "log_every",
    "resume",
)
"""Settings of ``training`` that may differ when a run is resumed."""
HUSH = (
    ".*does not have many workers.*",
    ".*isinstance.treespec, LeafSpec.*",
    # It is: the batches depend on the step alone.
    ".*your dataloader is not resumable.*",
    # It is reduced already when it is logged.
    ".*It is recommended to use .*sync_dist=True.*",
    # On purpose: they are frozen.
    ".*module.s. in eval mode at the start of training.*",
    # A machine with SLURM on it is like any other until srun is used.
    ".*The `srun` command is available on your system.*",
)
"""Warnings of Lightning and torch that say nothing to a user of this program."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SEARCH_READS = ("valid_every", "valid_samples")
"""Those of them that algo.schedule=searched learns by, so that they must stay."""


def train(
    net: Transformer,
    objective: Objective,
    train_documents: Sequence[Document],
    valid_documents: Sequence[Document],
    config: TrainingConfig,
    trainer_config: TrainerConfig,
    card: ModelCard,
    run_dir: str | Path,
    seed: int,
    on_start: Callable[[], None] = lambda: None,
    fill: Callable[[], dict[str, str]] | None = None,
) -> dict:
    """Train, or go on training, and return the summary also written to ``train_summary.json``.

    The folder ends up with ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` (lowest
    validation NELBO) and ``logs/``. A run that was interrupted goes on as if it had not been.
    ``on_start`` is called by the main process once the folder is found fit for this run.
    ``training.init_from`` is read where a run begins, not where one goes on; so is ``fill``
    called, which gives ``net`` other weights and says where they are from.

    Raises:
        UserError: the folder holds a run with other settings, the machine lacks what ``trainer``
            asks for, there is nothing to start from, the disk is full, or the loss stopped being
            finite.
        Preempted: SIGTERM or SIGUSR1 came; the state is saved.
        KeyboardInterrupt: Ctrl-C; what was saved before stays.
    """
    check_strategy(config, trainer_config)
    compiled_losses = compile_losses(config, trainer_config)
    check_freeze(config, card)
    check_lora(config, card)
    net.activation_checkpoint = trainer_config.activation_checkpoint
    run_dir = Path(run_dir)
    folder = run_dir / "checkpoints"
    last, best = folder / "last.ckpt", folder / "best.ckpt"
    # Lightning's hints and device lists, twice each under Hydra's logging, are not for users.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    signals = StopSignals()
    last_checkpoint = LastCheckpoint(last, config.checkpoint_every, config.valid_interval, signals)
    best_checkpoint = BestCheckpoint(best, _warn)
    checkpoint_io = SealedCheckpointIO({last: folder / "previous.ckpt"})
    with _hush():
        trainer = _make_trainer(
            # The best first: what is in the last will not be done again.
            config,
            trainer_config,
            run_dir,
            [best_checkpoint, last_checkpoint],
            checkpoint_io,
        )
    sharded = isinstance(trainer.strategy, ShardedStrategy)
    config = config.for_processes(trainer.world_size)
    trainer.accumulate_grad_batches = config.accumulate
    trainer.val_check_interval = config.valid_interval * config.accumulate
    card = replace(
        card,
        settings={
            **card.settings,
            "problems_per_step": config.batch_size * config.accumulate * trainer.world_size,
            "sharded": sharded,
            "training_problems": _fingerprint(train_documents),
            "validation_problems": _fingerprint(valid_documents),
        },
    )
    found = find_checkpoint(folder)
    if found is None:
        if config.init_from is not None:
            started_from = start_from(config.init_from, net, card)
        else:
            started_from = fill() if fill is not None else None
    else:
        started_from = found.card.settings.get("started_from")
        _check_settings(found, card, config, trainer_config, run_dir)
        if found.step >= config.max_steps:
            _say(
                f"{run_dir} holds a finished run of {found.step} steps; with "
                f"training.max_steps={config.max_steps} there is nothing left to do"
            )
        if found.damaged:
            _warn(found.warning)
            last_checkpoint.damaged = found.damaged_paths
    card = replace(card, settings={**card.settings, "started_from": started_from})
    if config.freeze is not None:
        freeze(net, config.freeze)
    attach(net, config.lora, len(SPECIAL_TOKENS))
    resume_from = found.path if found else None
    trainer.loggers = _make_loggers(trainer_config.loggers, run_dir, found.step if found else 0)
    module = (ShardedModule if sharded else TrainingModule)(
        net, objective, config, card, seed, len(valid_documents), compiled_losses
    )
    # What FlexAttention must know of a batch's mask is made where the batch is.
    tiles = choose_backend(trainer_config.attention, trainer.strategy.root_device) == "flex"
    data = ProblemData(
        train_documents, valid_documents, objective, config, seed, trainer_config.num_workers, tiles
    )
    started = time.perf_counter()
    try:
        with _hush(), signals:
            if trainer.is_global_zero:
                on_start()
            trainer.fit(module, datamodule=data, ckpt_path=resume_from, weights_only=True)
    except SIGTERMException:
        # Lightning's handler was quicker than ours, before the first step.
        raise Preempted(trainer.global_step) from None
    except SystemExit:
        if not trainer.interrupted:
            raise
        # Ctrl-C, to which Lightning says nothing.
        _warn(
            f"training was interrupted at step {trainer.global_step}; {_last_good(last, best)}. "
            "Run the same command again to go on"
        )
        raise KeyboardInterrupt from None
    except BrokenLossError as error:
        raise UserError(
            f"training stopped at step {trainer.global_step}: {error}; {_last_good(last, best)}. "
            "Lower training.learning_rate, raise training.warmup_steps, or train with "
            "trainer.precision=32-true"
        ) from None
    except (CheckpointNotWrittenError, OSError) as error:
        reason = checkpoint_io.failure or str(error)
        if isinstance(error, OSError):
            # Loggers that cannot write their last words either hide the first failure.
            if error.errno not in DISK_FULL:
                raise
            reason = checkpoint_io.failure or f"cannot write to {run_dir}: {error.strerror}"
        step = max(trainer.global_step, found.step if found else 0)
        raise UserError(
            f"training stopped at step {step}: {reason}; {_last_good(last, best)}. Make room for "
            f"{run_dir} and run the same command again: it goes on from there"
        ) from None
    summary = {
        "steps": trainer.global_step,
        "resumed_from": str(resume_from) if resume_from else None,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": net.count_parameters(),
        "trained_parameters": sum(p.numel() for p in net.parameters() if p.requires_grad),
        "frozen": config.freeze,
        "started_from": started_from,
        "train_problems": len(train_documents),
        "valid_problems": len(valid_documents),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "problems_per_step": card.settings["problems_per_step"],
        "last_checkpoint": str(last),
        "best_checkpoint": str(best) if best.exists() else None,
        "best_valid_nelbo": best_checkpoint.nelbo if best.exists() else None,
    }
    if trainer.is_global_zero:
        with atomic_write(run_dir / "train_summary.json") as file:
            json.dump(summary, file, indent=2)
    return summary


@contextlib.contextmanager
def _hush() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in HUSH:
            warnings.filterwarnings("ignore", message)
        yield


@rank_zero_only
def _say(message: str) -> None:
    print(message, flush=True)


@rank_zero_only
def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _last_good(last: Path, best: Path) -> str:
    kept = next((path for path in (last, best) if path.exists()), None)
    return f"the last good checkpoint is {kept}" if kept else "no checkpoint was due before"


def _fingerprint(documents: Sequence[Document]) -> str:
    """16 hex digits that name the documents and their order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.question.tobytes() + b"|" + document.targets.tobytes() + b"|")
    return digest.hexdigest()[:16]


def _check_settings(
    found: Found,
    card: ModelCard,
    config: TrainingConfig,
    trainer_config: TrainerConfig,
    run_dir: Path,
) -> None:
    """Refuse to go on with a run where that is not asked for, or not possible."""
    if not config.resume:
        raise UserError(
            f"run_dir: {run_dir} already holds a run and training.resume=false; "
            "choose another run_dir=... or remove that folder"
        )
    old = found.card
    differences = card.differences(old)
    algo = old.settings.get("algo")
    if isinstance(algo, dict):
        algo = {"schedule": "loglinear"} | algo  # which older checkpoints do not name
    pairs = [("algo", algo, card.settings.get("algo"))]
    pairs += [
        (name, old.settings.get(name), card.settings.get(name))
        for name in sorted(
            ("problems_per_step", "seed", "training_problems", "validation_problems")
        )
    ]
    # An optimiser's state has another order when it is put together from shares.
    if bool(old.settings.get("sharded")) != bool(card.settings.get("sharded")):
        strategy = (old.settings.get("trainer") or {}).get("strategy", "not fsdp")
        was = "fsdp" if old.settings.get("sharded") else strategy
        pairs.append(("trainer.strategy", was, trainer_config.strategy))
    searched = isinstance(algo, dict) and algo["schedule"] == "searched"
    # Older checkpoints hold what was typed under a short name there only.
    short = leaves(old.settings.get("hierarchical", {}), "hierarchical.")
    before = LATER_SETTINGS | leaves(old.settings.get("training", {})) | short
    now = LATER_SETTINGS | leaves(card.settings.get("training", {}))
    pairs += [
        (f"training.{name}", before.get(name), now.get(name))
        for name in sorted(set(before) | set(now))
        if name not in FREE_TO_CHANGE or (searched and name in SEARCH_READS)
    ]
    differences += [f"{name}: {was} != {asked}" for name, was, asked in pairs if was != asked]
    if differences:
        raise UserError(
            f"run_dir: {run_dir} holds a run with other settings "
            f"({'; '.join(differences[:4])}); choose another run_dir=..., or repeat its settings "
            f"({run_dir / 'config.yaml'})"
        )


def _make_trainer(
    config: TrainingConfig,
    where: TrainerConfig,
    run_dir: Path,
    callbacks: list[L.Callback],
    checkpoint_io: SealedCheckpointIO,
) -> L.Trainer:
    sharded = where.strategy == "fsdp"
    if config.ema_decay:
        average = ShardedEMA if sharded else WarmEMA
        callbacks = [*callbacks, average(config.ema_decay)]
    if HeldMemory.is_known():
        callbacks += [BoundMemory()]
    # A bar redraws itself; in a file every redrawing is another line.
    bar = where.progress_bar and sys.stdout.isatty()
    callbacks += [TQDMProgressBar(refresh_rate=config.log_every) if bar else PrintProgress()]
    plugins: list[Any] = [checkpoint_io]
    if SLURMEnvironment.detect():
        # Lightning's own requeueing saves wherever the signal arrives; ours after a whole step.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    try:
        return L.Trainer(
            accelerator=where.accelerator,
            devices=where.devices,
            num_nodes=where.num_nodes,
            strategy=ShardedStrategy() if sharded else where.strategy,
            precision=resolve_precision(where.precision),
            max_steps=config.max_steps,
            gradient_clip_val=config.grad_clip or None,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=config.log_interval,
            use_distributed_sampler=False,
            enable_progress_bar=bar,
            enable_checkpointing=True,
            enable_model_summary=False,
            logger=False,  # until it is known where the run goes on
            callbacks=callbacks,
            plugins=plugins,
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"trainer: {reason} (trainer.accelerator={where.accelerator}, "
            f"trainer.devices={where.devices}, trainer.strategy={where.strategy})"
        ) from None


def _make_loggers(names: Sequence[str], run_dir: Path, step: int) -> list[Logger]:
    """One log a run: a run that goes on after ``step`` goes on in the files it has."""
    loggers: list[Logger] = []
    for name in names:
        if name == "csv":
            loggers.append(MetricsLog(run_dir / "logs", step))
        elif name == "tensorboard":
            loggers.append(
                TensorBoardLogger(run_dir, name="tensorboard", version="", purge_step=step or None)
            )
        else:
            try:
                from lightning.pytorch.loggers import WandbLogger

                loggers.append(WandbLogger(save_dir=run_dir, project="hbd3lm"))
            except ModuleNotFoundError:
                raise UserError(
                    "trainer.loggers: wandb is not installed; pip install 'hbd3lm[wandb]', or "
                    "leave it out"
                ) from None
    return loggers
