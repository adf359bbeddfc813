"""BD3-LM's and MDLM's checkpoints (Arriola et al., 2025; Sahoo et al., 2024) as weights of ours.

Their network, DiT, is told the noise level sigma through adaptive norms: per block a vector c gives
shift, scale and gate of the attention, then of the MLP (adaLN). Both methods feed it sigma = 0
always, so c is a constant, and folds away exactly:

    norm(x) * (1 + scale) + shift    the norm's weight times (1 + scale), and W @ shift as a bias
                                     of the linear map W that reads it
    x + gate * (W @ h + b)           W and b times gate, row by row

What is left is our transformer with LayerNorm, GELU and biases, without time conditioning.

A checkpoint is a folder in the hub's format (``config.json``; all tensors under ``backbone.``), or
a file of Lightning's (``.ckpt``), which holds the weights twice: the last step's by name, and
their running average, ``ema.shadow_params``, as a list in the order of the network's parameters.
The average is what their evaluation loads, and what is taken here. Compiled networks have
``_orig_mod.`` in every name. The mask token is the last row of the embedding, as it is ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.families.reading import Shell, Weights, read_pickle

MODEL_TYPES = ("bd3lm", "mdlm")
"""``model_type`` in ``config.json`` of the two."""
FREQUENCIES = 128
"""Of the sinusoidal embedding of sigma: so many cosines, then as many sines."""
LIBRARIES = ("omegaconf", "transformers", "tokenizers", "lightning", "pytorch_lightning", "typing")
"""Whose objects lie beside the weights in a Lightning file; they are read as empty shells."""
PLAIN = (
    *(f"builtins.{name}" for name in ("dict", "list", "tuple", "int", "float", "str", "bool")),
    "collections.defaultdict",
    "pathlib.PosixPath",
)
"""Further names in such a file, as types of settings."""
NOT_WEIGHTS = (r"rotary_emb\..*", r"(block_diff_)?mask", r"sampling_eps_(min|max)", r"noise\..*")
"""Buffers of theirs that follow from the configuration, or say how they were trained."""


def read_bd3lm_fields(
    values: Mapping[str, Any], path: Path, what: str
) -> tuple[dict[str, Any], int | None]:
    """``config.json`` as fields of :class:`ModelConfig`, and the most tokens a text may have.

    Args:
        values: its content, or what :func:`open_lightning` makes of a file.

    Raises:
        UserError: a value is missing or wrong, or the network is of a kind that does not fold.
    """
    if values.get("time_conditioning"):
        raise UserError(
            f"{what}: the network in {path} is told the noise level (time_conditioning), which "
            "ours is not; use a checkpoint trained without"
        )
    if values.get("causal"):
        raise UserError(
            f"{what}: the network in {path} is causal, the autoregressive baseline of BD3-LM; use "
            "a checkpoint of BD3-LM or MDLM"
        )
    names = ("vocab_size", "hidden_dim", "n_blocks", "n_heads")
    for name in names:
        if not isinstance(values.get(name), int) or values[name] < 1:
            raise UserError(
                f"{what}: {path} says {name}={values.get(name)}, not a whole number of at least 1; "
                "get the checkpoint again"
            )
    dim, n_heads = values["hidden_dim"], values["n_heads"]
    if dim % n_heads or dim // n_heads % 2:
        raise UserError(
            f"{what}: {path} says n_heads={n_heads}, which does not divide its width "
            f"hidden_dim={dim} into heads of an even width; get the checkpoint again"
        )
    fields = {
        "dim": dim,
        "n_layers": values["n_blocks"],
        "n_heads": n_heads,
        "n_kv_heads": None,
        "head_dim": None,
        "hidden_dim": 4 * dim,
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "mlp": "gelu",
        "attention_bias": True,
        "attention_out_bias": False,
        "mlp_bias": True,
        "qk_norm": False,
        "rope_base": 10_000.0,
        "rope_scaling": None,
        "tie_embeddings": False,
        "head_bias": True,
    }
    limit = values.get("model_length")
    return fields, limit if isinstance(limit, int) else None


def read_bd3lm_stack(weights: Weights, config: ModelConfig, rows: int) -> dict[str, Tensor]:
    """The tensors of a checkpoint, folded, by their names in a :class:`Stack`, in float32.

    Args:
        rows: of the embedding in the checkpoint, the mask token's, the last one, included. The
            head's table and bias come without it.

    Raises:
        UserError: tensors are missing, left over or of another shape than the configuration says.
    """
    weights, dim = weights.renamed(_bare_name), config.dim
    cond = _conditioning(weights)
    stack = {"embedding.weight": _take(weights, "vocab_embed.embedding", rows, dim)}
    for i in range(config.n_layers):
        block = _fold_block(weights, f"blocks.{i}.", cond, dim, config.resolved_hidden_dim)
        stack |= {f"blocks.{i}.{name}": tensor for name, tensor in block.items()}
    shift, scale = _modulation(weights, "output_layer.", cond, 2, dim)
    head = _take(weights, "output_layer.linear.weight", rows, dim)
    bias = _take(weights, "output_layer.linear.bias", rows)
    stack["norm.weight"] = _take(weights, "output_layer.norm_final.weight", dim) * (1 + scale)
    stack["head.weight"] = head[:-1]  # the mask token is never predicted
    stack["output_bias"] = (bias + head @ shift)[:-1]
    weights.finish(NOT_WEIGHTS)
    return {name: tensor.float().contiguous() for name, tensor in stack.items()}


def _bare_name(name: str) -> str:
    return name.replace("_orig_mod.", "").removeprefix("backbone.")


# -- what is in the files ---------------------------------------------------------------------


def open_lightning(path: Path, what: str) -> tuple[dict[str, Any], Weights, str]:
    """The content of the hub's ``config.json`` for a Lightning file, its weights, and which.

    Raises:
        UserError: damaged, or it holds something else.
    """
    content = read_pickle(path, what, _shells(path))
    table = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in table.items()
    ):
        raise UserError(f"{what}: {path} is no checkpoint of Lightning (no state_dict)")
    table = {name: tensor for name, tensor in table.items() if name.startswith("backbone.")}
    values = _describe(table, content.get("hyper_parameters"), path, what)
    if content.get("ema"):
        table = _averaged(table, content["ema"], path, what)
        note = "averaged weights (EMA), as BD3-LM evaluates"
    else:
        note = "weights of the last step: the file holds no average (EMA)"
    readers = {name: lambda tensor=tensor: tensor for name, tensor in table.items()}
    return values, Weights(readers, path, what), note


def _shells(path: Path) -> list[str]:
    """Names in a pickle, of libraries its writer uses, that are read as empty shells.

    Anything else that is no tensor is left to be refused.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (OSError, ValueError, RuntimeError, EOFError):
        return []  # not torch's archive: read_pickle says what is wrong with it
    return [name for name in names if name in PLAIN or name.split(".")[0] in LIBRARIES]


def _averaged(table: Mapping[str, Tensor], ema: Any, path: Path, what: str) -> dict[str, Tensor]:
    """The running average under the names of ``table``, whose order is that of the parameters."""
    average = ema.get("shadow_params") if isinstance(ema, dict) else None
    names = [n for n in table if not any(re.fullmatch(p, _bare_name(n)) for p in NOT_WEIGHTS)]
    if not isinstance(average, list) or [tuple(table[n].shape) for n in names] != [
        tuple(getattr(tensor, "shape", ())) for tensor in average
    ]:
        raise UserError(
            f"{what}: the averaged weights in {path} (ema.shadow_params) do not match its "
            "state_dict one by one; the checkpoint is damaged: get it again"
        )
    return dict(zip(names, average))


def _setting(parameters: Any, *path: str) -> Any:
    """A value of the run's OmegaConf settings, as :class:`Shell` holds them; None: not there."""
    value = parameters
    for key in path:
        value = _content(value)
        value = value.get(key) if isinstance(value, dict) else None
    return _content(value)


def _content(value: Any) -> Any:
    """What one of OmegaConf's objects holds: a dict of further ones, or a plain value."""
    if isinstance(value, Shell) and isinstance(value.state, dict):
        return value.state.get("_content", value.state.get("_val"))
    return value


def _describe(
    table: Mapping[str, Tensor], parameters: Any, path: Path, what: str
) -> dict[str, Any]:
    """What the tensors and the run's settings say, under the names of the hub's ``config.json``."""
    shapes = {_bare_name(name): tensor.shape for name, tensor in table.items()}
    embedding = shapes.get("vocab_embed.embedding", ())
    if len(embedding) != 2:
        raise UserError(
            f"{what}: {path} is no checkpoint of BD3-LM or MDLM: its state_dict holds no table "
            "backbone.vocab_embed.embedding"
        )
    n_heads = _setting(parameters, "config", "model", "n_heads")
    if not isinstance(n_heads, int):
        raise UserError(
            f"{what}: {path} does not say how many attention heads its network has "
            "(hyper_parameters.config.model.n_heads); use the checkpoint in the hub's format, a "
            "folder with config.json"
        )

    def either(name: str) -> Any:
        """Of BD3-LM's group ``algo``, else (MDLM) of the top."""
        found = _setting(parameters, "config", "algo", name)
        return _setting(parameters, "config", name) if found is None else found

    return {
        "model_type": MODEL_TYPES[0],
        "vocab_size": embedding[0],
        "hidden_dim": embedding[1],
        "n_blocks": sum(bool(re.fullmatch(r"blocks\.\d+\.norm1\.weight", n)) for n in shapes),
        "n_heads": n_heads,
        "model_length": _setting(parameters, "config", "model", "length"),
        "time_conditioning": either("time_conditioning"),
        "causal": either("parameterization") == "ar" or either("causal_attention"),
    }


# -- folding ----------------------------------------------------------------------------------


def _conditioning(weights: Weights) -> Tensor:
    """[C] float64: SiLU of the time embedding at sigma 0, whose cosines are 1 and sines 0."""
    first = _take(weights, "sigma_map.mlp.0.weight", None, 2 * FREQUENCIES)
    hidden = first[:, :FREQUENCIES].sum(1)
    hidden = F.silu(hidden + _take(weights, "sigma_map.mlp.0.bias", len(hidden)))
    second = _take(weights, "sigma_map.mlp.2.weight", None, len(hidden))
    return F.silu(second @ hidden + _take(weights, "sigma_map.mlp.2.bias", len(second)))


def _modulation(weights: Weights, prefix: str, cond: Tensor, parts: int, dim: int) -> list[Tensor]:
    """The ``parts`` vectors [D], float64, that the adaptive norms of one layer come to."""
    weight = _take(weights, f"{prefix}adaLN_modulation.weight", parts * dim, len(cond))
    bias = _take(weights, f"{prefix}adaLN_modulation.bias", parts * dim)
    return list((weight @ cond + bias).chunk(parts))


def _fold_block(
    weights: Weights, prefix: str, cond: Tensor, dim: int, hidden_dim: int
) -> dict[str, Tensor]:
    """One block's weights by our names."""
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = _modulation(weights, prefix, cond, 6, dim)
    qkv = _take(weights, f"{prefix}attn_qkv.weight", 3 * dim, dim)
    qkv_bias = qkv @ shift
    up = _take(weights, f"{prefix}mlp.0.weight", hidden_dim, dim)
    down = _take(weights, f"{prefix}mlp.2.weight", dim, hidden_dim)
    return {
        "attention_norm.weight": _take(weights, f"{prefix}norm1.weight", dim) * (1 + scale),
        "attention.wq.weight": qkv[:dim],
        "attention.wq.bias": qkv_bias[:dim],
        "attention.wkv.weight": qkv[dim:],
        "attention.wkv.bias": qkv_bias[dim:],
        "attention.wo.weight": gate[:, None] * _take(weights, f"{prefix}attn_out.weight", dim, dim),
        "mlp_norm.weight": _take(weights, f"{prefix}norm2.weight", dim) * (1 + mlp_scale),
        "mlp.up.weight": up,
        "mlp.up.bias": _take(weights, f"{prefix}mlp.0.bias", hidden_dim) + up @ mlp_shift,
        "mlp.down.weight": mlp_gate[:, None] * down,
        "mlp.down.bias": mlp_gate * _take(weights, f"{prefix}mlp.2.bias", dim),
    }


def _take(weights: Weights, name: str, *shape: int | None) -> Tensor:
    """In float64: folding adds no rounding of its own worth speaking of."""
    return weights.take(name, *shape).double()
