"""Settings of a training run, one sentence each; contradictions are refused by the flag's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hbd3lm.errors import UserError

LOGGERS = ("csv", "tensorboard", "wandb")
PRECISIONS = ("auto", "32-true", "bf16-mixed")
ACTIVATION_CHECKPOINTS = ("none", "mlp", "block")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
# What Lightning reads, up to so many processes a node that more are a slip.
_DEVICES = re.compile(r"auto|-1|[1-9]\d{0,3}|\[\d+(, ?\d+)*\]|\d+,(\d+,?)*")
LATER_SETTINGS = {
    "optimizer": "adamw", "muon_scale": 10.0, "decay_share": 0.2, "freeze": None,
    "init_from": None, "hierarchical.match": "operations", "pack_len": None, "lora.rank": 0,
    "lora.plan_rank": None, "lora.exec_rank": None, "lora.alpha": None, "lora.dropout": 0.0,
}  # fmt: skip
"""Settings of ``training`` that older checkpoints do not name, and what they were then."""


MODULES = ("shared", "plan", "execution")


@dataclass(frozen=True)
class LoraConfig:
    """The ``training.lora`` group of the configuration."""

    rank: int = 0
    """Of the adapters beside every matrix of the blocks; 0: none, all weights are trained."""
    plan_rank: int | None = None
    """Separate modules: another rank for H; 0: all its weights are trained."""
    exec_rank: int | None = None
    """The same for L."""
    alpha: float | None = None
    """An adapter's product is multiplied by alpha / rank; None: twice the rank."""
    dropout: float = 0.0
    """On what an adapter reads, while training."""

    def __post_init__(self) -> None:
        for name in ("rank", "plan_rank", "exec_rank"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UserError(f"training.lora.{name} must not be negative, got {value}")
        if self.alpha is not None and self.alpha <= 0:
            raise UserError(f"training.lora.alpha must be positive, got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"training.lora.dropout must lie in [0, 1), got {self.dropout}")

    def rank_of(self, module: str) -> int:
        """The rank of the adapters of a module (``shared``, ``plan`` or ``execution``)."""
        own = {"plan": self.plan_rank, "execution": self.exec_rank}.get(module)
        return self.rank if own is None else own

    def scales(self, modules: str) -> dict[str, float]:
        """alpha / rank of each module that has adapters.

        Raises:
            UserError: ranks of H and L for a network in which they are one.
        """
        if modules == "shared":
            for name in ("plan_rank", "exec_rank"):
                if getattr(self, name) is not None:
                    raise UserError(
                        f"training.lora.{name}={getattr(self, name)} is for separate modules; use "
                        "training.lora.rank, or hierarchical.modules=separate"
                    )
        names = ("shared",) if modules == "shared" else ("plan", "execution")
        ranks = {name: self.rank_of(name) for name in names}
        return {
            name: 2.0 if self.alpha is None else self.alpha / rank
            for name, rank in ranks.items()
            if rank
        }


@dataclass(frozen=True)
class TrainingConfig:
    """The ``training`` group of the configuration, hierarchical lengths aside."""

    max_steps: int = 50_000
    """Optimiser steps. A finished run goes on when this is raised; from there on the learning
    rate follows the schedule of the longer run."""
    batch_size: int = 32
    """Problems per process and micro-batch."""
    accumulate: int = 1
    """Micro-batches per optimiser step."""
    global_batch_size: int | None = None
    """Problems per optimiser step, over all processes and micro-batches: sets accumulate."""
    optimizer: str = "muon"
    """``muon`` for the matrices inside the blocks and AdamW for the rest, or ``adamw`` for all."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    muon_scale: float = 10.0
    """``muon``: its learning rate is so many times AdamW's. Its updates are scaled to the size
    of AdamW's first, and bear larger steps."""
    warmup_steps: int | None = None
    """Steps of linear warm-up; None: 2,500, but at most a tenth of max_steps."""
    lr_schedule: str = "constant"
    """After the warm-up: ``constant`` (the averaged weights take the place of a decay), ``cosine``
    down to a tenth of the peak, or ``wsd``: stable, then down to nothing over the last
    ``decay_share`` of the steps (1 - sqrt)."""
    decay_share: float = 0.2
    """``wsd``: share of max_steps in which the learning rate decays."""
    weight_decay: float = 0.01
    """Decoupled weight decay on matrices; norms, biases and embeddings have none."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.99
    """AdamW's decay of the second moment."""
    grad_clip: float = 1.0
    """Global gradient norm above which gradients are scaled down; 0: never."""
    ema_decay: float = 0.9999
    """Decay of the weight average used for validation and checkpoints, warmed up as
    (1 + n) / (10 + n); 0: no average."""
    freeze: str | None = None
    """``plan`` or ``execution``: all weights of this module stay as they are. Needs separate
    modules, and a run to start from."""
    init_from: str | None = None
    """Checkpoint file, run folder or exported folder whose (averaged) weights this run starts
    from, with an optimiser and steps of its own. Read once: a run that is resumed has its own."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Low-rank adapters instead of all weights."""
    batching: str = "bucket"
    """``bucket``: one problem a row, rows of similar length; ``pack``: several a row, and all
    batches of one shape, which holds every batch of the first steps."""
    pack_len: int | None = None
    """``pack``: tokens of a row; None: twice as many as the longest problem may have."""
    valid_every: int = 500
    """Steps between validations; a divisor of max_steps ends the run with one."""
    valid_samples: int = 4
    """Draws of the noise per problem and validation, the same each time."""
    gradient_draws: int = 0
    """Draws of the training noise from which each validation measures the variance of the gradient
    on one batch; 0: not measured, else at least 2."""
    checkpoint_every: int = 500
    """Steps between checkpoints of the latest state; the last step is always kept."""
    log_every: int = 10
    """Steps between logged training losses."""
    resume: bool = True
    """Continue from the run folder's checkpoint where there is one."""

    def __post_init__(self) -> None:
        for name in (
            "max_steps",
            "batch_size",
            "accumulate",
            "global_batch_size",
            "valid_every",
            "valid_samples",
            "checkpoint_every",
            "log_every",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"training.{name} must be at least 1, got {value}")
        if self.learning_rate <= 0:
            raise UserError(f"training.learning_rate must be positive, got {self.learning_rate}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise UserError(f"training.warmup_steps must not be negative, got {self.warmup_steps}")
        if self.muon_scale <= 0:
            raise UserError(f"training.muon_scale must be positive, got {self.muon_scale}")
        for name in ("weight_decay", "grad_clip"):
            if getattr(self, name) < 0:
                raise UserError(f"training.{name} must not be negative, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"training.{name} must lie in [0, 1), got {getattr(self, name)}")
        if self.gradient_draws < 0 or self.gradient_draws == 1:
            raise UserError(
                f"training.gradient_draws must be 0 or at least 2, got {self.gradient_draws}"
            )
        if self.pack_len is not None and self.pack_len < 1:
            raise UserError(f"training.pack_len must be at least 1, got {self.pack_len}")
        if self.pack_len is not None and self.batching != "pack":
            raise UserError("training.pack_len belongs to training.batching=pack")
        if not 0 < self.decay_share <= 1:
            raise UserError(f"training.decay_share must lie in (0, 1], got {self.decay_share}")
        if self.freeze is not None and self.lora.rank_of(self.freeze):
            short = "plan" if self.freeze == "plan" else "exec"
            raise UserError(
                f"training.freeze={self.freeze} contradicts its adapters of rank "
                f"{self.lora.rank_of(self.freeze)}; set training.lora.{short}_rank=0"
            )
        for name, allowed in (
            ("optimizer", ("adamw", "muon")),
            ("lr_schedule", ("constant", "cosine", "wsd")),
            ("batching", ("bucket", "pack")),
            ("freeze", (None, "plan", "execution")),
        ):
            if getattr(self, name) not in allowed:
                choices = ", ".join(str(value or "null") for value in allowed)
                raise UserError(f"training.{name}={getattr(self, name)}: choose one of {choices}")

    def for_processes(self, processes: int) -> TrainingConfig:
        """These settings with the ``accumulate`` that ``global_batch_size`` takes.

        Raises:
            UserError: the global batch is not made of whole micro-batches, or contradicts
                ``accumulate``.
        """
        total, share = self.global_batch_size, self.batch_size * processes
        if total is None:
            return self
        made = f"training.batch_size={self.batch_size} x {processes} process(es) = {share}"
        if total % share:
            raise UserError(
                f"training.global_batch_size={total} is no multiple of {made}; "
                f"{_remedy(total, self.batch_size, processes)}"
            )
        if self.accumulate not in (1, total // share):
            raise UserError(
                f"training.global_batch_size={total} contradicts "
                f"training.accumulate={self.accumulate} with {made}; leave out one of them"
            )
        return replace(self, accumulate=total // share)

    @property
    def resolved_warmup_steps(self) -> int:
        if self.warmup_steps is not None:
            return self.warmup_steps
        return min(2_500, self.max_steps // 10)

    @property
    def log_interval(self) -> int:
        """Steps between logged losses; at least one is logged in the shortest run."""
        return min(self.log_every, self.max_steps)

    @property
    def valid_interval(self) -> int:
        """Steps between validations; at least one is made in the shortest run."""
        return min(self.valid_every, self.max_steps)


def _remedy(total: int, limit: int, processes: int) -> str:
    """The largest batch size up to ``limit`` with which the global batch comes out even."""
    for size in range(min(limit, total // processes), 0, -1):
        if total % (size * processes) == 0:
            return f"set training.batch_size={size}"
    return f"it must be a multiple of the number of processes, {processes}"


@dataclass(frozen=True)
class TrainerConfig:
    """The ``trainer`` group: where and how the steps are computed."""

    accelerator: str = "auto"
    """``cpu``, ``gpu`` or ``auto``."""
    devices: str | int = "auto"
    """Processes per node."""
    num_nodes: int = 1
    """Nodes (SLURM)."""
    strategy: str = "auto"
    """Lightning's strategy: ``auto`` (one process, else ``ddp``), ``ddp``, ...; ``fsdp`` divides
    weights, optimiser and average among the processes."""
    precision: str = "auto"
    """Of training: ``bf16-mixed``, ``32-true`` or ``auto``: bf16 where the hardware multiplies it.
    Evaluation and sampling compute in float32."""
    attention: str = "auto"
    """``sdpa``, ``flex`` or ``auto``: FlexAttention on CUDA, SDPA elsewhere."""
    activation_checkpoint: str = "none"
    """What the backward pass computes a second time instead of keeping it: ``none``, ``mlp`` (norm
    and feed-forward layer of every block) or ``block`` (all of every block but the last). For less
    memory and more time; the same gradients."""
    compile: bool = False
    """Compile the training step (``torch.compile``); needs ``training.batching=pack``. On two CPU
    cores it was not faster; on CUDA it has not been measured."""
    compile_mode: str = "default"
    """``torch.compile``'s mode: ``default``, ``reduce-overhead`` (CUDA graphs),
    ``max-autotune-no-cudagraphs`` or ``max-autotune``. Only the first has been run."""
    num_workers: int = 0
    """Processes that prepare batches; 0: the training process itself."""
    loggers: tuple[str, ...] = ("csv", "tensorboard")
    """Any of ``csv``, ``tensorboard``, ``wandb`` (needs the extra)."""
    progress_bar: bool = True
    """Show a progress bar; without a terminal, print a line now and then."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(
                f"trainer.precision={self.precision}: choose one of {', '.join(PRECISIONS)}"
            )
        if self.activation_checkpoint not in ACTIVATION_CHECKPOINTS:
            raise UserError(
                f"trainer.activation_checkpoint={self.activation_checkpoint}: choose one of "
                f"{', '.join(ACTIVATION_CHECKPOINTS)}"
            )
        if self.compile_mode not in COMPILE_MODES:
            raise UserError(
                f"trainer.compile_mode={self.compile_mode}: choose one of "
                f"{', '.join(COMPILE_MODES)}"
            )
        if self.num_workers < 0:
            raise UserError(f"trainer.num_workers must not be negative, got {self.num_workers}")
        if self.num_nodes < 1:
            raise UserError(f"trainer.num_nodes must be at least 1, got {self.num_nodes}")
        if not _DEVICES.fullmatch(str(self.devices)):
            raise UserError(
                f"trainer.devices={self.devices}: give a number from 1 up, auto, or a list as "
                "'trainer.devices=\"0,1\"'"
            )
        for name in self.loggers:
            if name not in LOGGERS:
                raise UserError(f"trainer.loggers: {name}: choose from {', '.join(LOGGERS)}")


def check_strategy(training: TrainingConfig, trainer: TrainerConfig) -> None:
    """Refuse what needs whole matrices in every process where they are divided among them."""
    if "fsdp" not in trainer.strategy and "deepspeed" not in trainer.strategy:
        return
    for setting, remedy in (
        ("optimizer=muon" if training.optimizer == "muon" else None, "optimizer=adamw"),
        (f"gradient_draws={training.gradient_draws}" if training.gradient_draws else None,
         "gradient_draws=0"),
        ("lora" if any(map(training.lora.rank_of, MODULES)) else None, "lora.rank=0"),
    ):  # fmt: skip
        if setting:
            raise UserError(
                f"training.{setting} needs whole weights, which trainer.strategy="
                f"{trainer.strategy} divides; use training.{remedy} or trainer.strategy=ddp"
            )


def leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with the names of nested ones joined by dots."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        nested = isinstance(value, Mapping)
        found |= leaves(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return found
