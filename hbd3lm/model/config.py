"""The transformer's configuration: one sentence a field, contradictions refused by name."""

from __future__ import annotations

from dataclasses import dataclass

from hbd3lm.errors import UserError


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and family of the transformer.

    One class covers BD3-LM's DiT without its constant time conditioning (layernorm, gelu) and
    Llama-type networks (rmsnorm, swiglu, grouped keys); they are settings, not forks.
    """

    vocab_size: int
    """Rows of the embedding; the last id is the mask token, which the output head leaves out."""
    dim: int
    """Width of the residual stream."""
    n_layers: int
    """Transformer blocks per module."""
    n_heads: int
    """Query heads."""
    n_kv_heads: int | None = None
    """Key/value heads (grouped-query attention); None: as many as query heads."""
    head_dim: int | None = None
    """Width of a head; None: dim / n_heads."""
    hidden_dim: int | None = None
    """Width of the MLP's hidden layer; None: 4 * dim."""
    norm: str = "rmsnorm"
    """``rmsnorm`` or ``layernorm`` (weight without bias, as in BD3-LM)."""
    norm_eps: float = 1e-5
    """Added to the variance inside every norm."""
    mlp: str = "gelu"
    """``gelu`` (tanh approximation, two matrices) or ``swiglu`` (three)."""
    attention_bias: bool = False
    """Biases on the query, key and value projections (Qwen2)."""
    attention_out_bias: bool = False
    """A bias on the attention's output projection, too (Llama's and Qwen3's ``attention_bias``)."""
    mlp_bias: bool = False
    """Biases on the MLP's projections (BD3-LM's DiT)."""
    qk_norm: bool = True
    """RMS-normalise queries and keys per head before the rotation (Qwen3)."""
    rope_base: float = 10_000.0
    """Base of the rotary position embedding (half-split convention)."""
    rope_scaling: tuple[float, float, float, float] | None = None
    """Llama 3.1's stretching of slow rotations: factor, low and high frequency factor, length the
    model was first trained on; None: none."""
    tie_embeddings: bool = True
    """The output head is the embedding table without its mask row."""
    head_bias: bool = False
    """A bias for every class of the output head (BD3-LM's DiT)."""
    shift: bool = False
    """Positions predict the token after them, as in next-token models, not their own: a pretrained
    head keeps its meaning. The first token of a block is predicted by the clean one before it."""
    causal_context: bool = False
    """Clean tokens (the question, finished blocks) see only what stands before them, as in
    next-token models; a block being denoised still sees all of itself."""
    dropout: float = 0.0
    """Dropout on the residual branches while training."""
    modules: str = "shared"
    """``shared``: one stack for all tokens; ``separate``: H (question, plan) and L (execution)
    have their own weights, embedding and head included, joined only by attention."""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim")
        for name in sizes:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UserError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.head_dim is None and self.dim % self.n_heads:
            raise UserError(f"model.dim={self.dim} is no multiple of model.n_heads={self.n_heads}")
        if self.resolved_head_dim % 2:
            raise UserError(f"model.head_dim={self.resolved_head_dim} must be even (rotary pairs)")
        if self.n_heads % self.resolved_kv_heads:
            raise UserError(
                f"model.n_heads={self.n_heads} is no multiple of "
                f"model.n_kv_heads={self.resolved_kv_heads}"
            )
        if self.rope_scaling is not None:
            # A list, where it was read of JSON.
            object.__setattr__(self, "rope_scaling", tuple(map(float, self.rope_scaling)))
            if len(self.rope_scaling) != 4:
                raise UserError(
                    f"model.rope_scaling={list(self.rope_scaling)}: needs four numbers: factor, "
                    "low and high frequency factor, length"
                )
            factor, low, high, length = self.rope_scaling
            if not (factor >= 1 and 0 < low < high and length >= 1):
                raise UserError(
                    f"model.rope_scaling={list(self.rope_scaling)}: needs a factor of at least 1, "
                    "a low frequency factor below the high one, and a length"
                )
        if not 0 <= self.dropout < 1:
            raise UserError(f"model.dropout must lie in [0, 1), got {self.dropout}")
        for name, allowed in (
            ("norm", ("rmsnorm", "layernorm")),
            ("mlp", ("gelu", "swiglu")),
            ("modules", ("shared", "separate")),
        ):
            if getattr(self, name) not in allowed:
                key = "hierarchical.modules" if name == "modules" else f"model.{name}"
                raise UserError(f"{key}={getattr(self, name)}: choose one of {', '.join(allowed)}")

    @property
    def resolved_head_dim(self) -> int:
        return self.head_dim or self.dim // self.n_heads

    @property
    def resolved_kv_heads(self) -> int:
        return self.n_kv_heads or self.n_heads

    @property
    def resolved_hidden_dim(self) -> int:
        return self.hidden_dim or 4 * self.dim
