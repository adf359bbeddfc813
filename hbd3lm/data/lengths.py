"""How many tokens the segments take, and which caps that asks for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hbd3lm.data.encoding import Caps
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.tokenizer import ProblemTokenizer

SEGMENTS = ("question", "plan", "execution")


@dataclass(frozen=True, slots=True)
class LengthStats:
    """Tokens of one segment (its end token included) or of all three together.

    Attributes:
        mean, median, p95, p99, max: over the examples; percentiles interpolate linearly.
        cap: the most tokens that training keeps.
        truncated: number of examples longer than ``cap``; for the total, of examples that lose
            tokens in any segment.
        truncated_share: the same as a share of all examples, 0 to 1.
        recommended: smallest multiple of the block size that holds the 99th percentile; for the
            total, the sum of the segments' recommendations.
    """

    mean: float
    median: float
    p95: float
    p99: float
    max: int
    cap: int
    truncated: int
    truncated_share: float
    recommended: int


def measure_lengths(
    examples: Sequence[HierarchicalExample],
    tokenizer: ProblemTokenizer,
    caps: Caps | None = None,
    block_size: int = 16,
) -> dict[str, LengthStats]:
    """Token statistics by segment: ``question``, ``plan``, ``execution`` and ``total``.

    Args:
        examples: at least one.
        tokenizer: counts each segment's tokens; its end token is one more.
        caps: what is counted as truncated; None for 128 / 128 / 256.
        block_size: recommended caps are multiples of it.

    Raises:
        UserError: no examples, or a block size below 1.
    """
    import numpy as np

    caps = caps or Caps()
    if not examples:
        raise UserError("token lengths: there are no examples to measure")
    if block_size < 1:
        raise UserError(f"--block_size is {block_size}; it must be at least 1")

    def stats(lengths: np.ndarray, cap: int, truncated: int, recommended: int | None):
        p95, p99 = np.percentile(lengths, [95, 99])
        return LengthStats(
            mean=float(lengths.mean()),
            median=float(np.median(lengths)),
            p95=float(p95),
            p99=float(p99),
            max=int(lengths.max()),
            cap=cap,
            truncated=truncated,
            truncated_share=truncated / len(lengths),
            recommended=recommended or math.ceil(p99 / block_size) * block_size,
        )

    result = {}
    total = np.zeros(len(examples), dtype=np.int64)
    cut = np.zeros(len(examples), dtype=bool)
    for name in SEGMENTS:
        texts = [getattr(example, name) for example in examples]
        lengths = np.array([len(ids) + 1 for ids in tokenizer.encode_batch(texts)])
        cap = getattr(caps, name)
        result[name] = stats(lengths, cap, int((lengths > cap).sum()), None)
        total += lengths
        cut |= lengths > cap
    cap = sum(getattr(caps, name) for name in SEGMENTS)
    recommended = sum(result[name].recommended for name in SEGMENTS)
    result["total"] = stats(total, cap, int(cut.sum()), recommended)
    return result
