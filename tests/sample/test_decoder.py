"""The batched cached decoder against plain sampling, exact distributions, and its promises."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from benchmarks.plain_sampler import full_forward, plain_sample
from hbd3lm.errors import UserError
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.sample.cache import GROWTH
from hbd3lm.sample.decoder import Decoder, Prompt, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig
from tests.toys import FILL, MASK, toy_net

IDS = SpecialIds(mask=MASK, fill=FILL, ends={"plan": 8, "execution": 9})
LAYOUT = plan_execution_layout(8, 16, 24, 4, 8)


def prompts(count: int, given=None) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [
        Prompt(i, rng.integers(0, 7, size=rng.integers(1, 9)).tolist(), given or {})
        for i in range(count)
    ]


CONFIGS = [
    SamplingConfig(method="first_hitting", temperature=1.0, seed=3, batch_size=4),
    SamplingConfig(method="first_hitting", temperature=0.7, top_p=0.8, batch_size=3),
    SamplingConfig(method="ancestral", steps=5, temperature=1.0, batch_size=4),
    SamplingConfig(method="confidence", batch_size=4),
    SamplingConfig(method="confidence", steps=3, temperature=1.0, batch_size=5),
    SamplingConfig(method="confidence", threshold=0.5, batch_size=4),
]


@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{c.steps}-{c.threshold}")
def test_batched_cached_sampling_equals_one_by_one_without_a_cache(config, modules):
    """Same tokens, same ends, same number of evaluations, more problems than rows."""
    net = toy_net(modules=modules).double()
    some = prompts(9)
    got = Decoder(net, LAYOUT, IDS, config).sample(some)
    for prompt, sample in zip(some, got):
        expected = plain_sample(net, LAYOUT, IDS, config, prompt)
        assert sample.segments == expected.segments
        assert sample.ended == expected.ended
        # Separate modules cannot share the pass that commits the plan's last block.
        extra = 1 if modules == "separate" else 0
        assert sample.evaluations == expected.evaluations + extra
    assert len({tuple(sample.segments["execution"]) for sample in got}) > 1


@pytest.mark.parametrize("given_plan", [False, True])
@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.method}-{c.steps}-{c.threshold}")
@pytest.mark.parametrize("causal", [False, True])
def test_a_shifted_head_and_causal_context_sample_as_without_a_cache(
    causal, config, modules, given_plan
):
    """The token before a block is committed once; what it predicts is remembered."""
    changes = {"shift": True, "causal_context": causal, "tie_embeddings": False}
    net = toy_net(modules=modules, **changes).double()
    some = prompts(6, {"plan": [1, 2, 3, 4, 5, 8]} if given_plan else {})
    got = Decoder(net, LAYOUT, IDS, config).sample(some)
    for prompt, sample in zip(some, got):
        expected = plain_sample(net, LAYOUT, IDS, config, prompt)
        assert sample.segments == expected.segments
        assert sample.ended == expected.ended
        assert sample.evaluations == expected.evaluations + (modules == "separate")
    assert len({tuple(sample.segments["execution"]) for sample in got}) > 1


def test_blocks_of_one_shifted_and_causal_sample_as_the_next_token_model_does():
    layout = plan_execution_layout(8, 10, 12, 1, 1)
    config = SamplingConfig(temperature=1.0, batch_size=4)
    diffusion, ar = (
        Decoder(
            toy_net(shift=True, causal_context=True).double(), layout, IDS, config, autoregressive
        ).sample(prompts(7))
        for autoregressive in (False, True)
    )
    assert diffusion == ar


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_autoregressive_decoding_with_a_cache_equals_decoding_without(temperature):
    layout = plan_execution_layout(8, 10, 12, 1, 1)
    net = toy_net().double()
    config = SamplingConfig(temperature=temperature, batch_size=4)
    some = prompts(7)
    got = Decoder(net, layout, IDS, config, autoregressive=True).sample(some)
    for prompt, sample in zip(some, got):
        expected = plain_sample(net, layout, IDS, config, prompt, autoregressive=True)
        assert sample == expected


@pytest.mark.parametrize("modules", ["shared", "separate"])
def test_a_given_plan_is_read_and_not_written(modules):
    net = toy_net(modules=modules).double()
    config = SamplingConfig(method="first_hitting", temperature=1.0, batch_size=3)
    for plan in ([1, 2, 3, 4, 5, 8], [6, 8]):
        some = prompts(5, {"plan": plan})
        for prompt, sample in zip(some, Decoder(net, LAYOUT, IDS, config).sample(some)):
            expected = plain_sample(net, LAYOUT, IDS, config, prompt)
            assert sample.segments == expected.segments
            assert list(sample.segments) == ["execution"]


def test_plan_only_stops_after_the_plan():
    config = SamplingConfig(method="first_hitting", temperature=1.0)
    decoder = Decoder(toy_net(), LAYOUT, IDS, config)
    full, plans = decoder.sample(prompts(4)), decoder.sample(prompts(4), stop_after="plan")
    assert [list(sample.segments) for sample in plans] == [["plan"]] * 4
    assert [s.segments["plan"] for s in plans] == [s.segments["plan"] for s in full]


def test_a_sample_does_not_depend_on_the_rest_of_its_batch():
    config = SamplingConfig(method="first_hitting", temperature=1.0, batch_size=3, seed=1)
    decoder = Decoder(toy_net().double(), LAYOUT, IDS, config)
    some = prompts(8)
    together = decoder.sample(some)
    assert decoder.sample(some[5:6])[0] == together[5]
    assert decoder.sample(some[::-1])[::-1] == together


def test_first_hitting_takes_one_evaluation_a_token_and_threshold_fewer():
    net, some = toy_net(), prompts(6)

    def evaluations(**settings):
        return sum(
            sample.evaluations
            for sample in Decoder(net, LAYOUT, IDS, SamplingConfig(**settings)).sample(some)
        )

    blocks = 0
    for sample in Decoder(net, LAYOUT, IDS, SamplingConfig(method="confidence")).sample(some):
        for spec in LAYOUT.segments:
            n = len(sample.segments[spec.name]) + sample.ended[spec.name]
            blocks += -(-n // spec.block_size) * spec.block_size
    exact = evaluations(method="confidence")
    # Text may hold fill ids in the middle for a random network, which are not counted above.
    assert exact >= blocks
    assert evaluations(method="confidence", threshold=0.05) < exact


def exact_distribution(net, prompt, length) -> dict[tuple[int, ...], float]:
    """Of first-hitting sampling of one block: average over all orders of revealing."""
    orders = list(itertools.permutations(range(length)))
    total: dict[tuple[int, ...], float] = Counter()

    @torch.no_grad()
    def probabilities(block):
        stretch = ("shared", list(prompt.question), [0] * len(prompt.question), False)
        hidden = full_forward(net, [stretch, ("shared", list(block), [1] * length, True)])
        return net.logits(hidden[-length:]).double().softmax(-1)

    def expand(block, order, p):
        if not order:
            total[block] += p / len(orders)
            return
        place, *rest = order
        for token, q in enumerate(probabilities(block)[place].tolist()):
            if q * p > 1e-12:
                expand((*block[:place], token, *block[place + 1 :]), rest, p * q)

    for order in orders:
        expand((net.config.vocab_size - 1,) * length, list(order), 1.0)
    return total


@pytest.mark.parametrize("method", ["first_hitting", "ancestral"])
def test_samples_follow_the_models_exact_distribution(method):
    """Chi-square at a fixed seed; many ancestral steps come close to the exact process."""
    net = toy_net(vocab_size=5).double()
    ids = SpecialIds(mask=4, fill=2, ends={"execution": 3})
    layout = plan_execution_layout(4, 4, 2, 2, 2, with_plan=False)
    prompt = Prompt(0, [0, 1, 0])
    exact = exact_distribution(net, prompt, 2)
    assert sum(exact.values()) == pytest.approx(1)
    n = 6000
    config = SamplingConfig(method=method, steps=400, temperature=1.0, batch_size=500, seed=11)
    decoder = Decoder(net, layout, ids, config)
    seen: Counter = Counter()
    finished = decoder._end_block

    def record(r):
        seen[tuple(decoder.block[r, :2].tolist())] += 1
        return finished(r)

    decoder._end_block = record
    decoder.sample([Prompt(i, prompt.question) for i in range(n)])
    assert set(seen) <= set(exact)
    outcomes = sorted(exact)
    result = chisquare([seen[o] for o in outcomes], [exact[o] * n for o in outcomes])
    assert result.pvalue > 0.01
    # The test has power: a sampler that ignores dependence inside the block would fail it.
    first = Counter()
    for outcome, p in exact.items():
        first[outcome[0], 0] += p
        first[outcome[1], 1] += p
    independent = [first[o[0], 0] * first[o[1], 1] * n for o in outcomes]
    assert chisquare([seen[o] for o in outcomes], independent).pvalue < 1e-6


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_predictions_that_are_no_numbers_end_the_sampling(temperature):
    net = toy_net()
    with torch.no_grad():
        net.stacks["shared"].norm.weight[0] = float("nan")
    decoder = Decoder(net, LAYOUT, IDS, SamplingConfig(temperature=temperature))
    with pytest.raises(UserError, match=r"not numbers \(NaN\).*sampling.precision=32-true"):
        decoder.sample(prompts(2))


def test_padding_beside_shorter_blocks_never_makes_a_nan(monkeypatch):
    """Blocks of plan and execution differ, so rows do in length; in bf16 nothing masks a NaN."""
    net = toy_net()
    finite = []
    pick = Decoder._pick

    def watched(decoder, hidden, *about):
        finite.append(bool(hidden.isfinite().all()))
        return pick(decoder, hidden, *about)

    monkeypatch.setattr(Decoder, "_pick", watched)
    config = SamplingConfig("first_hitting", temperature=1.0, precision="bf16-mixed", batch_size=6)
    for layout in (LAYOUT, plan_execution_layout(8, 16, 24, 8, 4)):
        Decoder(net, layout, IDS, config).sample(prompts(20))
    assert len(finite) > 20
    assert all(finite)


def test_bf16_decoding_computes_and_caches_in_bf16():
    decoder = Decoder(toy_net(), LAYOUT, IDS, SamplingConfig(precision="bf16-mixed"))
    seen = []
    decoder.net.stacks["shared"].blocks[0].attention.wq.register_forward_hook(
        lambda module, inputs, output: seen.append(output.dtype)
    )
    (sample,) = decoder.sample([Prompt(0, [1, 2, 3])])
    assert set(seen) == {torch.bfloat16}
    assert {keys.dtype for keys in decoder.cache.keys} == {torch.bfloat16}
    assert set(sample.segments) == {"plan", "execution"}


def test_a_precision_that_does_not_exist_is_refused_by_name():
    with pytest.raises(UserError, match=r"sampling\.precision=fp8: choose one of auto, 32-true"):
        SamplingConfig(precision="fp8")


def test_a_cache_that_grows_keeps_what_it_holds():
    """Rows of unlike lengths over several enlargements, against plain sampling."""
    layout = plan_execution_layout(40, 48, 64, 4, 8)
    net = toy_net().double()
    ids = SpecialIds(mask=MASK, fill=FILL, ends={"plan": -1, "execution": -1})
    rng = np.random.default_rng(1)
    some = [Prompt(i, rng.integers(0, 7, size=n).tolist()) for i, n in enumerate((3, 40, 17))]
    config = SamplingConfig(method="confidence", steps=2, batch_size=2)
    decoder = Decoder(net, layout, ids, config)
    for prompt, sample in zip(some, decoder.sample(some)):
        assert sample.segments == plain_sample(net, layout, ids, config, prompt).segments
    assert decoder.cache.columns > 4 * GROWTH
    assert decoder.cache.keys[0].shape[2] == decoder.cache.columns


def test_only_places_asked_about_make_queries_in_the_last_block():
    net = toy_net()
    seen = []
    net.stacks["shared"].blocks[-1].attention.wq.register_forward_hook(
        lambda module, inputs, output: seen.append(output.shape[1])
    )
    config = SamplingConfig(method="first_hitting", temperature=1.0, batch_size=3)
    Decoder(net, LAYOUT, IDS, config).sample(prompts(5))
    assert set(seen) == {1}
