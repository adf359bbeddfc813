"""How much memory a training step takes, worked out from shapes before anything is allocated.

Counted: weights, gradients, the optimiser's moments, the weight average, and what the backward
pass keeps of the largest batch, by tensor, as ``transformer.py`` and the loss compute it. Tests
compare the count with what a forward pass leaves (5 %) and with the peak of a real process (25 %).
On CUDA it is the same count without the dense mask, and has not been measured.

Elements of one token in one block: Q = heads * head width, K = the same of keys.
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


@dataclass(frozen=True)
class _Token:
    """Bytes that one token of one block costs, by what keeps them."""

    x: int  # the residual stream, which norms keep as their input
    normed: int
    attention: int  # less rotated keys
    keys: int  # and values: the projection's own output, and again where a past's are before them
    rotated_keys: int
    mlp: int  # what is made of it is made again
    dropout: int  # of one of two

    @classmethod
    def of(cls, config: ModelConfig, mixed: bool, dense_mask: bool) -> _Token:
        s = _bytes(mixed)
        Q = config.n_heads * config.resolved_head_dim
        K = config.resolved_kv_heads * config.resolved_head_dim
        projected = Q * s if config.qk_norm else 0  # which is the norm's input
        mixed_values = (1 if dense_mask else 2) * Q * s  # FlexAttention's output, head by head too
        return cls(
            x=config.dim * 4,
            normed=config.dim * s,
            attention=2 * K * s + projected + Q * s + mixed_values,
            keys=2 * K * s,
            rotated_keys=K * s,
            mlp=(2 if config.mlp == "swiglu" else 1) * config.resolved_hidden_dim * s,
            # Noise as wide as what it multiplies; CUDA's kernel keeps a byte.
            dropout=config.dim * (s if dense_mask else 1) if config.dropout else 0,
        )

    @property
    def before_mlp(self) -> int:
        return self.x + self.normed + self.attention + self.dropout

    @property
    def whole(self) -> int:
        return self.before_mlp + self.x + self.normed + self.mlp + self.dropout


def _bytes(mixed: bool) -> int:
    """Of an element that matrix products and attention read."""
    return 2 if mixed else 4


def activation_bytes(
    config: ModelConfig,
    shape: BatchShape,
    mixed: bool = False,
    dense_mask: bool = True,
    again: str = "none",
) -> int:
    """What autograd keeps of one forward pass, logits aside.

    Args:
        mixed: bf16 autocast: matrices and attention keep 2 bytes an element, norms 4.
        dense_mask: SDPA's mask [rows, queries, keys], and on the CPU in bf16 the probabilities of
            every head; FlexAttention has neither to speak of.
        again: ``trainer.activation_checkpoint``.
    """
    t = _Token.of(config, mixed, dense_mask)
    depth, N, Lc, Ln = config.n_layers, shape.rows, shape.clean, shape.noisy
    # A block other than the last keeps of a clean token, its rotated keys included, ...
    clean, noisy = t.whole + t.rotated_keys, t.whole
    if again == "mlp":
        clean, noisy = (tokens - t.normed - t.mlp - t.dropout for tokens in (clean, noisy))
    elif again == "block":
        clean, noisy = t.x + (t.keys + t.rotated_keys if Ln else 0), t.x
    attending = t.x + t.normed + t.attention  # of a last block
    if Ln:
        # Clean tokens end at the last block's keys, or, where they predict, at its attention; noisy
        # ones join theirs to those of the past.
        last = attending if config.shift else t.x + t.normed + t.keys
        clean = (depth - 1) * clean + last + t.rotated_keys
        noisy = (depth - 1) * noisy + attending
        joining = 1 if again == "block" else depth
        joined = joining * t.keys * (Lc + Ln)
        if config.modules == "separate":  # clean executions join the question's and the plan's
            joined += depth * t.keys * Lc
        if not config.qk_norm:  # nobody reads the projection again once it is joined
            noisy -= joining * t.keys
        tokens = N * (Lc * clean + joined + Ln * noisy)
    else:
        tokens = N * Lc * ((depth - 1) * clean + attending + t.rotated_keys)
    # The last block's MLP, the final norm and the head see the predicted tokens only.
    read = config.n_heads * config.resolved_head_dim * _bytes(mixed)
    finished = t.x if again == "mlp" else t.x + t.normed + t.mlp + t.dropout
    tokens += shape.predicted * (read + t.dropout + finished + t.x + t.normed)
    mask = 0
    if dense_mask:
        mask = N * (Lc * Lc + Ln * (Lc + Ln)) * _bytes(mixed)
        if mixed:
            layers = 1 if again == "block" else depth
            clean_layers = layers - 1 if Ln and not config.shift else layers
            pairs = clean_layers * Lc * Lc + layers * Ln * (Lc + Ln)
            mask += N * config.n_heads * pairs * _bytes(mixed)
    copies = 2 * count_weights(config)[0] if mixed else 0  # bf16 copies of the matrices
    return tokens + mask + copies


def again_bytes(
    config: ModelConfig, shape: BatchShape, mixed: bool, dense_mask: bool, again: str
) -> int:
    """What the part of a block that the backward pass runs again keeps, until it is done with it.

    Arguments as in :func:`activation_bytes`.
    """
    if again == "none":
        return 0
    t = _Token.of(config, mixed, dense_mask)
    longest = max(shape.clean, shape.noisy)
    part = t.normed + 2 * t.mlp + t.dropout  # and what is made of ``mlp``
    if again == "mlp":
        return shape.rows * longest * part
    keys = shape.clean + shape.noisy
    tokens = longest * (t.before_mlp + t.x + part) + keys * t.keys
    if dense_mask and mixed:
        tokens += config.n_heads * longest * keys * _bytes(mixed)
    return shape.rows * tokens


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
    activation_checkpoint: str = "none",
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
    kept = (config, shape, mixed, device == "cpu", activation_checkpoint)
    return MemoryEstimate(
        weights=4 * (share + gathered),
        gradients=4 * round(trained * (share * twice + gathered)),
        optimizer=4 * -(-moments // shares),
        average=4 * share if average else 0,
        activations=activation_bytes(*kept) + again_bytes(*kept),
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
