"""A training run: a folder, a trainer, loggers, checkpoints, and where to go on after a break."""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from hbd3lm.diffusion.objective import Objective
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write
from hbd3lm.model.checkpoint import ModelCard, read_checkpoint
from hbd3lm.model.layout import Document
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.callbacks import StopOnBrokenLoss, WarmEMA
from hbd3lm.train.config import LOGGERS, TrainerConfig, TrainingConfig
from hbd3lm.train.data import ProblemData
from hbd3lm.train.module import TrainingModule


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
) -> dict:
    """Train, or go on training, and return the summary also written to ``train_summary.json``.

    The folder ends up with ``checkpoints/last.ckpt`` and ``checkpoints/best.ckpt`` (lowest
    validation NELBO) and ``logs/``.

    Raises:
        UserError: the folder holds a run of another model, or the loss stopped being finite.
    """
    run_dir = Path(run_dir)
    last = run_dir / "checkpoints" / "last.ckpt"
    resume_from = _find_resume(last, card, config)
    module = TrainingModule(net, objective, config, card, seed, len(valid_documents))
    data = ProblemData(
        train_documents, valid_documents, objective, config, seed, trainer_config.num_workers
    )
    # Lightning's hints and device lists, twice each under Hydra's logging, are not for users.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = _make_trainer(config, trainer_config, run_dir)
    started = time.perf_counter()
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",
            ".*Checkpoint directory .* exists and is not empty.*",
            ".*isinstance.treespec, LeafSpec.*",
        ):
            warnings.filterwarnings("ignore", message)
        trainer.fit(module, datamodule=data, ckpt_path=resume_from)
    best = trainer.checkpoint_callbacks[1]
    summary = {
        "steps": trainer.global_step,
        "resumed_from": str(resume_from) if resume_from else None,
        "seconds": round(time.perf_counter() - started, 1),
        "parameters": net.count_parameters(),
        "train_problems": len(train_documents),
        "valid_problems": len(valid_documents),
        "precision": str(trainer.precision),
        "last_checkpoint": str(last),
        "best_checkpoint": best.best_model_path or None,
        "best_valid_nelbo": None if best.best_model_score is None else float(best.best_model_score),
    }
    if trainer.is_global_zero:
        with atomic_write(run_dir / "train_summary.json") as file:
            json.dump(summary, file, indent=2)
    return summary


def _find_resume(last: Path, card: ModelCard, config: TrainingConfig) -> Path | None:
    if not last.exists():
        return None
    if not config.resume:
        raise UserError(
            f"run_dir: {last.parent.parent} already holds a run and training.resume=false; "
            "choose another run_dir=... or remove that folder"
        )
    old, _ = read_checkpoint(last, "run_dir")
    differences = card.differences(old)
    ignored = (
        "max_steps",
        "valid_every",
        "valid_samples",
        "checkpoint_every",
        "log_every",
        "resume",
    )
    before, now = old.settings.get("training", {}), card.settings.get("training", {})
    for name in sorted(set(before) | set(now)):
        if name not in ignored and before.get(name) != now.get(name):
            differences.append(f"training.{name}: {before.get(name)} != {now.get(name)}")
    if old.settings.get("seed") != card.settings.get("seed"):
        differences.append(f"seed: {old.settings.get('seed')} != {card.settings.get('seed')}")
    if differences:
        raise UserError(
            f"run_dir: {last.parent.parent} holds a run with other settings "
            f"({'; '.join(differences[:4])}); choose another run_dir=..., or repeat its settings"
        )
    return last


def _make_trainer(config: TrainingConfig, where: TrainerConfig, run_dir: Path) -> L.Trainer:
    checkpoints = run_dir / "checkpoints"
    callbacks: list[L.Callback] = [
        StopOnBrokenLoss(),
        # The latest state, to resume from; written to a temporary file first by Lightning.
        ModelCheckpoint(
            dirpath=checkpoints,
            filename="last",
            every_n_train_steps=config.checkpoint_every,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        ),
        ModelCheckpoint(
            dirpath=checkpoints,
            filename="best",
            monitor="valid/nelbo",
            mode="min",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
    ]
    if config.ema_decay:
        callbacks.append(WarmEMA(config.ema_decay))
    if where.progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=config.log_every))
    return L.Trainer(
        accelerator=where.accelerator,
        devices=where.devices,
        num_nodes=where.num_nodes,
        strategy=where.strategy,
        precision=resolve_precision(where.precision),
        max_steps=config.max_steps,
        accumulate_grad_batches=config.accumulate,
        gradient_clip_val=config.grad_clip or None,
        val_check_interval=config.valid_every * config.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=config.log_interval,
        use_distributed_sampler=False,
        enable_progress_bar=where.progress_bar,
        enable_model_summary=False,
        logger=_make_loggers(where.loggers, run_dir),
        callbacks=callbacks,
        default_root_dir=run_dir,
    )


def _make_loggers(names: Sequence[str], run_dir: Path) -> list[Logger]:
    loggers: list[Logger] = []
    for name in names:
        if name == "csv":
            loggers.append(CSVLogger(run_dir, name="logs"))
        elif name == "tensorboard":
            loggers.append(TensorBoardLogger(run_dir, name="tensorboard"))
        elif name == "wandb":
            try:
                from lightning.pytorch.loggers import WandbLogger

                loggers.append(WandbLogger(save_dir=run_dir, project="hbd3lm"))
            except ModuleNotFoundError:
                raise UserError(
                    "trainer.loggers: wandb is not installed; pip install 'hbd3lm[wandb]', or "
                    "leave it out"
                ) from None
        else:
            raise UserError(f"trainer.loggers: {name}: choose from {', '.join(LOGGERS)}")
    return loggers
