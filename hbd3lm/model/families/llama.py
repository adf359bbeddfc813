"""Llama-type checkpoints (Llama, SmolLM2, Mistral, Qwen2, Qwen2.5, Qwen3) as our configuration and
weights.

They are settings of our transformer: RMSNorm, SwiGLU, grouped keys, rotary positions in the
half-split convention; Qwen2 adds biases, Qwen3 norms of queries and keys. What differs is the
layout of the tensors: keys and values are one matrix here, gate and up projection, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.families.reading import CONFIG_FILE, Weights

LLAMA_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` (SmolLM2 is a ``llama``, Qwen2.5 a ``qwen2``)."""
BUFFERS = (r".*\.rotary_emb\.inv_freq",)
"""What older files hold beside weights."""


def read_llama_fields(
    values: Mapping[str, Any], folder: Path, what: str
) -> tuple[dict[str, Any], int]:
    """``config.json`` as fields of :class:`ModelConfig`, and the most tokens a text may have.

    What a file leaves out is as in ``transformers``, whose class for the family reads it.

    Raises:
        UserError: values that contradict each other, or a feature our transformer has not.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    where = f"{what}: {folder / CONFIG_FILE}"
    kind = values["model_type"]
    try:
        config = CONFIG_MAPPING[kind](**{k: v for k, v in values.items() if k != "model_type"})
    except (StrictDataclassError, TypeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{where} describes no {kind} model: {reason}") from None
    if config.hidden_act != "silu":
        raise UserError(f"{where}: hidden_act={config.hidden_act}; hbd3lm reads silu only")
    if getattr(config, "quantization_config", None):
        raise UserError(
            f"{where}: the weights are quantised, which cannot be trained; use the checkpoint in "
            "bfloat16 or float32"
        )
    base, scaling = _read_rope(config.rope_parameters, where)
    bias = getattr(config, "attention_bias", False)
    limit = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    if window is not None and any(
        kind != "full_attention" for kind in getattr(config, "layer_types", None) or ["sliding"]
    ):
        # Within the window sliding attention is full attention.
        limit = min(limit, window)
    fields = {
        "dim": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "head_dim": getattr(config, "head_dim", None),
        "hidden_dim": config.intermediate_size,
        "norm": "rmsnorm",
        "norm_eps": config.rms_norm_eps,
        "mlp": "swiglu",
        "attention_bias": bias or kind == "qwen2",
        "attention_out_bias": bias,
        "mlp_bias": getattr(config, "mlp_bias", False),
        "qk_norm": kind == "qwen3",
        "rope_base": base,
        "rope_scaling": scaling,
        "tie_embeddings": config.tie_word_embeddings,
    }
    return fields, limit


def _read_rope(
    rope: Mapping[str, Any], where: str
) -> tuple[float, tuple[float, float, float, float] | None]:
    """Base and scaling of the rotary embedding; refuses kinds our transformer has not."""
    kind = rope["rope_type"]
    if rope.get("partial_rotary_factor", 1.0) != 1.0 or kind not in ("default", "llama3"):
        raise UserError(
            f"{where}: rotary positions of the kind {kind!r} (rope_scaling, rope_parameters) are "
            "not supported; default and llama3 are"
        )
    if kind == "default":
        return rope["rope_theta"], None
    names = (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    )
    missing = [name for name in names if not isinstance(rope.get(name), int | float)]
    if missing:
        raise UserError(f"{where}: rotary positions of the kind 'llama3' need {missing[0]}")
    return rope["rope_theta"], tuple(float(rope[name]) for name in names)


def read_llama_stack(weights: Weights, config: ModelConfig, rows: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their names in a :class:`Stack`, in float32.

    Args:
        rows: of the embedding and the head in the checkpoint; those here have as many.

    Raises:
        UserError: tensors are missing, left over or of another shape than the configuration says.
    """
    D, F = config.dim, config.resolved_hidden_dim
    Q = config.n_heads * config.resolved_head_dim
    K = config.resolved_kv_heads * config.resolved_head_dim
    state: dict[str, Tensor] = {}

    def linear(ours: str, theirs: list[tuple[str, int]], width: int, bias: bool) -> None:
        """Matrices [outputs, width] one above the other."""
        state[f"{ours}.weight"] = torch.cat(
            [weights.take(f"{n}.weight", r, width) for n, r in theirs]
        )
        if bias:
            state[f"{ours}.bias"] = torch.cat([weights.take(f"{n}.bias", r) for n, r in theirs])

    state["embedding.weight"] = weights.take("model.embed_tokens.weight", rows, D)
    for i in range(config.n_layers):
        ours, theirs = f"blocks.{i}", f"model.layers.{i}"
        attention, mlp = f"{theirs}.self_attn", f"{theirs}.mlp"
        bias = config.attention_bias
        linear(f"{ours}.attention.wq", [(f"{attention}.q_proj", Q)], D, bias)
        linear(
            f"{ours}.attention.wkv",
            [(f"{attention}.k_proj", K), (f"{attention}.v_proj", K)],
            D,
            bias,
        )
        linear(f"{ours}.attention.wo", [(f"{attention}.o_proj", D)], Q, config.attention_out_bias)
        if config.qk_norm:
            for name in ("q_norm", "k_norm"):
                state[f"{ours}.attention.{name}.weight"] = weights.take(
                    f"{attention}.{name}.weight", config.resolved_head_dim
                )
        bias = config.mlp_bias
        linear(f"{ours}.mlp.up", [(f"{mlp}.gate_proj", F), (f"{mlp}.up_proj", F)], D, bias)
        linear(f"{ours}.mlp.down", [(f"{mlp}.down_proj", D)], F, bias)
        for name, norm in (("attention_norm", "input"), ("mlp_norm", "post_attention")):
            state[f"{ours}.{name}.weight"] = weights.take(f"{theirs}.{norm}_layernorm.weight", D)
    state["norm.weight"] = weights.take("model.norm.weight", D)
    if not config.tie_embeddings:
        state["head.weight"] = weights.take("lm_head.weight", rows, D)
    elif "lm_head.weight" in weights:
        head = weights.take("lm_head.weight", rows, D)
        if not head.equal(state["embedding.weight"]):
            raise UserError(
                f"{weights.what}: {weights.path}: lm_head.weight is not the embedding table, "
                f"though its {CONFIG_FILE} ties the two (tie_word_embeddings)"
            )
    weights.finish(BUFFERS)
    return state
