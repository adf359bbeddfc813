"""What a step costs, from shapes alone: floating-point operations, bytes moved, parameters.

A multiply-add counts as two operations. Counted are matrix products and attention; norms, softmax
and other element-wise work have under a hundredth of the operations and show in the bytes.
Tests compare every count with torch's own ``FlopCounterMode`` on real steps.

Attention is counted by the (query, key) pairs it computes. A dense mask computes all of a row's
pairs; the mask rule lets a token read some of them only. Both are the same formula with other
pairs: ``read=False`` and ``read=True`` below. FlexAttention, which computes tiles of 128 x 128
with anything to read in them, lies between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from hbd3lm.model.batch import Batch, Prediction
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cross_entropy import keeps_logits
from hbd3lm.model.layout import Layout
from hbd3lm.model.mask import cat_tags, dense_mask, share_tags
from hbd3lm.model.memory import BatchShape, activation_bytes
from hbd3lm.model.transformer import SHARED

NEWTON_SCHULZ_STEPS = 5
"""Of torch's Muon."""


# -- parameters ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModuleParameters:
    """Weights of one module, by what they are for."""

    embedding: int
    attention: int
    mlp: int
    norms: int
    head: int
    """0 where the embedding table is the head as well and it has no bias."""

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    @property
    def blocks(self) -> int:
        """All but the tables of the vocabulary."""
        return self.total - self.embedding - self.head


def parameters_by_module(config: ModelConfig) -> dict[str, ModuleParameters]:
    """The weights of every stack: ``shared``, or ``plan`` and ``execution``."""
    D, L, dh = config.dim, config.n_layers, config.resolved_head_dim
    q_width, kv_width = config.n_heads * dh, 2 * config.resolved_kv_heads * dh
    F, up = config.resolved_hidden_dim, 2 if config.mlp == "swiglu" else 1
    attention = D * (q_width + kv_width) + q_width * D
    attention += q_width + kv_width if config.attention_bias else 0
    attention += D if config.attention_out_bias else 0
    mlp = D * up * F + F * D + (up * F + D if config.mlp_bias else 0)
    norms = 2 * D + (2 * dh if config.qk_norm else 0)
    head_rows = 0 if config.tie_embeddings else D
    one = ModuleParameters(
        embedding=config.vocab_size * D,
        attention=L * attention,
        mlp=L * mlp,
        norms=L * norms + D,
        head=(config.vocab_size - 1) * (head_rows + config.head_bias),
    )
    names = (SHARED,) if config.modules == "shared" else ("plan", "execution")
    return dict.fromkeys(names, one)


# -- shapes --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartShape:
    """What one module runs, summed over rows; expectations need not be whole numbers.

    Attributes:
        clean, noisy: tokens of each stream; ``noisy`` is 0 for next-token prediction.
        predicted: tokens that the last block's output, its MLP and the head run for.
        clean_pairs, noisy_pairs: (query, key) pairs of each stream's attention.
        ahead: tokens that clean ones predict beside a noisy stream (a shifted head); None: the
            clean pass ends at the last block's keys.
    """

    clean: float
    noisy: float
    predicted: float
    clean_pairs: float
    noisy_pairs: float
    ahead: float | None = None


def shapes_of_batch(batch: Batch, read: bool = False) -> tuple[PartShape, ...]:
    """The shapes of a real batch, padding included.

    Args:
        read: count the pairs the mask rule allows, instead of all pairs of a row.
    """
    shapes, past = [], None
    for part in batch.parts:
        streams = [part.clean] if part.noisy is None else [part.clean, part.noisy]
        pairs = []
        for stream in streams:
            seen = past
            if part.rows is not None and stream is part.noisy:
                seen = share_tags(past, part.rows)
            keys = stream.tags if seen is None else cat_tags(seen, stream.tags)
            if read:
                pairs.append(int(dense_mask(stream.tags, keys).sum()))
            else:
                pairs.append(stream.ids.numel() * keys.block.shape[1])
            if stream is part.clean:
                past = keys
        noisy = 0 if part.noisy is None else part.noisy.ids.numel()
        shapes.append(
            PartShape(
                clean=part.clean.ids.numel(),
                noisy=noisy,
                predicted=_count(part.prediction),
                clean_pairs=pairs[0],
                noisy_pairs=pairs[1] if noisy else 0,
                ahead=None if part.ahead is None else _count(part.ahead),
            )
        )
    return tuple(shapes)


def _count(prediction: Prediction) -> int:
    return int((prediction.weight > 0).sum())


@dataclass(frozen=True)
class Lengths:
    """Tokens of one problem: of the question and of each segment, end tokens included."""

    question: int
    segments: tuple[int, ...]


EVALUATION = "evaluation"
"""Instead of an interval of times: masked tokens drawn by number, 1 to B alike in every block."""


def expected_shapes(
    layout: Layout,
    problems: Iterable[Lengths],
    *,
    modules: str = "shared",
    times: tuple[float, float] | str = (0.0, 1.0),
    autoregressive: bool = False,
    read: bool = True,
    shift: bool = False,
    causal_context: bool = False,
) -> tuple[PartShape, ...]:
    """Expected shapes of problems that are computed without any padding.

    Args:
        problems: their lengths; the segments' are filled up to whole blocks here.
        times: interval the noise's times are uniform in, or ``EVALUATION``.
        autoregressive: next-token prediction (``algo=ar``) instead of block diffusion.
        read: count the pairs the mask rule allows; else all pairs of a problem's own row.
        shift, causal_context: of block diffusion, see :class:`ModelConfig`.
    """
    n_parts = len(layout.segments) if modules == "separate" else 1
    shift, causal_context = (flag and not autoregressive for flag in (shift, causal_context))
    total = np.zeros((n_parts, 5 + shift))
    for problem in problems:
        if autoregressive:
            n = problem.question + sum(problem.segments) - 1
            pairs = n * (n + 1) / 2 if read else n * n
            total[0] += (n, 0, sum(problem.segments), pairs, 0)
            continue
        total += _expected_parts(layout, problem, n_parts, times, read, shift, causal_context)
    return tuple(PartShape(*row) for row in total.tolist())


def _expected_parts(
    layout: Layout,
    problem: Lengths,
    n_parts: int,
    times: tuple[float, float] | str,
    read: bool,
    shift: bool,
    causal_context: bool,
) -> np.ndarray:
    """[parts, fields of PartShape] of one problem."""
    n_blocks = [-(-n // s.block_size) for n, s in zip(problem.segments, layout.segments)]
    size = np.repeat([s.block_size for s in layout.segments], n_blocks)  # [K]
    part = np.repeat(np.arange(len(n_blocks)) % n_parts, n_blocks)  # [K]
    before = problem.question + np.cumsum(size) - size  # clean tokens that a block reads
    masked, asked = _mask_rates(size, times, shift)
    kept = np.ones_like(size)
    kept[-1] = 0  # nobody reads the last block's clean copy
    found, past = np.zeros((n_parts, 5 + shift)), 0
    for p in range(n_parts):
        mine = part == p
        question = problem.question if p == 0 else 0
        # Under a shifted head a later module runs the token before its first one, too.
        lead = int(shift and p > 0)
        noisy = asked * size * mine  # [K] expected tokens, of blocks with a mask
        clean = kept * size * mine
        n_clean, n_noisy = lead + question + clean.sum(), noisy.sum()
        if read:
            if causal_context:
                first = past + 1  # tokens that the first one sees, itself included
                n = n_clean - lead
                clean_pairs = n * (first + lead) + n * (n - 1) / 2 + lead * first
            else:
                clean_pairs = question**2 + (clean * (lead + before + size)).sum()
                clean_pairs += lead * (past + 1)
            noisy_pairs = (noisy * (lead + before + size)).sum()
        else:
            clean_pairs = n_clean * (past + n_clean)
            spread = (asked * (1 - asked) * size**2 * mine).sum()  # E[n^2] = E[n]^2 + Var[n]
            noisy_pairs = n_noisy * (past + n_clean) + n_noisy**2 + spread
        # A shifted head predicts the first token of a block from the clean one before it.
        predicted = (masked * (size - shift) * mine).sum()
        found[p, :5] = n_clean, n_noisy, predicted, clean_pairs, noisy_pairs
        if shift:
            found[p, 5] = (masked * mine).sum()
        past += n_clean
    return found


def _mask_rates(
    size: np.ndarray, times: tuple[float, float] | str, shift: bool = False
) -> tuple[np.ndarray, ...]:
    """Of blocks of ``size`` tokens: the share of tokens masked, the probability of any mask.

    With ``shift`` of any behind the first token.
    """
    tokens = size - shift  # of which one must be masked
    if times == EVALUATION:
        nothing = np.where(tokens > 0, 0.0, 1.0)
        if shift:  # one token is masked, and it is the first
            nothing = np.maximum(nothing, 1 / size**2)
        return (size + 1) / (2 * size), 1 - nothing
    low, high = times
    if low == high:
        return np.full(len(size), low), 1 - (1 - low) ** tokens
    more = tokens + 1
    nothing = ((1 - low) ** more - (1 - high) ** more) / (more * (high - low))
    return np.full(len(size), (low + high) / 2), 1 - nothing


# -- operations ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operations:
    """Floating-point operations, by what they are spent on."""

    matrices: float = 0.0
    """The blocks' projections and MLPs."""
    attention: float = 0.0
    """Scores, and the mixing of values by them."""
    head: float = 0.0
    """The output head."""

    @property
    def total(self) -> float:
        return self.matrices + self.attention + self.head

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.matrices + other.matrices,
            self.attention + other.attention,
            self.head + other.head,
        )

    def __mul__(self, factor: float) -> Operations:
        return Operations(self.matrices * factor, self.attention * factor, self.head * factor)


def token_operations(config: ModelConfig) -> tuple[int, int, int]:
    """Of one token in one block: its query; its key and value; output projection and MLP."""
    query = 2 * config.dim * config.n_heads * config.resolved_head_dim
    key_value = 2 * config.dim * 2 * config.resolved_kv_heads * config.resolved_head_dim
    matrices = 3 if config.mlp == "swiglu" else 2
    return query, key_value, query + matrices * 2 * config.dim * config.resolved_hidden_dim


def pass_operations(
    config: ModelConfig,
    tokens: float,
    pairs: float,
    predicted: float | None,
    last: tuple[float, float] | None = None,
) -> Operations:
    """One call of the network.

    Args:
        tokens: that it runs.
        pairs: (query, key) pairs of one block's attention.
        predicted: tokens of which logits are made, and for which alone the last block's output
            and MLP run; None: the pass ends at the last block's keys (``keys_only``).
        last: queries that the last block makes, and their pairs, where those are fewer.
    """
    query, key_value, rest = token_operations(config)
    width = 4 * config.n_heads * config.resolved_head_dim  # operations of a pair
    inner = config.n_layers - 1  # blocks that run whole
    matrices = tokens * (key_value + inner * (query + key_value + rest))
    attention = inner * width * pairs
    head = 0.0
    if predicted is not None:
        queries, last_pairs = last or (tokens, pairs)
        matrices += queries * query + predicted * rest
        attention += width * last_pairs
        head = predicted * 2 * config.dim * (config.vocab_size - 1)
    return Operations(matrices, attention, head)


def forward_operations(config: ModelConfig, parts: Iterable[PartShape]) -> Operations:
    """The forward passes of a step or of a likelihood evaluation.

    With ``separate`` modules a token runs through one of two stacks of the same shape, so the
    operations are those of ``shared`` on the same tokens.
    """
    total = Operations()
    for part in parts:
        if part.noisy:
            total += pass_operations(config, part.clean, part.clean_pairs, part.ahead)
            total += pass_operations(config, part.noisy, part.noisy_pairs, part.predicted)
        else:
            total += pass_operations(config, part.clean, part.clean_pairs, part.predicted)
    return total


def backward_operations(
    config: ModelConfig, parts: Iterable[PartShape], recomputed: bool = False
) -> Operations:
    """The backward pass: a gradient for each of a product's two inputs, twice the forward pass.

    Args:
        recomputed: include the logits that the loss multiplies a second time instead of keeping
            them (``cross_entropy.KEEP``): operations spent, but not needed.
    """
    parts = tuple(parts)
    twice = forward_operations(config, parts) * 2
    if not recomputed:
        return twice
    n_classes = config.vocab_size - 1
    predicted = [int(p.predicted + (p.ahead or 0)) for p in parts]
    again = sum(n for n in predicted if not keeps_logits(n, n_classes))
    return twice + Operations(head=again * 2 * config.dim * n_classes)


def step_operations(
    config: ModelConfig, parts: Iterable[PartShape], recomputed: bool = False
) -> Operations:
    """Forward and backward pass."""
    parts = tuple(parts)
    return forward_operations(config, parts) + backward_operations(config, parts, recomputed)


def optimizer_operations(config: ModelConfig, optimizer: str) -> int:
    """Matrix products of an optimiser step: Muon's Newton-Schulz iterations; AdamW has none.

    An iteration on an m x n matrix, m <= n: two products of 2 m m n, one of 2 m m m.
    """
    if optimizer != "muon":
        return 0
    D, dh = config.dim, config.resolved_head_dim
    up = (2 if config.mlp == "swiglu" else 1) * config.resolved_hidden_dim
    shapes = (
        (config.n_heads * dh, D),
        (2 * config.resolved_kv_heads * dh, D),
        (D, config.n_heads * dh),
        (up, D),
        (D, config.resolved_hidden_dim),
    )
    total = 0
    for shape in shapes:
        m, n = sorted(shape)
        total += NEWTON_SCHULZ_STEPS * (4 * m * m * n + 2 * m**3)
    return total * config.n_layers * len(parameters_by_module(config))


def evaluation_operations(
    config: ModelConfig, layout: Layout, problem: Lengths, autoregressive: bool = False
) -> float:
    """Operations per real token (text and end tokens) of one draw of a likelihood."""
    parts = expected_shapes(
        layout,
        [problem],
        modules=config.modules,
        times=EVALUATION,
        autoregressive=autoregressive,
        shift=config.shift,
        causal_context=config.causal_context,
    )
    return forward_operations(config, parts).total / sum(problem.segments)


# -- sampling ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SamplingCost:
    """What one problem costs.

    Attributes:
        operations: of all passes.
        evaluations: network passes the problem takes part in.
        tokens: token positions computed in them.
    """

    operations: Operations
    evaluations: int
    tokens: int


def sampling_cost(
    config: ModelConfig,
    layout: Layout,
    problem: Lengths,
    *,
    steps: Sequence[int] | None = None,
    asked: str = "one",
    autoregressive: bool = False,
) -> SamplingCost:
    """One problem sampled with a cache, every segment anew; batching adds padding alone.

    Args:
        steps: denoising steps of a block, by segment; None: one a token.
        asked: positions the network is asked about in a step: ``one`` (first hitting with a step
            a token) or ``masked`` (confidence: all that are still masked).
        autoregressive: token by token.
    """
    if autoregressive:
        return _next_token_cost(config, problem)
    steps = [s.block_size for s in layout.segments] if steps is None else steps
    total, evaluations, tokens = Operations(), 0, 0
    cached, pending = 0, problem.question
    module = layout.segments[0].name
    for spec, length, n_steps in zip(layout.segments, problem.segments, steps):
        size = spec.block_size
        masked = masked_by_step(size, n_steps)
        if config.modules == "separate" and spec.name != module:
            # The other module cannot commit what this one wrote: a pass for that alone.
            pairs = pending * (cached + pending)
            total += pass_operations(config, pending, pairs, None)
            evaluations, tokens = evaluations + 1, tokens + pending
            cached, pending, module = cached + pending, 0, spec.name
        for _ in range(-(-length // size)):
            for left in masked:
                run = pending + size
                predicted = left if asked == "masked" else 1
                keys = cached + run
                last = (predicted, predicted * keys)
                total += pass_operations(config, run, run * keys, predicted, last)
                evaluations, tokens = evaluations + 1, tokens + run
                cached, pending = cached + pending, 0
            pending = size
    return SamplingCost(total, evaluations, tokens)


def masked_by_step(size: int, steps: int) -> list[int]:
    """Tokens of a block that are masked before each step, as ``sampling.method=confidence`` decides
    them: an equal share of what is left, rounded up.

    >>> masked_by_step(16, 3)
    [16, 10, 5]
    """
    steps, left, found = min(steps, size), size, []
    for remaining in range(steps, 0, -1):
        found.append(left)
        left -= -(-left // remaining)
    return found


def _next_token_cost(config: ModelConfig, problem: Lengths) -> SamplingCost:
    n, q = sum(problem.segments), problem.question
    total = pass_operations(config, q, q * q, 1, (1, q))
    for seen in range(q + 1, q + n):
        total += pass_operations(config, 1, seen, 1)
    return SamplingCost(total, n, q + n - 1)


# -- bytes ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepBytes:
    """Least traffic with the main memory of a training step, whatever the caches hold.

    Attributes:
        weights: read by the forward and by the backward pass, and their gradients written.
        activations: what the backward pass needs, written and read once.
        update: gradient norm and scaling, optimiser, weight average.
    """

    weights: float
    activations: float
    update: float

    @property
    def total(self) -> float:
        return self.weights + self.activations + self.update


def step_bytes(
    config: ModelConfig,
    shape: BatchShape,
    *,
    optimizer: str = "adamw",
    mixed: bool = False,
    average: bool = True,
    dense_mask: bool = True,
) -> StepBytes:
    """Bytes of a step; ``shape`` and the other arguments are those of the memory estimate."""
    weights = sum(module.total for module in parameters_by_module(config).values())
    muon = 0
    if optimizer == "muon":
        muon = sum(m.attention + m.mlp for m in parameters_by_module(config).values())
    clipping = 3  # the norm reads the gradient; scaling reads and writes it
    adamw, momentum = 7, 5  # reads of w, g and moments, writes of w and moments
    averaging = 3 if average else 0
    passes = (clipping + averaging) * weights + adamw * (weights - muon) + momentum * muon
    activations = activation_bytes(config, shape, mixed, dense_mask)
    if keeps_logits(int(shape.predicted), config.vocab_size - 1):
        activations += shape.predicted * (config.vocab_size - 1) * (2 if mixed else 4)
    return StepBytes(weights=3 * 4 * weights, activations=2 * activations, update=4 * passes)
