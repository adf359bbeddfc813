"""A checkpoint of another program as weights of ours: ``model=pretrained model.path=...``.

Every family has a module here that reads its ``config.json`` into fields of :class:`ModelConfig`
and its tensors into the state of a :class:`Stack`; this one picks it, gives the special tokens
rows of their own, and fills a network: every module of it with a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.families.bd3lm import (
    MODEL_TYPES,
    open_lightning,
    read_bd3lm_fields,
    read_bd3lm_stack,
)
from hbd3lm.model.families.llama import LLAMA_TYPES, read_llama_fields, read_llama_stack
from hbd3lm.model.families.reading import CONFIG_FILE, Weights, open_weights, read_config
from hbd3lm.model.transformer import Transformer

GPT2_END = 50_256
"""Id of ``<|endoftext|>`` in GPT-2's vocabulary."""
NEW_ROW_NOISE = 0.1
"""Standard deviation of a new row around its start, as a share of the table's own."""


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint whose configuration is read, and its weights not yet.

    Attributes:
        path: its folder or file.
        fields: of :class:`ModelConfig`; all that the checkpoint decides.
        rows: ids of text that have an embedding.
        end_ids: of its tokens that end a text; ``[]`` if it does not say.
        max_len: most tokens a text may have; None: any.
        read_stack: its tensors by their names in a :class:`Stack`; takes the full configuration.
        mask_id: the row of its own mask token, behind those of text; None: it has none.
        tokenizer: name of the one it was trained with, where its folder holds none.
        note: which of several sets of weights in a file are taken; None: there is one.
    """

    path: Path
    fields: dict[str, Any]
    rows: int
    end_ids: list[int]
    max_len: int | None
    read_stack: Callable[[ModelConfig], dict[str, Tensor]]
    mask_id: int | None = None
    note: str | None = None
    tokenizer: str | None = None


def read_pretrained(path: Path, what: str = "model.path") -> Pretrained:
    """Find out what lies at ``path``, without reading weights.

    Raises:
        UserError: no checkpoint, or of a kind hbd3lm does not know.
    """
    if path.is_file():
        config, weights, note = open_lightning(path, what)
        return _bd3lm(config, path, what, lambda: weights, note)
    if not path.is_dir():
        raise UserError(f"{what}: no such folder or file: {path}")
    config = read_config(path, what)
    kind = config.get("model_type")
    if kind in LLAMA_TYPES:
        fields, limit = read_llama_fields(config, path, what)

        def read_stack(model: ModelConfig) -> dict[str, Tensor]:
            return read_llama_stack(open_weights(path, what), model, config["vocab_size"])

        return Pretrained(path, fields, config["vocab_size"], _end_ids(config), limit, read_stack)
    if kind in MODEL_TYPES:
        return _bd3lm(config, path, what, lambda: open_weights(path, what))
    raise UserError(
        f"{what}: {path / CONFIG_FILE} is of a {kind!r} model; hbd3lm starts from "
        f"{', '.join((*LLAMA_TYPES, *MODEL_TYPES))}"
    )


def _bd3lm(
    config: Mapping[str, Any],
    path: Path,
    what: str,
    weights: Callable[[], Weights],
    note: str | None = None,
) -> Pretrained:
    fields, limit = read_bd3lm_fields(config, path, what)
    rows = config["vocab_size"]

    def read_stack(model: ModelConfig) -> dict[str, Tensor]:
        return read_bd3lm_stack(weights(), model, rows)

    # GPT-2's text ends in <|endoftext|>, its last token; theirs has the mask behind it.
    ends = [GPT2_END] if rows == GPT2_END + 2 else []
    has_tokenizer = any((path / name).is_file() for name in ("tokenizer.json", "vocab.json"))
    tokenizer = None if has_tokenizer else "gpt2"
    return Pretrained(path, fields, rows - 1, ends, limit, read_stack, rows - 1, note, tokenizer)


def _end_ids(config: Mapping[str, Any]) -> list[int]:
    ends = config.get("eos_token_id")
    return [ends] if isinstance(ends, int) else list(ends or [])


def fill_network(
    net: Transformer, source: Pretrained, starts: Sequence[int | None], seed: int
) -> None:
    """Give every module of ``net`` a copy of the checkpoint's weights.

    Args:
        net: its vocabulary is the first ids of the checkpoint, then those of ``starts``.
        starts: for each new id the old one whose rows its own start from; None: from the mean of
            all. A little noise is added, the same in every module. The last id, the mask, has no
            row in the head; where the checkpoint has a mask token, its embedding is that one's.
        seed: of the noise.

    Raises:
        UserError: tensors missing, left over, or of another shape than ``config.json`` says.
    """
    old = net.config.vocab_size - len(starts)
    state = source.read_stack(net.config)
    generator = torch.Generator().manual_seed(seed)
    for name, last in (("embedding.weight", None), ("head.weight", -1), ("output_bias", -1)):
        if name in state:
            table = state[name][:old]
            new = torch.stack([table.mean(0) if i is None else table[i] for i in starts])
            noise = torch.randn(new.shape, generator=generator)
            new += NEW_ROW_NOISE * table.std() * noise
            if name == "embedding.weight" and source.mask_id is not None:
                new[-1] = state[name][source.mask_id]
            state[name] = torch.cat([table, new])[:last]
    for stack in net.stacks.values():
        stack.load_state_dict(state)  # copies
