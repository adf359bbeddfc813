"""How a masked block becomes text: which positions are decided when.

``first_hitting`` and ``ancestral`` sample from the model; ``confidence`` decodes. With absorbing
noise and no time conditioning the network's answer depends on x_t only, so positions are
chosen *before* the network runs and it is asked about those alone.

Shapes: n problems, B tokens a block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hbd3lm.errors import UserError
from hbd3lm.model.precision import PRECISIONS
from hbd3lm.sample.randomness import ORDER, uniforms

METHODS = ("first_hitting", "ancestral", "confidence")


@dataclass(frozen=True)
class SamplingConfig:
    """The ``sampling`` group of the configuration."""

    method: str = "confidence"
    """``first_hitting`` (exact, a token a pass), ``ancestral`` (a fixed number of steps a block),
    ``confidence`` (the most confident tokens first)."""
    steps: int | None = None
    """Denoising steps a block for ``ancestral`` and ``confidence``; None: the block's size."""
    threshold: float | None = None
    """``confidence`` only: instead of a fixed number, decide all tokens at least this probable."""
    temperature: float = 0.0
    """Divides the logits; 0: the most probable token."""
    top_p: float = 1.0
    """Nucleus: sample from the most probable tokens that hold this mass."""
    batch_size: int = 64
    """Problems in flight."""
    precision: str = "32-true"
    """``32-true``; ``bf16-mixed``: products and cache in bf16, faster where the hardware has it,
    but rounded differently in other company; ``auto``: bf16 where the hardware has it."""
    compile: bool = False
    """Compile the network's blocks (``torch.compile``), once for all shapes: a minute at first,
    then faster passes, rounded as fused arithmetic is. The CPU needs a C++ compiler for it."""
    seed: int = 0
    """Of the random numbers."""
    trajectory: bool = False
    """Record what every pass decides; the samples stay the same to the bit."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"sampling.method={self.method}: choose one of {', '.join(METHODS)}")
        if self.steps is not None and self.steps < 1:
            raise UserError(f"sampling.steps must be at least 1, got {self.steps}")
        if self.threshold is not None and self.method != "confidence":
            raise UserError("sampling.threshold belongs to sampling.method=confidence")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"sampling.threshold must lie in (0, 1], got {self.threshold}")
        if self.temperature < 0:
            raise UserError(f"sampling.temperature must not be negative, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"sampling.top_p must lie in (0, 1], got {self.top_p}")
        if self.precision not in PRECISIONS:
            raise UserError(
                f"sampling.precision={self.precision}: choose one of {', '.join(PRECISIONS)}"
            )
        if self.batch_size < 1:
            raise UserError(f"sampling.batch_size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True)
class BlockState:
    """Blocks being denoised, as a strategy sees them (numpy, on the CPU).

    Attributes:
        masked: bool [n, B].
        problem: [n] ids that random numbers are tied to.
        ordinal: [n] block ordinals.
        step: [n] denoising steps already taken (advanced by ``choose``).
        size: [n] tokens in each block (B is the largest).
    """

    masked: np.ndarray
    problem: np.ndarray
    ordinal: np.ndarray
    step: np.ndarray
    size: np.ndarray


class Strategy(Protocol):
    """Decides, a pass at a time, which masked tokens of n blocks are sampled and kept."""

    def choose(self, state: BlockState) -> np.ndarray:
        """Bool [n, B]: what to ask the network; at least one position a problem."""

    def decide(self, state: BlockState, asked: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        """Bool [n, B]: which of the asked positions keep their token, given its probability."""


def make_strategy(config: SamplingConfig) -> Strategy:
    """The strategy that ``config.method`` names."""
    if config.method == "first_hitting":
        return FirstHitting(config.seed)
    if config.method == "ancestral":
        return Ancestral(config.seed, config.steps)
    return Confidence(config.steps, config.threshold)


@dataclass(frozen=True)
class FirstHitting:
    """First-hitting sampler (Zheng et al., 2024): exact, one network evaluation a token.

    The time of the next reveal is t * u^(1/n), but nobody reads it: the network is not told the
    time. What remains of the process is its order: a uniformly random masked position each.
    """

    seed: int

    def choose(self, state: BlockState) -> np.ndarray:
        keys = _order_uniforms(self.seed, state)
        state.step[:] += 1
        first = np.where(state.masked, keys, 2.0).argmin(1)
        asked = np.zeros_like(state.masked)
        asked[np.arange(len(first)), first] = True
        return asked

    def decide(self, state: BlockState, asked: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        return asked


@dataclass(frozen=True)
class Ancestral:
    """Ancestral sampling on a grid of T times: t = 1, 1 - 1/T, ..., 0 (MDLM's sampler).

    Going from t to s = t - 1/T reveals each masked token with probability (t - s) / t. Steps
    that reveal nothing are passed over without asking the network.
    """

    seed: int
    steps: int | None

    def choose(self, state: BlockState) -> np.ndarray:
        total = state.size if self.steps is None else np.full_like(state.size, self.steps)
        asked = np.zeros_like(state.masked)
        waiting = np.ones(len(asked), dtype=bool)
        while waiting.any():
            keys = _order_uniforms(self.seed, state)
            # (t - s) / t with t = 1 - step / T; certain at the last step.
            probability = 1.0 / np.maximum(total - state.step, 1)
            hit = state.masked & (keys < probability[:, None])
            asked[waiting] = hit[waiting]
            state.step[waiting] += 1
            waiting &= ~asked.any(1)
        return asked

    def decide(self, state: BlockState, asked: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        return asked


@dataclass(frozen=True)
class Confidence:
    """Most confident first: an equal share of the block each step, or all above a threshold.

    The threshold form is the parallel decoding of Fast-dLLM (Wu et al., 2025); the most confident
    token is always kept, so every step makes progress.
    """

    steps: int | None
    threshold: float | None

    def choose(self, state: BlockState) -> np.ndarray:
        state.step[:] += 1
        return state.masked

    def decide(self, state: BlockState, asked: np.ndarray, confidence: np.ndarray) -> np.ndarray:
        confidence = np.where(asked, confidence, -1.0)
        # Rank 0 is the most confident; ties go to the left.
        rank = np.argsort(np.argsort(-confidence, axis=1, kind="stable"), axis=1, kind="stable")
        if self.threshold is not None:
            return asked & ((confidence >= self.threshold) | (rank == 0))
        total = state.size if self.steps is None else np.minimum(self.steps, state.size)
        left = asked.sum(1)
        quota = np.ceil(left / np.maximum(total - state.step + 1, 1))
        return asked & (rank < quota[:, None])


def _order_uniforms(seed: int, state: BlockState) -> np.ndarray:
    """The numbers that order the reveals: [n, B], one for each (problem, block, step, place)."""
    problem, ordinal, step = (x[:, None] for x in (state.problem, state.ordinal, state.step))
    places = np.arange(state.masked.shape[1])[None]
    return uniforms(seed, problem, ordinal, step, places, ORDER)
