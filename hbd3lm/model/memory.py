"""How much memory a training step takes, worked out from shapes before anything is allocated.

Counted: weights, gradients, the optimiser's moments, the weight average, and what the backward
pass keeps of the largest batch, by tensor, as ``transformer.py`` and the loss compute it. Tests
compare the count with the tensors autograd saves (5 %) and with the peak of a real process (25 %).
On CUDA it is the same count without the dense mask, and has not been measured.

Elements of one token in one block: D = dim, Q = heads * head width, K = the same of keys, F = MLP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cross_entropy import cross_entropy_bytes
from hbd3lm.model.transformer import Transformer

GIB = 2**30
RUNTIME_BYTES = {"cpu": 450 * 2**20, "cuda": 600 * 2**20}
"""Interpreter and libraries (resident); context and kernels. The second is an expectation."""


@dataclass(frozen=True)
class BatchShape:
    """Tokens of a batch, padding included.

    Attributes:
        rows: sequences.
        clean, noisy: tokens of each stream in a row; ``noisy`` is 0 for next-token prediction.
        predicted: masked tokens in all rows.
    """

    rows: int
    clean: int
    noisy: int
    predicted: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step."""

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    logits: int
    runtime: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {gib(value)}" for name, value in vars(self).items() if value)
        return f"{gib(self.total)} ({parts})"


def gib(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.2f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"


def count_weights(config: ModelConfig) -> tuple[int, int]:
    """Number of weights, and of those in the matrices of the blocks (Muon's). Allocates nothing."""
    with torch.device("meta"):
        net = Transformer(config)
    matrices = sum(p.numel() for n, p in net.named_parameters() if p.dim() > 1 and ".blocks." in n)
    return net.count_parameters(), matrices


def activation_bytes(
    config: ModelConfig, shape: BatchShape, mixed: bool = False, dense_mask: bool = True
) -> int:
    """What autograd keeps of one forward pass, logits aside.

    Args:
        mixed: bf16 autocast: matrices and attention keep 2 bytes an element, norms 4.
        dense_mask: SDPA's mask [rows, queries, keys], and on the CPU in bf16 the probabilities of
            every head; FlexAttention has neither to speak of.
    """
    s = 2 if mixed else 4  # bytes of what matrix products and attention read
    D, F = config.dim, config.resolved_hidden_dim
    Q = config.n_heads * config.resolved_head_dim
    K = config.resolved_kv_heads * config.resolved_head_dim
    norm = D * 4 + D * s  # it keeps its input; its output feeds matrices
    keys, queries = 2 * K * s, 0  # the projections' own output
    if config.qk_norm:  # whose input they are
        queries += Q * s
    rotated_keys, rotated_queries = K * s, Q * s
    mixed_values = (1 if dense_mask else 2) * Q * s  # FlexAttention's output, and head by head
    mlp = (2 if config.mlp == "swiglu" else 1) * F * s  # what is made of it is made again
    dropout = 2 * D if config.dropout else 0
    attention = keys + queries + rotated_queries + mixed_values
    whole = 2 * norm + attention + mlp + dropout
    depth, N, Lc, Ln = config.n_layers, shape.rows, shape.clean, shape.noisy
    if Ln:
        # Clean tokens end at the last block's keys, or, where they predict, at its attention; noisy
        # ones join theirs to those of the past.
        clean = (depth - 1) * (whole + rotated_keys) + norm + rotated_keys
        clean += attention if config.shift else keys
        joined = depth * 2 * K * s * (Lc + Ln)
        if config.modules == "separate":  # clean executions join the question's and the plan's
            joined += depth * 2 * K * s * Lc
        noisy = (depth - 1) * whole + norm + attention
        if not config.qk_norm:  # nobody reads the projection again once it is joined
            noisy -= depth * keys
        tokens = N * (Lc * clean + joined + Ln * noisy)
    else:
        tokens = N * Lc * ((depth - 1) * (whole + rotated_keys) + norm + attention + rotated_keys)
    # The last block's MLP, the final norm and the head see the predicted tokens only.
    tokens += shape.predicted * (Q * s + norm + mlp + dropout + norm)
    mask = 0
    if dense_mask:
        mask = N * (Lc * Lc + Ln * (Lc + Ln)) * s
        if mixed:
            clean_layers = depth - 1 if Ln and not config.shift else depth
            pairs = clean_layers * Lc * Lc + depth * Ln * (Lc + Ln)
            mask += N * config.n_heads * pairs * s
    copies = 2 * count_weights(config)[0] if mixed else 0  # bf16 copies of the matrices
    return tokens + mask + copies


def estimate_training(
    config: ModelConfig,
    shape: BatchShape,
    *,
    optimizer: str = "adamw",
    average: bool = True,
    mixed: bool = False,
    device: str = "cpu",
    processes: int = 1,
    sharded: bool = False,
    trained: float = 1.0,
) -> MemoryEstimate:
    """Bytes one process needs for its largest batch; see the head of this file.

    Args:
        average: the weights are averaged (EMA).
        trained: share of the weights that are trained: of a frozen module, or one with low-rank
            adapters, there are no gradients and moments.
        processes: with more than one, DDP keeps the gradients a second time.
        sharded: FSDP instead of DDP. Every process keeps a share of everything; what gathers the
            weights is the whole step, so that for its time they, and their gradients, are there
            as a whole as well. Worked out, not measured.
    """
    weights, matrices = count_weights(config)
    moments = round(trained * (2 * weights - (matrices if optimizer == "muon" else 0)))
    shares = processes if sharded else 1
    share = -(-weights // shares)
    gathered = weights if sharded and processes > 1 else 0
    twice = 2 if processes > 1 and not sharded else 1
    return MemoryEstimate(
        weights=4 * (share + gathered),
        gradients=4 * round(trained * (share * twice + gathered)),
        optimizer=4 * -(-moments // shares),
        average=4 * share if average else 0,
        activations=activation_bytes(config, shape, mixed, dense_mask=device == "cpu"),
        logits=cross_entropy_bytes(shape.predicted, config.vocab_size - 1, mixed),
        runtime=RUNTIME_BYTES[device],
    )


def scale_rows(shape: BatchShape, rows: int) -> BatchShape:
    """The same with another number of rows."""
    return replace(shape, rows=rows, predicted=-(-shape.predicted * rows // shape.rows))


def limit_length(shape: BatchShape, old: int, new: int, targets: int) -> BatchShape:
    """The same under lower caps: ``new`` tokens a problem instead of ``old``.

    ``targets`` of the old ones were predicted, the others the question's. Problems that were
    shorter than the new caps stay as they are.
    """
    clean = min(shape.clean, new)
    if not shape.noisy:
        return BatchShape(shape.rows, clean, 0, shape.predicted * clean // shape.clean)
    noisy = min(shape.noisy, targets * new // old)
    return BatchShape(shape.rows, clean, noisy, shape.predicted * noisy // shape.noisy)


def estimate_evaluation(
    config: ModelConfig, length: int, rows: int, block: int, device: str = "cpu"
) -> int:
    """Bytes of scoring or sampling ``rows`` problems of at most ``length`` tokens at a time.

    Weights, the keys and values of all layers (float32, twice: those joined beside those that
    were), one layer's tensors, the mask, and the larger of what scoring half the tokens takes
    without logits and of a sampler's logits for ``block`` tokens of every problem.
    """
    weights = count_weights(config)[0]
    kv = 2 * config.resolved_kv_heads * config.resolved_head_dim
    tokens, n_classes = rows * length, config.vocab_size - 1
    caches = 2 * config.n_layers * kv * tokens * 4
    layer = (8 * config.dim + 2 * config.resolved_hidden_dim) * 2 * tokens * 4
    mask = 2 * rows * length * 2 * length * 4 if device == "cpu" else 0
    sampled = 3 * 4 * rows * block * n_classes  # logits, probabilities and one temporary
    logits = max(cross_entropy_bytes(tokens // 2, n_classes, mixed=False), sampled)
    return 4 * weights + caches + layer + mask + logits + RUNTIME_BYTES[device]
