"""The one transformer: pre-norm blocks over tagged tokens, reading a past of keys and values.

Training and sampling are the same two calls. A pass over clean tokens (x_0) yields a past; a
pass over noisy tokens (x_t) reads it and predicts:

    _, past   = net(clean, keys_only=True)      # training: whole documents; sampling: the prefix
    hidden, _ = net(noisy, past)                # training: every block; sampling: the current one
    logits    = net.logits(hidden)

so the key-value cache is not an optimisation beside the model but the model itself, and
nothing clean can depend on anything noisy. There is no time conditioning: with absorbing
noise the network needs none (MDLM, Sahoo et al., 2024).

Shapes: N rows, L tokens of this pass, Lk tokens seen, D = dim, H heads, dh = head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbd3lm.model.attention import attend, build_mask, choose_backend
from hbd3lm.model.batch import Tokens
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cross_entropy import linear_cross_entropy
from hbd3lm.model.embedding import embed_tied
from hbd3lm.model.mask import Tags, cat_tags, share_tags
from hbd3lm.model.norm import RMSNorm, make_norm, product_dtype
from hbd3lm.model.remake import remade, run_again

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

SHARED = "shared"
"""Name of the only stack when the modules share their weights."""


class Memory(Protocol):
    """Keys and values of tokens computed before: ``Past`` and ``SharedPast`` here, ``KVCache``
    when sampling."""

    def join_tags(self, tags: Tags) -> Tags:
        """Tags [N, Lk] of all that this pass sees: the past and its own tokens."""

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [N, Hkv, Lk, dh] to go with them."""


class Past(NamedTuple):
    """A past that grows by concatenation (training and likelihoods, with gradients)."""

    tags: Tags
    keys: list[Tensor]
    values: list[Tensor]

    def join_tags(self, tags: Tags) -> Tags:
        return cat_tags(self.tags, tags)

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys[layer], k], 2), torch.cat([self.values[layer], v], 2)


class SharedPast(NamedTuple):
    """A past that many rows read: row ``i`` sees row ``rows[i]`` of it, as document ``i``."""

    past: Past
    rows: Tensor

    def join_tags(self, tags: Tags) -> Tags:
        return cat_tags(share_tags(self.past.tags, self.rows), tags)

    def join(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = self.past.keys[layer][self.rows], self.past.values[layer][self.rows]
        return torch.cat([keys, k], 2), torch.cat([values, v], 2)


class AttentionObserver(Protocol):
    """Looks on while the network attends: see ``evaluate/attention_mass.py``."""

    def __call__(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, mixed: Tensor
    ) -> None:
        """``mixed`` [N, L, H * dh] is what the layer's heads have read."""


def rotary_frequencies(config: ModelConfig, device: torch.device | None = None) -> Tensor:
    """Angle a position [dh / 2], float32: base^(-2i / dh), stretched as in Llama 3.1 if so asked.

    There, rotations slower than ``length / low`` positions a turn are slowed by ``factor``, those
    faster than ``length / high`` stay, and between the two the share goes over linearly in the
    turns made over ``length``.
    """
    dh = config.resolved_head_dim
    # Rounded as everywhere else: a reciprocal of a power, in float32.
    exponent = torch.arange(0, dh, 2, dtype=torch.float32, device=device) / dh
    frequency = 1.0 / config.rope_base**exponent
    if config.rope_scaling is None:
        return frequency
    factor, low, high, length = config.rope_scaling
    turns = length / (2 * math.pi / frequency)
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * frequency / factor + kept * frequency


def rotary_tables(position: Tensor, frequency: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines [N, 1, L, dh] of positions [N, L] (RoPE, Su et al., 2021).

    ``frequency`` [dh / 2] as :func:`rotary_frequencies` gives it.

    Half-split convention: the pairs are (i, i + dh/2). Both halves hold the pair's angle; the sine
    is negative in the first.
    """
    angle = position.float()[:, None, :, None] * frequency
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + dh/2) of x [N, H, L, dh] by the angles of the tables."""
    # The tables are float32, so the arithmetic is, too.
    return (x * cos + x.roll(x.shape[-1] // 2, -1) * sin).type_as(x)


def _take(x: Tensor, places: Tensor, dim: int = 1) -> Tensor:
    """x [N, ..., L, ...] -> [N, ..., S, ...]: along ``dim`` the ``places`` [N, S] of each row."""
    shape = [1] * x.dim()
    shape[0], shape[dim] = places.shape
    return torch.take_along_dim(x, places.view(shape), dim)


class Attention(nn.Module):
    """Multi-head attention with rotary positions and, optionally, grouped keys and QK-norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads = config.n_heads, config.resolved_kv_heads
        self.head_dim = config.resolved_head_dim
        widths = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim)
        self.wq = nn.Linear(config.dim, widths[0], bias=config.attention_bias)
        self.wkv = nn.Linear(config.dim, 2 * widths[1], bias=config.attention_bias)
        self.wo = nn.Linear(widths[0], config.dim, bias=config.attention_out_bias)
        if config.qk_norm:
            self.q_norm = RMSNorm(self.head_dim, eps=config.norm_eps)
            self.k_norm = RMSNorm(self.head_dim, eps=config.norm_eps)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def keys_values(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, L, D] -> rotated keys and values, each [N, Hkv, L, dh]."""
        k, v = self.wkv(x).unflatten(-1, (2, self.n_kv_heads, self.head_dim)).unbind(2)
        return rotate(self.k_norm(k).transpose(1, 2), cos, sin), v.transpose(1, 2)

    def queries(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x [N, L, D] -> rotated queries [N, H, L, dh]."""
        q = self.wq(x).unflatten(-1, (self.n_heads, self.head_dim))
        return rotate(self.q_norm(q).transpose(1, 2), cos, sin)


class MLP(nn.Module):
    """GELU (tanh) or SwiGLU feed-forward, which keeps what ``up`` gives for the backward pass.

    Where the backward pass runs it again, it keeps everything until then (``keep_all``).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.mlp == "swiglu"
        hidden = config.resolved_hidden_dim
        self.up = nn.Linear(config.dim, hidden * (2 if self.gated else 1), bias=config.mlp_bias)
        self.down = nn.Linear(hidden, config.dim, bias=config.mlp_bias)

    def forward(self, x: Tensor, keep_all: bool = False) -> Tensor:
        wide = self.up(x)
        kept = wide.detach()
        if not self.gated:
            active = F.gelu(wide, approximate="tanh")
            if keep_all:
                return self.down(active)
            with remade(active, lambda: F.gelu(kept, approximate="tanh")):
                return self.down(active)
        gate, up = wide.chunk(2, dim=-1)
        if keep_all:
            return self.down(F.silu(gate) * up)
        kept_gate, kept_up = kept.chunk(2, dim=-1)
        open_gate = F.silu(gate)
        with remade(open_gate, lambda: F.silu(kept_gate)):
            active = open_gate * up
        with remade(active, lambda: F.silu(kept_gate) * kept_up):
            return self.down(active)


class Block(nn.Module):
    """Pre-norm transformer block: what it does before attention, and after it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config, config.dim)
        self.attention = Attention(config)
        self.mlp_norm = make_norm(config, config.dim)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def keys_values(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [N, L, D] -> the same normed, for :meth:`queries`; keys and values [N, Hkv, L, dh]."""
        normed = self.attention_norm(x)
        return normed, *self.attention.keys_values(normed, cos, sin)

    def queries(self, normed: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """normed [N, L, D] -> [N, H, L, dh]."""
        return self.attention.queries(normed, cos, sin)

    def finish(self, x: Tensor, mixed: Tensor, again: str = "none") -> Tensor:
        """x [..., D] and what its heads have read [..., H * dh] -> the next block's x [..., D].

        ``again``: what the backward pass runs again, this ``block``, its ``mlp`` or ``none``.
        """
        x = x + self.dropout(self.attention.wo(mixed))
        if again == "mlp":
            return run_again(self.feed_forward, x, True, random=self.is_random)
        return self.feed_forward(x, keep_all=again == "block")

    def feed_forward(self, x: Tensor, keep_all: bool = False) -> Tensor:
        """x [..., D] -> [..., D]: the second half of the block."""
        return x + self.dropout(self.mlp(self.mlp_norm(x), keep_all))

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers: in its own dropout or in that of adapters inside it."""
        return self.training and any(
            isinstance(module, nn.Dropout) and module.p > 0 for module in self.modules()
        )


class BlockCalls(NamedTuple):
    """The three methods of :class:`Block`, for whoever runs them compiled."""

    keys_values: Callable[..., tuple[Tensor, Tensor, Tensor]] = Block.keys_values
    queries: Callable[..., Tensor] = Block.queries
    finish: Callable[..., Tensor] = Block.finish


UNCOMPILED = BlockCalls()


class Stack(nn.Module):
    """All weights of one module: embedding, blocks, final norm and output head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_classes = config.vocab_size - 1  # the mask token, the last id, is never predicted
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = make_norm(config, config.dim)
        self.head = None
        if not config.tie_embeddings:
            self.head = nn.Linear(config.dim, self.n_classes, bias=False)
        self.output_bias = None
        if config.head_bias:
            self.output_bias = nn.Parameter(torch.zeros(self.n_classes))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02); the residual branches start at zero, so depth starts as identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)
        for block in self.blocks:
            nn.init.zeros_(block.attention.wo.weight)
            nn.init.zeros_(block.mlp.down.weight)

    @property
    def output_table(self) -> Tensor:
        """The table whose first ``n_classes`` rows are the output head: [V, D] or [V - 1, D].

        No row for the mask token, so p(mask) = 0 by construction (SUBS).
        """
        return self.embedding.weight if self.head is None else self.head.weight


class Transformer(nn.Module):
    """The network of every method: one stack (``shared``) or one for each of H and L."""

    def __init__(self, config: ModelConfig, attention: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.attention_backend = attention
        self.activation_checkpoint = "none"
        """What the backward pass runs again instead of keeping it: ``mlp``, norm and feed-forward
        layer of every block, or ``block``, all of every block but the last (which mostly sees the
        predicted tokens only)."""
        self.observer: AttentionObserver | None = None
        """Called in every layer that attends, where one is set."""
        names = (SHARED,) if config.modules == "shared" else ("plan", "execution")
        self.stacks = nn.ModuleDict({name: Stack(config) for name in names})

    def module_of(self, segment: str) -> str:
        """Name of the stack that runs the tokens of a segment."""
        return SHARED if self.config.modules == "shared" else segment

    def forward(
        self,
        tokens: Tokens,
        past: Memory | None = None,
        module: str = SHARED,
        select: Tensor | None = None,
        keys_only: bool = False,
        embedded: Tensor | None = None,
        calls: BlockCalls = UNCOMPILED,
        remember: bool = True,
    ) -> tuple[Tensor | None, Past | None]:
        """Run ``tokens`` through a stack, seeing ``past`` and themselves under the mask rule.

        Args:
            tokens: [N, L].
            past: keys and values of earlier tokens; of any module, layer by layer.
            module: which stack's weights run these tokens.
            select: hidden states are computed and returned for these only: bool [N, L]; or int64
                [M], places in the flattened [N * L]; or int64 [N, S], S places in every row, whose
                queries alone the last block then makes.
            keys_only: skip all that does not end in keys and values (the last block's queries,
                output and MLP): for clean tokens that predict nothing.
            embedded: [N, L, D] the rows :meth:`embed` gives for ``tokens.ids``, if known already.
            calls: how each block's parts are run.
            remember: False where nothing will read these tokens: their keys and values are let go
                of, block by block.

        Returns:
            hidden states [N, L, D] after the final norm ([M, D] or [N, S, D] with ``select``; None
            with ``keys_only``), and the past that now includes these tokens (None without
            ``remember``).
        """
        stack, config = self.stacks[module], self.config
        x = stack.embedding(tokens.ids) if embedded is None else embedded  # [N, L, D]
        cos, sin = rotary_tables(tokens.position, rotary_frequencies(config, x.device))
        tags = tokens.tags if past is None else past.join_tags(tokens.tags)
        backend = choose_backend(self.attention_backend, x.device, x.shape[1])
        by_row = select is not None and select.dim() == 2 and select.dtype == torch.int64
        dtype = product_dtype(x)  # of the queries
        mask = build_mask(tokens.tags, tags, backend, dtype, tokens.tiles)
        again = self.activation_checkpoint if torch.is_grad_enabled() else "none"
        keys, values = [], []

        def note(k: Tensor, v: Tensor) -> None:
            if remember:
                keys.append(k)
                values.append(v)

        *blocks, block = stack.blocks
        for i, earlier in enumerate(blocks):
            run = partial(self._run_block, i, earlier, calls, again)
            if again == "block":
                x, k, v = run_again(run, x, cos, sin, past, mask, random=earlier.is_random)
            else:
                x, k, v = run(x, cos, sin, past, mask)
            note(k, v)
        # The last one makes no more than is asked for.
        last = len(blocks)
        normed, k, v = self._keys_values(last, block, calls, x, cos, sin, past)
        note(k, v)
        if keys_only:
            return None, Past(tags, keys, values)
        if by_row:
            x, normed = _take(x, select), _take(normed, select)
            cos, sin = _take(cos, select, 2), _take(sin, select, 2)
            queries = Tags(*(_take(tag, select) for tag in tokens.tags))
            mask = build_mask(queries, tags, backend, dtype)
        mixed = self._read(last, block, calls, normed, k, v, cos, sin, mask)
        if select is not None and not by_row:
            # Here they have been made, row by row, but go no further.
            mixed, x = (t.flatten(0, 1)[select.flatten()] for t in (mixed, x))
        x = calls.finish(block, x, mixed, again if again == "mlp" else "none")
        return stack.norm(x), Past(tags, keys, values) if remember else None

    def _run_block(
        self,
        i: int,
        block: Block,
        calls: BlockCalls,
        again: str,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        past: Memory | None,
        mask: Tensor | BlockMask,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Block ``i`` as a whole: the next block's x, and the keys and values it has seen."""
        normed, k, v = self._keys_values(i, block, calls, x, cos, sin, past)
        mixed = self._read(i, block, calls, normed, k, v, cos, sin, mask)
        return calls.finish(block, x, mixed, again), k, v

    def _keys_values(
        self, i: int, block: Block, calls: BlockCalls, x: Tensor, cos, sin, past: Memory | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`Block.keys_values`, with those of the past before them."""
        normed, k, v = calls.keys_values(block, x, cos, sin)
        return (normed, k, v) if past is None else (normed, *past.join(i, k, v))

    def _read(
        self, i: int, block: Block, calls: BlockCalls, normed: Tensor, k: Tensor, v: Tensor, cos,
        sin, mask: Tensor | BlockMask,
    ) -> Tensor:  # fmt: skip
        """What the heads of block ``i`` read: [N, L, H * dh]."""
        q = calls.queries(block, normed, cos, sin)
        mixed = attend(q, k.type_as(q), v.type_as(q), mask).transpose(1, 2).flatten(2)
        if self.observer is not None:
            self.observer(i, q, k, v, mask, mixed)
        return mixed

    def embed(self, ids: Tensor, module: str = SHARED) -> tuple[Tensor, Tensor]:
        """[...] -> [..., D]; and the output head's table, for :meth:`cross_entropy`."""
        stack = self.stacks[module]
        if stack.head is None:
            return embed_tied(stack.embedding.weight, ids)
        return stack.embedding(ids), stack.output_table

    def cross_entropy(
        self, hidden: Tensor, targets: Tensor, module: str = SHARED, table: Tensor | None = None
    ) -> Tensor:
        """-log p(target) for every token, in nats: hidden [M, D], targets [M] -> float32 [M].

        ``table``: of :meth:`embed`, where the same step embeds tokens.
        """
        stack = self.stacks[module]
        table = stack.output_table if table is None else table
        return linear_cross_entropy(hidden, table, targets, stack.n_classes, stack.output_bias)

    def logits(self, hidden: Tensor, module: str = SHARED) -> Tensor:
        """[..., D] -> [..., V - 1]; the mask token, the last id, has no logit."""
        stack = self.stacks[module]
        weight = stack.output_table[: stack.n_classes].type_as(hidden)
        bias = None if stack.output_bias is None else stack.output_bias.type_as(hidden)
        return F.linear(hidden, weight, bias)

    def count_parameters(self, embeddings: bool = True) -> int:
        """Number of weights; without the embedding tables (and untied heads) if so asked."""
        return sum(
            parameter.numel()
            for name, parameter in self.named_parameters()
            if embeddings
            or not any(part in name for part in (".embedding.", ".head.", ".output_bias"))
        )
