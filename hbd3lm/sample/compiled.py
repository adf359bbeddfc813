"""The blocks of the network, compiled for the decoder: once, for any number of rows and tokens.

Rows join, leave and end their blocks at any pass, so no two passes need be of one shape. What a
block does before attention and after it is compiled with symbolic sizes; the cache and the
attention that reads it stay as they are.
"""

from __future__ import annotations

import torch

from hbd3lm.errors import UserError
from hbd3lm.model.transformer import Block, BlockCalls

BACKEND = "inductor"
"""Tests put a quicker one in its place."""


def compile_blocks(device: torch.device) -> BlockCalls:
    """The calls for :class:`~hbd3lm.model.transformer.Transformer`; compiled when first used.

    Raises:
        UserError: for the CPU a C++ compiler is needed, and there is none.
    """
    if device.type == "cpu" and BACKEND == "inductor":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise UserError(
                "sampling.compile=true needs a C++ compiler and none was found: install g++ "
                "(Debian: apt install g++), or leave the setting out"
            ) from error
    parts = (Block.keys_values, Block.queries, Block.finish)
    return BlockCalls(*(torch.compile(part, dynamic=True, backend=BACKEND) for part in parts))
