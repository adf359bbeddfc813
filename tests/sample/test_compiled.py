"""The decoder with compiled blocks: the same samples, traced once for all shapes."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo.utils import counters

from hbd3lm.errors import UserError
from hbd3lm.model.transformer import UNCOMPILED
from hbd3lm.sample.decoder import Decoder
from hbd3lm.sample.strategies import SamplingConfig
from tests.sample.test_decoder import IDS, LAYOUT, prompts
from tests.toys import toy_net


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_compiled_blocks_sample_the_same_and_are_traced_once(quick_compiler, modules):
    """With other numbers of rows and tokens, and in other layers, nothing is traced again."""
    net = toy_net(modules=modules)

    def sample(compile: bool, rows: int, count: int) -> list[dict[str, list[int]]]:
        config = SamplingConfig("first_hitting", temperature=1.0, batch_size=rows, compile=compile)
        return [one.segments for one in Decoder(net, LAYOUT, IDS, config).sample(prompts(count))]

    # Past the limit of traces torch would go on uncompiled and say nothing.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        assert sample(True, 3, 7) == sample(False, 3, 7)
    traced = counters["stats"]["unique_graphs"]
    assert traced > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        assert sample(True, 5, 11) == sample(False, 5, 11)
    assert counters["stats"]["unique_graphs"] == traced


def test_without_a_compiler_the_message_says_what_to_install(monkeypatch):
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none_found() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    with pytest.raises(UserError, match=r"sampling.compile=true needs .*apt install g\+\+"):
        Decoder(toy_net(), LAYOUT, IDS, SamplingConfig(compile=True))


def test_uncompiled_is_the_default():
    assert Decoder(toy_net(), LAYOUT, IDS, SamplingConfig()).calls is UNCOMPILED
