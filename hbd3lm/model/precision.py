"""Which arithmetic a machine is given: float32, or bf16 products over float32 weights."""

from __future__ import annotations

import torch

PRECISIONS = ("auto", "32-true", "bf16-mixed")


def resolve_precision(name: str) -> str:
    """``auto`` as bf16 on GPUs and CPUs with bf16 arithmetic, else full float32."""
    if name != "auto":
        return name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if has_bf16(device) else "32-true"


def has_bf16(device: str) -> bool:
    """Does a ``cuda`` or ``cpu`` device multiply bf16 matrices? (False for other kinds)"""
    if device == "cuda":
        return torch.cuda.is_bf16_supported()
    return device == "cpu" and cpu_has_bf16()


def cpu_has_bf16() -> bool:
    """Does this processor multiply bf16 matrices in hardware (AVX-512 BF16 or AMX)?"""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
