"""Out of memory: what the run needs, what there is, and which of three settings to lower to what.

The three are those of the training script: BATCH_SIZE, MODEL_SIZE, TOTAL_LEN.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from hbd3lm.allocator import HeldMemory
from hbd3lm.errors import UserError
from hbd3lm.train.config import ACTIVATION_CHECKPOINTS

if TYPE_CHECKING:
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.layout import Document, Layout
    from hbd3lm.model.memory import BatchShape, MemoryEstimate
    from hbd3lm.train.config import TrainerConfig

SIZES = ("medium", "small", "tiny", "nano")
"""Model sizes, the largest first."""
LENGTHS = (384, 256, 192, 128)
"""Values of total_len that are proposed."""
FILL = 0.9
"""Share of a device's memory that an estimate may fill."""
HELD = {"cpu": HeldMemory.SHARE, "cuda": 1.0}
"""What a long run comes to hold, as a multiple of the estimate."""


@dataclass(frozen=True)
class TrainingNeeds:
    """What the memory of a training step depends on.

    Attributes:
        shape: the largest batch of one process.
        total_len: most tokens of a problem; ``targets``: of these, after the question.
        options: keyword arguments of :func:`hbd3lm.model.memory.estimate_training`.
        match: ``hierarchical.match``.
    """

    model: ModelConfig
    shape: BatchShape
    total_len: int
    targets: int
    options: dict
    match: str = "operations"

    def estimate(self) -> MemoryEstimate:
        from hbd3lm.model.memory import estimate_training

        return estimate_training(self.model, self.shape, **self.options)


def largest_batch(
    documents: Sequence[Document],
    batch_size: int,
    layout: Layout,
    autoregressive: bool,
    share: float,
) -> BatchShape:
    """The shape of a batch of the longest documents.

    Args:
        share: of the tokens that are masked on average.
    """
    from hbd3lm.model.memory import BatchShape

    longest = sorted(documents, key=len)[-batch_size:]
    rows = batch_size  # an epoch's end may repeat a document
    if autoregressive:
        length = len(longest[-1]) - 1
        targets = sum(len(d.targets) for d in longest) * rows // len(longest)
        return BatchShape(rows, length, 0, targets)
    last = layout.segments[-1].block_size  # of which there is no clean copy
    clean = max(len(d) for d in longest) - last
    noisy = max(len(d.targets) for d in longest)
    predicted = sum(len(d.targets) for d in longest) * rows // len(longest)
    return BatchShape(rows, clean, noisy, int(predicted * share))


def training_needs(
    cfg: DictConfig, model: ModelConfig, layout: Layout, documents: Sequence[Document], device: str
) -> TrainingNeeds:
    """What the configuration and these documents ask of one process on ``cpu`` or ``cuda``."""
    from hbd3lm.commands.settings import typed
    from hbd3lm.model.precision import resolve_precision
    from hbd3lm.train.config import MODULES, TrainingConfig
    from hbd3lm.train.lora import trained_share

    config = typed(TrainingConfig, cfg.training, "training")
    # A searched schedule may end at the interval that masks most.
    low, high = cfg.algo.t_min, cfg.algo.t_max
    share = (low + high) / 2 if cfg.algo.schedule == "loglinear" else (low + 3 * high) / 4
    autoregressive = cfg.algo.objective == "autoregressive"
    return TrainingNeeds(
        model,
        largest_batch(documents, cfg.training.batch_size, layout, autoregressive, share),
        layout.max_len,
        layout.max_len - layout.question_len,
        {
            "optimizer": "adamw" if any(map(config.lora.rank_of, MODULES)) else config.optimizer,
            "trained": trained_share(model, config),
            "average": cfg.training.ema_decay > 0,
            "mixed": resolve_precision(cfg.trainer.precision) == "bf16-mixed",
            "device": device,
            "processes": count_processes(cfg.trainer, device),
            "sharded": cfg.trainer.strategy == "fsdp",
            "activation_checkpoint": cfg.trainer.activation_checkpoint,
        },
        cfg.hierarchical.match,
    )


def resolve_device(accelerator: str) -> str:
    """``cuda`` or ``cpu``: where a run with this ``trainer.accelerator`` computes."""
    import torch

    return "cuda" if torch.cuda.is_available() and accelerator != "cpu" else "cpu"


def count_processes(trainer: TrainerConfig | DictConfig, device: str) -> int:
    """Processes of a run with this ``trainer`` group, on all nodes."""
    import torch

    devices = str(trainer.devices)
    if devices in ("auto", "-1"):
        here = torch.cuda.device_count() if device == "cuda" else 1
    else:
        here = int(devices) if devices.isdigit() else len(devices.strip("[],").split(","))
    return here * trainer.num_nodes


def device_memory(device: str) -> int:
    """Bytes one process may use: of the GPU, else of the machine, its cgroup and its own limit."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[1]
    limits = [_machine_memory(), *_cgroup_limits()]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits)


def free_memory(device: str) -> int:
    """Of :func:`device_memory`, what no program uses now, as far as the system tells."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    free = device_memory(device)
    with contextlib.suppress(OSError):  # Linux only
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = min(free, 1024 * int(line.split()[1]))
    return free


def _machine_memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_limits() -> list[int]:
    """What SLURM's --mem or a container allows (cgroup v2 and v1)."""
    limits = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = "/sys/fs/cgroup" + ("/memory" if controllers == "memory" else "")
            folder = Path(root + path)
            for place in (folder, *folder.parents):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    with contextlib.suppress(OSError, ValueError):
                        limits.append(int((place / name).read_text()))
    return limits


# --- what to lower ----------------------------------------------------------------------------


def advise(
    needs: TrainingNeeds, available: int, config_models: dict[str, ModelConfig]
) -> list[str]:
    """For each of the three settings the largest smaller value that fits, with its estimate.

    A setting that does not suffice alone is named with its smallest value, and says so. Last comes
    what costs time instead.
    """
    from hbd3lm.model.memory import gib, limit_length, scale_rows

    room = FILL * available / HELD[needs.options["device"]]
    current = needs.estimate().total
    advice = []

    def choose(values, change, text):
        found = None
        for value in values:
            estimate = change(value).estimate().total
            if estimate < current:
                found = (value, estimate)
                if estimate <= room:
                    break
        if found:
            value, estimate = found
            alone = "" if estimate <= room else ", not enough alone"
            advice.append(f"{text(value)} ({gib(estimate)}{alone})")

    rows = needs.shape.rows
    halves = [rows >> i for i in range(1, rows.bit_length())]
    choose(
        halves,
        lambda value: replace(needs, shape=scale_rows(needs.shape, value)),
        lambda value: (
            f"BATCH_SIZE={value}, which is training.batch_size={value}"
            + (
                f"; training.accumulate={rows // value} keeps the step the same"
                if rows % value == 0
                else ""
            )
        ),
    )
    weights = _weights(needs.model)
    smaller = [n for n in SIZES if n in config_models and _weights(config_models[n]) < weights]
    choose(
        smaller,
        lambda name: replace(needs, model=config_models[name]),
        lambda name: f"MODEL_SIZE={name}, which is model={name}",
    )
    choose(
        [length for length in LENGTHS if length < needs.total_len],
        lambda value: replace(
            needs, shape=limit_length(needs.shape, needs.total_len, value, needs.targets)
        ),
        lambda value: f"TOTAL_LEN={value}, which is training.hierarchical.total_len={value}",
    )
    kept = needs.options.get("activation_checkpoint", "none")
    choose(
        ACTIVATION_CHECKPOINTS[ACTIVATION_CHECKPOINTS.index(kept) + 1 :],
        lambda value: replace(needs, options=needs.options | {"activation_checkpoint": value}),
        lambda value: f"or compute again what is kept: trainer.activation_checkpoint={value}",
    )
    return advice


def _weights(model: ModelConfig) -> int:
    from hbd3lm.model.memory import count_weights

    return count_weights(model)[0]


def named_models(model: ModelConfig, match: str = "operations") -> dict[str, ModelConfig]:
    """The sizes of ``configs/model`` with the vocabulary and modules of ``model``."""
    from hbd3lm.commands.build import build_model_config
    from hbd3lm.commands.compose import CONFIGS

    def sized(name: str) -> ModelConfig:
        cfg = OmegaConf.load(f"{CONFIGS}/config.yaml")
        cfg.model = OmegaConf.load(f"{CONFIGS}/model/{name}.yaml")
        cfg.hierarchical = {"modules": model.modules, "match": match}
        return build_model_config(cfg, model.vocab_size)

    return {name: sized(name) for name in SIZES}


def training_remedy(needs: TrainingNeeds, available: int) -> str:
    """One line: the estimate, what there is, and what to lower."""
    from hbd3lm.model.memory import gib

    advice = advise(needs, available, named_models(needs.model, needs.match))
    lower = "lower one of: " + "; ".join(advice) if advice else "use a machine with more memory"
    return (
        f"a step with the longest {needs.shape.rows} problems is estimated at {needs.estimate()}, "
        f"and {needs.options['device']} has {gib(available)}; {lower}"
    )


# --- when it has happened ---------------------------------------------------------------------

_SIGNS = ("can't allocate memory", "out of memory", "bad_alloc", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Is this torch's, CUDA's or Python's way to say that there is no memory left?"""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(
        sign in str(error).lower() for sign in _SIGNS
    )


@contextlib.contextmanager
def explain_training(
    cfg: DictConfig, model: ModelConfig, layout: Layout, documents: Sequence[Document]
) -> Iterator[None]:
    """Turn running out of memory in the body into a UserError with estimate and remedy."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        device = resolve_device(cfg.trainer.accelerator)
        needs = training_needs(cfg, model, layout, documents, device)
        raise UserError(
            f"out of memory while training ({_first_line(error)}): "
            f"{training_remedy(needs, device_memory(device))}. What was saved stays; "
            "hbd3lm doctor checks this before a job"
        ) from None


@contextlib.contextmanager
def explain_evaluation(
    model: ModelConfig, layout: Layout, key: str, batch_size: int, device: str
) -> Iterator[None]:
    """The same for evaluation and sampling, where ``key`` is the batch size that counts.

    Model and lengths are those of the checkpoint there.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        from hbd3lm.model.memory import estimate_evaluation, gib

        def estimate(rows: int) -> int:
            block = max(segment.block_size for segment in layout.segments)
            return estimate_evaluation(model, layout.max_len, rows, block, device)

        need = estimate(batch_size)
        room, available = 0, device_memory(device)
        lower = batch_size // 2
        while lower > 1 and estimate(lower) > FILL * available:
            lower //= 2
        if lower:
            room = estimate(lower)
        name = "BATCH_SIZE, here " if key == "training.batch_size" else ""
        remedy = (
            f"lower {name}{key}={lower} ({gib(room)})"
            if lower
            else "one problem at a time is too much for this machine: train a smaller MODEL_SIZE "
            "or TOTAL_LEN, or use one with more memory"
        )
        raise UserError(
            f"out of memory while evaluating ({_first_line(error)}): {batch_size} problems of "
            f"{layout.max_len} tokens are estimated at {gib(need)}, and {device} has "
            f"{gib(available)}; {remedy}"
        ) from None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    line = next((line for line in lines if "allocate" in line.lower()), lines[0] if lines else "")
    # The allocator's own prefix names a line of torch's source.
    line = line.rpartition("DefaultCPUAllocator: ")[2]
    return line[:160].rstrip(". ") or type(error).__name__
