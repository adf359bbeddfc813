"""Parameter-efficient fine-tuning: low-rank adapters (LoRA) by ``peft``, for each module its own.

The matrices of the blocks stay as they are, each with a small product beside it that is trained. Of
the tables only the rows of the special tokens are, which no pretrained model has seen.
"""

from __future__ import annotations

import torch
from torch import nn

from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import ModelCard
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.config import LoraConfig, TrainingConfig
from hbd3lm.train.start import starts_trained

MATRICES = ("wq", "wkv", "wo", "up", "down")
"""Of a block: those that get an adapter, which is all of them."""


def check_lora(config: TrainingConfig, card: ModelCard) -> None:
    """Refuse adapters beside random weights.

    Raises:
        UserError: the run starts from nothing that was trained.
    """
    if card.adapters and not starts_trained(config, card):
        raise UserError(
            "training.lora: adapters leave the weights beside them as they are, which here are "
            "random; start from trained ones (model=pretrained model.path=..., or "
            "training.init_from=RUN), or set training.lora.rank=0"
        )


def attach(net: Transformer, config: LoraConfig, new_rows: int) -> None:
    """Put adapters beside the matrices of the modules that ``config`` gives a rank, in place.

    Of these modules nothing else is trained but the last ``new_rows`` rows of embedding and head.

    Raises:
        UserError: ``peft`` is not installed.
    """
    scales = config.scales(net.config.modules)
    if not scales:
        return
    try:
        from peft import LoraConfig as PeftConfig
        from peft import inject_adapter_in_model
    except ModuleNotFoundError:
        raise UserError(
            "training.lora: peft is not installed; pip install 'hbd3lm[lora]', or train all "
            "weights (training.lora.rank=0)"
        ) from None
    for name, scale in scales.items():
        stack, rank = net.stacks[name], config.rank_of(name)
        settings = PeftConfig(
            r=rank,
            lora_alpha=scale * rank,
            lora_dropout=config.dropout,
            target_modules=list(MATRICES),
        )
        inject_adapter_in_model(settings, stack)
        _train_rows(stack.embedding.weight, len(stack.embedding.weight) - new_rows)
        if stack.head is not None:  # it has no row for the mask
            _train_rows(stack.head.weight, len(stack.head.weight) - new_rows + 1)


def _train_rows(table: nn.Parameter, first: int) -> None:
    """Train the rows of ``table`` from ``first`` on: the others have no gradient."""

    def keep_new(gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone()
        gradient[:first] = 0
        return gradient

    table.requires_grad_(True)
    table.register_hook(keep_new)
    table.partly_frozen = True  # for the optimiser: no decay


def trained_share(model: ModelConfig, config: TrainingConfig) -> float:
    """Share of the weights that gradients and moments are kept of; without making the network.

    Of an adapted module these are the adapters and the tables, whole: their rows share a gradient.
    """
    with torch.device("meta"):
        net = Transformer(model)
    trained = 0
    for name, stack in net.stacks.items():
        rank = config.lora.rank_of(name)
        if name == config.freeze:
            continue
        for path, module in stack.named_modules():
            own = sum(p.numel() for p in module.parameters(recurse=False))
            if rank and path.rpartition(".")[2] in MATRICES:
                trained += rank * (module.in_features + module.out_features)
            elif not rank or path in ("embedding", "head"):
                trained += own
    return trained / net.count_parameters()
