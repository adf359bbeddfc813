"""Weights of low-rank adapters (LoRA, Hu et al., 2021) folded into those they adapt.

``train/lora.py`` trains them; whoever only uses the network merges them when it is loaded:
W + scale * B @ A, which computes the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

BASE, DOWN, UP = ".base_layer.", ".lora_A.default.", ".lora_B.default."
"""How ``peft`` names, behind a matrix's own name, the matrix and its adapter's two."""


def merge_adapters(state: Mapping[str, Tensor], scales: Mapping[str, float]) -> dict[str, Tensor]:
    """The state of a network without adapters that computes what the one of ``state`` does.

    Args:
        state: tensors by name, of stacks by ``stacks.<module>.``.
        scales: alpha / rank of the adapters of each module that has some.

    Raises:
        KeyError: an adapted matrix lacks a part of its adapter.
    """
    merged = {}
    for name, tensor in state.items():
        if DOWN in name or UP in name:
            continue
        matrix, _, kind = name.partition(BASE)
        if kind == "weight":
            module = matrix.split(".")[1]
            down, up = (state[f"{matrix}{part}weight"] for part in (DOWN, UP))
            tensor = tensor + scales[module] * up @ down
        merged[f"{matrix}.{kind}" if kind else name] = tensor
    return merged
