"""The network as ``transformers.AutoModel`` knows it: a wrapper, not a second network.

This file is shipped in every exported directory together with the modules it imports (see
``bundle.py``), so it may import ``hbd3lm.errors`` and ``hbd3lm.model`` only, and every import of
them is a ``from ... import`` of names at the top of a file.

Shapes: N rows, L tokens, V rows of the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from hbd3lm.errors import UserError
from hbd3lm.model.batch import Tokens
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import Layout
from hbd3lm.model.mask import PADDING, Tags
from hbd3lm.model.transformer import Transformer


class HBD3LMConfig(PretrainedConfig):
    """``config.json``: the model's card and the ids of the special tokens.

    Attributes:
        card: what a checkpoint says of its model: sizes, layout, objective, tokenizer, settings.
        special_ids: ``fill``, ``mask``, and the end token of each segment by its name.
    """

    model_type = "hbd3lm"

    def __init__(
        self,
        card: Mapping[str, Any] | None = None,
        special_ids: Mapping[str, int] | None = None,
        **kwargs,
    ) -> None:
        # transformers makes one without arguments, to see which values are not the default.
        self.card = dict(card or {})
        self.special_ids = dict(special_ids or {})
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return self.card["model"]["vocab_size"]

    @property
    def hidden_size(self) -> int:
        return self.card["model"]["dim"]

    @property
    def num_hidden_layers(self) -> int:
        return self.card["model"]["n_layers"]


class HBD3LMModel(PreTrainedModel):
    """Logits of every token under the mask rule. Sampling is in the package: ``HBD3LM.solve``."""

    config_class = HBD3LMConfig
    base_model_prefix = "net"  # the file names the weights without it

    def __init__(self, config: HBD3LMConfig) -> None:
        super().__init__(config)
        self.net = Transformer(ModelConfig(**config.card["model"]), "sdpa")
        self.layout = Layout.from_dict(config.card["layout"])
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: the network initialises itself."""

    @classmethod
    def from_pretrained(cls, name: Any, *args, output_loading_info: bool = False, **kwargs):
        """As in transformers, but weights that are missing are refused, not drawn at random."""
        model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if info[what]:
                raise UserError(
                    f"{name}: the weights do not fit the network in config.json "
                    f"({what.replace('_', ' ')}: {sorted(map(str, info[what]))[0]}); "
                    "export the model again"
                )
        return (model, info) if output_loading_info else model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        block: Tensor | None = None,
        noisy: Tensor | None = None,
        position_ids: Tensor | None = None,
        document: Tensor | None = None,
        execution: Tensor | None = None,
        **_: Any,
    ) -> MaskedLMOutput:
        """Logits [N, L, V - 1]; the mask token, the last id, has none.

        A row is a question and as much of plan and execution as there is, each closed by its end
        token; tokens to predict are mask tokens. A block of diffusion predicts its own masked
        positions, a next-token model (or a shifted head) the token after each.

        Args:
            input_ids: [N, L].
            attention_mask: [N, L], 0 for padding.
            block: [N, L] block ordinals; by default read off the end tokens: the question is
                block 0, plan and execution are cut as in training.
            noisy: bool [N, L], the x_t stream; by default the blocks that hold a mask token.
            position_ids: [N, L]; by default the tokens are one after the other.
            document: [N, L], which tokens belong together; by default all of a row.
            execution: bool [N, L], which tokens the execution's module runs (separate modules).
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = real.bool()
        if document is not None and (block is None or position_ids is None):
            raise ValueError("several documents in a row need block and position_ids")
        if position_ids is None:
            position_ids = (real.cumsum(1) - 1).clamp(min=0)
        if document is None:
            document = torch.zeros_like(input_ids)
        by_token, run_twice = False, None
        if block is None:
            block, segment = self.read_blocks(input_ids, real, position_ids)
            execution = segment == len(self.layout.segments) - 1
            by_token = self.net.config.causal_context
            if self.net.config.shift:
                # The token that predicts the execution's first is run by its module, too.
                run_twice = execution.roll(-1, 1) & ~execution
                run_twice[:, -1] = False
        if noisy is None:
            noisy = self._holds_mask(input_ids, block, document)
        if by_token:
            block = self._count_tokens(block, noisy, position_ids)
        document = document.masked_fill(~real, PADDING)
        tags = Tags(document, noisy.bool(), block)
        if self.net.config.modules == "shared":
            hidden, _ = self.net(Tokens(input_ids, position_ids, tags))
            return MaskedLMOutput(logits=self.net.logits(hidden))
        if execution is None:
            raise ValueError("this model has separate modules: with block, give execution, too")
        # Each module runs the whole row, the other's tokens as padding, which nobody sees.
        past, logits = None, []
        later = execution if run_twice is None else execution | run_twice
        for module, mine in (("plan", ~execution), ("execution", later)):
            own = Tags(document.masked_fill(~mine, PADDING), tags.noisy, block)
            hidden, past = self.net(Tokens(input_ids, position_ids, own), past, module)
            logits.append(self.net.logits(hidden, module))
        return MaskedLMOutput(logits=torch.where(later[..., None], logits[1], logits[0]))

    def read_blocks(
        self, input_ids: Tensor, real: Tensor, position_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Block ordinal and segment index (-1: question) of every token, each [N, L].

        A segment that has no end token yet goes on up to its cap; without the question's end token
        all is question.

        Raises:
            ValueError: a row is longer than the layout's caps allow.
        """
        segment = torch.full_like(input_ids, -1)
        if self.config.card["objective"] == "autoregressive":
            return position_ids, segment  # every token a block: the causal mask
        block = torch.zeros_like(input_ids)
        ends = self.config.special_ids
        for row, (ids, is_real) in enumerate(zip(input_ids.tolist(), real.tolist())):
            length = max((i + 1 for i, r in enumerate(is_real) if r), default=0)
            start = _after(ids, ends["question"], 0, length)
            ordinal = 1
            for index, spec in enumerate(self.layout.segments):
                n_tokens = min(_after(ids, ends[spec.name], start, length) - start, spec.max_len)
                n_blocks = -(-n_tokens // spec.block_size)
                stop = min(start + n_blocks * spec.block_size, length)
                places = torch.arange(stop - start, device=input_ids.device)
                block[row, start:stop] = ordinal + places // spec.block_size
                segment[row, start:stop] = index
                start, ordinal = stop, ordinal + n_blocks
            if start < length:
                raise ValueError(f"row {row}: {length - start} tokens lie beyond the layout's caps")
        return block, segment

    @staticmethod
    def _count_tokens(block: Tensor, noisy: Tensor, position_ids: Tensor) -> Tensor:
        """[N, L] ordinals that count tokens (``causal_context``); a noisy block has its first's."""
        begins = block != block.roll(1, 1)
        begins[:, 0] = True
        first = torch.where(begins, position_ids, 0).cummax(1).values
        return torch.where(noisy.bool(), first, position_ids)

    def _holds_mask(self, input_ids: Tensor, block: Tensor, document: Tensor) -> Tensor:
        """Bool [N, L]: does the token's block hold a mask token?"""
        key = document.clamp(min=0) * (block.max() + 1) + block
        masked = (input_ids == self.config.special_ids["mask"]).long()
        counts = masked.new_zeros(len(key), int(key.max()) + 1).scatter_add_(1, key, masked)
        return counts.gather(1, key) > 0


def _after(ids: list[int], end: int, start: int, stop: int) -> int:
    """The place behind the first ``end`` in ``ids[start:stop]``; ``stop`` without one."""
    return next((i + 1 for i in range(start, stop) if ids[i] == end), stop)
