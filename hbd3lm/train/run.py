"""A training run: a folder, a trainer, loggers, checkpoints, and where to go on after a break."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from hbd3lm.diffusion.objective import Objective
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write
from hbd3lm.model.checkpoint import ModelCard, read_checkpoint
from hbd3lm.model.layout import Document
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.callbacks import BestCheckpoint, LastCheckpoint, PrintProgress, WarmEMA
from hbd3lm.train.config import TrainerConfig, TrainingConfig, check_strategy
from hbd3lm.train.data import ProblemData
from hbd3lm.train.module import BrokenLossError, TrainingModule

FREE_TO_CHANGE = (
    "max_steps",
    "batch_size",  # what counts is problems_per_step, over all processes
    "valid_every",
    "valid_samples",
    "gradient_draws",
    "checkpoint_every",
    "log_every",
    "resume",
)
"""Settings of ``training`` that may differ when a run is resumed."""
SEARCH_READS = ("valid_every", "valid_samples")
"""Those of them that algo.schedule=searched learns by, so that they must stay."""
LATER_SETTINGS = {"optimizer": "adamw", "muon_scale": 10.0, "decay_share": 0.2}
"""Settings of ``training`` that older checkpoints do not name, and what they were then."""


def resolve_precision(name: str) -> str:
    """``auto`` as bf16 on GPUs and CPUs with bf16 arithmetic, else full float32."""
    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    return "bf16-mixed" if cpu_has_bf16() else "32-true"


def cpu_has_bf16() -> bool:
    """Does this processor multiply bf16 matrices in hardware (AVX-512 BF16 or AMX)?"""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


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
) -> dict:
    """Train, or go on training, and return the summary also written to ``train_summary.json``.

    The folder ends up with ``checkpoints/last.ckpt``, ``checkpoints/best.ckpt`` (lowest
    validation NELBO) and ``logs/``. A run that was interrupted goes on as if it had not been.
    ``on_start`` is called by the main process once the folder is found fit for this run.

    Raises:
        UserError: the folder holds a run with other settings, the machine lacks what ``trainer``
            asks for, or the loss stopped being finite.
    """
    check_strategy(config, trainer_config)
    run_dir = Path(run_dir)
    last, best = (run_dir / "checkpoints" / f"{name}.ckpt" for name in ("last", "best"))
    # Lightning's hints and device lists, twice each under Hydra's logging, are not for users.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    best_checkpoint = BestCheckpoint(best)
    trainer = _make_trainer(
        config,
        trainer_config,
        run_dir,
        [LastCheckpoint(last, config.checkpoint_every), best_checkpoint],
    )
    card = replace(
        card,
        settings={
            **card.settings,
            "problems_per_step": config.batch_size * config.accumulate * trainer.world_size,
            "training_problems": _fingerprint(train_documents),
            "validation_problems": _fingerprint(valid_documents),
        },
    )
    resume_from = _find_resume(last if last.exists() else best, card, config)
    if trainer.is_global_zero:
        on_start()
    module = TrainingModule(net, objective, config, card, seed, len(valid_documents))
    data = ProblemData(
        train_documents, valid_documents, objective, config, seed, trainer_config.num_workers
    )
    started = time.perf_counter()
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers.*",
                ".*isinstance.treespec, LeafSpec.*",
                # It is: the batches depend on the step alone.
                ".*your dataloader is not resumable.*",
            ):
                warnings.filterwarnings("ignore", message)
            trainer.fit(module, datamodule=data, ckpt_path=resume_from)
    except BrokenLossError as error:
        kept = next((path for path in (last, best) if path.exists()), None)
        raise UserError(
            f"training stopped at step {trainer.global_step}: {error}; "
            + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was due before")
            + ". Lower training.learning_rate, raise training.warmup_steps, or train with "
            "trainer.precision=32-true"
        ) from None
    summary = {
        "steps": trainer.global_step,
        "resumed_from": str(resume_from) if resume_from else None,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": net.count_parameters(),
        "train_problems": len(train_documents),
        "valid_problems": len(valid_documents),
        "precision": str(trainer.precision),
        "last_checkpoint": str(last),
        "best_checkpoint": str(best) if best.exists() else None,
        "best_valid_nelbo": best_checkpoint.nelbo if best.exists() else None,
    }
    if trainer.is_global_zero:
        with atomic_write(run_dir / "train_summary.json") as file:
            json.dump(summary, file, indent=2)
    return summary


def _fingerprint(documents: Sequence[Document]) -> str:
    """16 hex digits that name the documents and their order."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.question.tobytes() + b"|" + document.targets.tobytes() + b"|")
    return digest.hexdigest()[:16]


def _find_resume(checkpoint: Path, card: ModelCard, config: TrainingConfig) -> Path | None:
    """The checkpoint to go on from: None without one, refused where going on is impossible."""
    if not checkpoint.exists():
        return None
    run_dir = checkpoint.parent.parent
    if not config.resume:
        raise UserError(
            f"run_dir: {run_dir} already holds a run and training.resume=false; "
            "choose another run_dir=... or remove that folder"
        )
    old, _ = read_checkpoint(checkpoint, "run_dir")
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
    searched = isinstance(algo, dict) and algo["schedule"] == "searched"
    before = LATER_SETTINGS | old.settings.get("training", {})
    now = card.settings.get("training", {})
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
    return checkpoint


def _make_trainer(
    config: TrainingConfig, where: TrainerConfig, run_dir: Path, callbacks: list[L.Callback]
) -> L.Trainer:
    if config.ema_decay:
        callbacks = [*callbacks, WarmEMA(config.ema_decay)]
    # A bar redraws itself; in a file every redrawing is another line.
    bar = where.progress_bar and sys.stdout.isatty()
    callbacks += [TQDMProgressBar(refresh_rate=config.log_every) if bar else PrintProgress()]
    try:
        return L.Trainer(
            accelerator=where.accelerator,
            devices=where.devices,
            num_nodes=where.num_nodes,
            strategy=where.strategy,
            precision=resolve_precision(where.precision),
            max_steps=config.max_steps,
            accumulate_grad_batches=config.accumulate,
            gradient_clip_val=config.grad_clip or None,
            val_check_interval=config.valid_interval * config.accumulate,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=config.log_interval,
            use_distributed_sampler=False,
            enable_progress_bar=bar,
            enable_checkpointing=True,
            enable_model_summary=False,
            logger=_make_loggers(where.loggers, run_dir),
            callbacks=callbacks,
            default_root_dir=run_dir,
        )
    except (MisconfigurationException, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"trainer: {reason} (trainer.accelerator={where.accelerator}, "
            f"trainer.devices={where.devices}, trainer.strategy={where.strategy})"
        ) from None


def _make_loggers(names: Sequence[str], run_dir: Path) -> list[Logger]:
    loggers: list[Logger] = []
    for name in names:
        if name == "csv":
            loggers.append(CSVLogger(run_dir, name="logs"))
        elif name == "tensorboard":
            loggers.append(TensorBoardLogger(run_dir, name="tensorboard"))
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
