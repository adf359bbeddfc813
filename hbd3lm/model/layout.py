"""How a problem becomes blocks of tokens: segments, caps, aligned ragged blocks.

A document is question | plan | execution. The question is one clean block (ordinal 0). Every
later segment ends with its end token and is filled up to the next block boundary only; the
fill is predicted too, so that a sampler knows when to stop. Caps are caps, not paddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from hbd3lm.errors import UserError


@dataclass(frozen=True)
class SegmentSpec:
    """A segment the model predicts.

    Attributes:
        name: ``plan`` or ``execution``; also the module whose weights run it.
        max_len: cap in tokens, end token and fill included; a multiple of ``block_size``.
        block_size: tokens denoised together.
    """

    name: str
    max_len: int
    block_size: int

    def __post_init__(self) -> None:
        prefix = "plan" if self.name == "plan" else "exec"
        if self.block_size < 1:
            raise UserError(f"{prefix}_block_size must be at least 1, got {self.block_size}")
        if self.max_len < 1 or self.max_len % self.block_size:
            below = self.max_len // self.block_size * self.block_size
            near = " or ".join(str(n) for n in (below, below + self.block_size) if n > 0)
            raise UserError(
                f"hierarchical.{prefix}_len={self.max_len} is no positive multiple of the block "
                f"size {self.block_size}; set hierarchical.{prefix}_len={near}, or another "
                f"block_size (hierarchical.{prefix}_block_size)"
            )


@dataclass(frozen=True)
class Layout:
    """Which segments a method predicts, and in which blocks. Methods differ here, not in code.

    Attributes:
        question_len: cap of the question in tokens, its end token included.
        segments: in the order they are written.
    """

    question_len: int
    segments: tuple[SegmentSpec, ...]

    def __post_init__(self) -> None:
        if self.question_len < 1:
            raise UserError(f"hierarchical.question_len must be positive, got {self.question_len}")
        if not self.segments:
            raise UserError("a layout needs at least one segment")

    @property
    def max_len(self) -> int:
        """Most tokens a document can have."""
        return self.question_len + sum(segment.max_len for segment in self.segments)

    @property
    def has_plan(self) -> bool:
        return any(segment.name == "plan" for segment in self.segments)

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping) -> Layout:
        segments = tuple(SegmentSpec(**segment) for segment in values["segments"])
        return cls(values["question_len"], segments)


def plan_execution_layout(
    question_len: int = 128,
    plan_len: int = 128,
    exec_len: int = 256,
    plan_block_size: int = 16,
    exec_block_size: int = 16,
    with_plan: bool = True,
) -> Layout:
    """Question -> plan -> execution, or question -> execution (``flat``) without the plan."""
    plan = (SegmentSpec("plan", plan_len, plan_block_size),) if with_plan else ()
    return Layout(question_len, (*plan, SegmentSpec("execution", exec_len, exec_block_size)))


@dataclass(frozen=True)
class Document:
    """One problem as token arrays (numpy, int64 unless said otherwise).

    Attributes:
        question: [Lq] ids of the question, never noised, no loss.
        targets: [Ln] ids of all predicted tokens: text, end tokens and fill.
        segment: [Ln] index into ``layout.segments``.
        block: [Ln] block ordinal, 1 for the first predicted block.
        real: [Ln] bool, True for text and end tokens, False for fill; real tokens are what a
            perplexity is divided by.
    """

    question: np.ndarray
    targets: np.ndarray
    segment: np.ndarray
    block: np.ndarray
    real: np.ndarray

    @property
    def n_blocks(self) -> int:
        return int(self.block[-1])

    def __len__(self) -> int:
        return len(self.question) + len(self.targets)


def build_document(
    question: Sequence[int],
    segments: Mapping[str, Sequence[int]],
    layout: Layout,
    fill_id: int,
) -> Document:
    """Align already truncated token ids (end tokens included) to the blocks of ``layout``.

    Raises:
        UserError: a segment is empty or longer than its cap.
    """
    targets, segment_index, block, real = [], [], [], []
    next_block = 1
    for index, spec in enumerate(layout.segments):
        ids = np.asarray(segments[spec.name], dtype=np.int64)
        if not 0 < len(ids) <= spec.max_len:
            raise UserError(
                f"the {spec.name} has {len(ids)} tokens; between 1 and {spec.max_len} fit"
            )
        n_blocks = -(-len(ids) // spec.block_size)
        n_tokens = n_blocks * spec.block_size
        targets.append(np.concatenate([ids, np.full(n_tokens - len(ids), fill_id)]))
        segment_index.append(np.full(n_tokens, index))
        block.append(next_block + np.arange(n_tokens) // spec.block_size)
        real.append(np.arange(n_tokens) < len(ids))
        next_block += n_blocks
    return Document(
        question=np.asarray(question, dtype=np.int64),
        targets=np.concatenate(targets),
        segment=np.concatenate(segment_index),
        block=np.concatenate(block),
        real=np.concatenate(real),
    )
