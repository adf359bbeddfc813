"""The groups of a configuration as typed settings; refusals name the key."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.sample.strategies import SamplingConfig

T = TypeVar("T")
MAY_BE_LEFT_OUT = ("checkpoint", "data.dir", "data.train_path", "data.valid_path",
                   "data.test_path", "training.init_from")  # fmt: skip
TEXT = ("run_dir", "run_name", "model.name", "eval.output_dir", *MAY_BE_LEFT_OUT)
"""Settings that are names or paths; numbers given for them are quoted (``overrides.py``)."""


@dataclass(frozen=True)
class HierarchicalConfig:
    """The ``hierarchical`` group: segments, caps, blocks, modules."""

    enabled: bool = True
    """False: question -> execution, without a plan."""
    question_len: int = 128
    """Cap of the question in tokens."""
    plan_len: int = 128
    """Cap of the plan in tokens."""
    exec_len: int = 256
    """Cap of the execution in tokens."""
    total_len: int | None = None
    """Cap of all together; the caps above shrink in proportion to meet it."""
    plan_block_size: int = 16
    """Tokens of the plan denoised together."""
    exec_block_size: int = 16
    """Tokens of the execution denoised together."""
    modules: str = "shared"
    """``shared`` or ``separate`` weights for plan and execution."""
    match: str = "operations"
    """``separate``: two modules of the model's sizes, which cost a token as many ``operations`` as
    a shared one; or narrower ones that hold as many ``parameters``."""

    def __post_init__(self) -> None:
        if self.match not in ("operations", "parameters"):
            raise UserError(
                f"hierarchical.match={self.match}: choose one of operations, parameters"
            )
        if self.match == "parameters" and self.modules == "shared":
            raise UserError(
                "hierarchical.match=parameters is for hierarchical.modules=separate: a shared "
                "model has no other to be matched with"
            )


@dataclass(frozen=True)
class AlgoConfig:
    """The ``algo`` group: what is learned, and with which noise."""

    name: str
    """Of the method."""
    objective: str = "diffusion"
    """``diffusion`` or ``autoregressive``."""
    schedule: str = "loglinear"
    """``loglinear``: times from (t_min, t_max]; ``searched``: half of it, found as a run learns."""
    t_min: float = 1e-3
    """Least time of the training noise."""
    t_max: float = 1.0
    """Greatest time of the training noise."""


@dataclass(frozen=True)
class DataConfig:
    """The ``data`` group: where problems and plans come from."""

    name: str
    """A data set of :func:`hbd3lm.data.sources.load_problems`."""
    dir: str | None = None
    """Folder with its files."""
    train_path: str | None = None
    """Plan file to train on; None: problems of ``name`` with plans by the planner."""
    valid_path: str | None = None
    """Plan file to validate on; None: a slice held out of the training problems."""
    test_path: str | None = None
    """Plan file to test on."""
    valid_size: int = 256
    """Problems held out, at most a tenth of all."""
    num_train: int | None = None
    """Only the first so many training problems (the held-out ones among them)."""
    num_test: int = 400
    """``laboratory``: problems held out."""
    min_steps: int = 1
    """``laboratory``: fewest calculations of a solution."""
    max_steps: int = 2
    """``laboratory``: most calculations of a solution."""
    largest_number: int = 20
    """``laboratory``: no calculation has a larger number in it."""

    def __post_init__(self) -> None:
        for name in (
            "valid_size",
            "num_train",
            "num_test",
            "min_steps",
            "max_steps",
            "largest_number",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class EvalConfig:
    """The ``eval`` group: which problems are scored, and how thoroughly."""

    split: str = "test"
    """``test``, or ``valid``: the problems held out while training."""
    num_examples: int | None = None
    """Only the first so many problems."""
    samples: int = 16
    """``ppl_eval``: noise draws per problem (and turn)."""
    precision: float | None = None
    """``ppl_eval``: take turns of so many draws until the 95 % interval of the draws is within this
    share of the perplexity, 0.005 for half a percent; None: one turn."""
    max_samples: int = 256
    """``ppl_eval``: draws per problem after which to stop, whatever the precision."""
    output_dir: str = "eval"
    """Folder of results."""

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise UserError(f"eval.split={self.split}: choose test or valid")
        if self.num_examples is not None and self.num_examples < 1:
            raise UserError(f"eval.num_examples must be at least 1, got {self.num_examples}")
        if self.samples < 1:
            raise UserError(f"eval.samples must be at least 1, got {self.samples}")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UserError(
                f"eval.precision must lie between 0 and 1 (0.005: half a percent), got "
                f"{self.precision}"
            )
        if self.precision is not None and self.max_samples < 2 * self.samples:
            raise UserError(
                f"eval.precision compares turns of eval.samples={self.samples} draws: "
                f"eval.max_samples must be at least {2 * self.samples}, got {self.max_samples}"
            )


def typed(kind: type[T], values: Mapping[str, Any], group: str) -> T:
    """Fill a settings dataclass from a group; keys it does not have are left to others.

    Raises:
        UserError: a value of the wrong type, or one the dataclass refuses.
    """
    groups = {f.name: f.default_factory for f in fields(kind) if is_dataclass(f.default_factory)}
    nested = {
        name: typed(inner, values[name], f"{group}.{name}")
        for name, inner in groups.items()
        if name in values
    }
    names = [f.name for f in fields(kind) if f.name in values and f.name not in groups]
    chosen = {name: values[name] for name in names}
    try:
        filled = OmegaConf.merge(OmegaConf.structured(kind), chosen)
        content = {name: _plain(filled[name]) for name in names}
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{group}.{error.full_key}: {reason}") from None
    for name, value in content.items():
        # nan passes every comparison a dataclass makes to refuse what is out of bounds.
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{group}.{name}={value}: a finite number is needed")
        if isinstance(value, int) and abs(value) >= 2**31:
            raise UserError(f"{group}.{name}={value} is too large: it must be below 2**31")
    return kind(**content, **nested)


def _plain(value: Any) -> Any:
    return tuple(value) if OmegaConf.is_list(value) else value


def read_seed(cfg: DictConfig) -> int:
    """``seed``, a whole number that is not negative and that torch takes."""
    seed = cfg.seed
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise UserError(f"seed={seed}: a whole number from 0 up is needed (below 2**63)")
    return seed


def check_text(cfg: DictConfig) -> None:
    """Refuse what is no text where a name or a path must stand.

    Raises:
        UserError: names the key.
    """
    for key in TEXT:
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, str) and not (value is None and key in MAY_BE_LEFT_OUT):
            raise UserError(
                f"{key}={value}: text is needed; in quotes even 1.5 is: '{key}=\"1.5\"'"
            )


def read_sampling(cfg: DictConfig) -> SamplingConfig:
    """The ``sampling`` group, with ``seed``."""
    from hbd3lm.sample.strategies import SamplingConfig

    return typed(SamplingConfig, {**cfg.sampling, "seed": read_seed(cfg)}, "sampling")
