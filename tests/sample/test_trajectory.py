"""Recording: it changes nothing, it misses nothing, and what it says is true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.plain_sampler import full_forward
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.sample.decoder import Decoder, Prompt, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig
from hbd3lm.sample.trajectory import Event, written_tokens
from tests.sample.replay import replay
from tests.toys import FILL, MASK, toy_net

IDS = SpecialIds(mask=MASK, fill=FILL, ends={"plan": 8, "execution": 9})
LAYOUT = plan_execution_layout(8, 16, 24, 4, 8)
TOKENS = plan_execution_layout(8, 16, 24, 1, 1)
NETS = {modules: toy_net(modules=modules) for modules in ("shared", "separate")}


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    rng = np.random.default_rng(seed)
    return [Prompt(i, rng.integers(0, 7, size=rng.integers(1, 9)).tolist()) for i in range(count)]


@settings(max_examples=15)
@given(
    method=st.sampled_from(["first_hitting", "ancestral", "confidence", "threshold", "ar"]),
    modules=st.sampled_from(["shared", "separate"]),
    steps=st.sampled_from([None, 1, 3, 7]),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 1000),
    rows=st.integers(1, 3),
    given_plan=st.booleans(),
)
def test_recording_changes_no_sample_and_its_replay_is_the_sample(
    method, modules, steps, temperature, seed, rows, given_plan
):
    """More problems than rows, so that they leave at different times."""
    autoregressive = method == "ar"
    kinds = {"threshold": {"method": "confidence", "threshold": 0.4}, "ar": {}}
    config = SamplingConfig(
        **kinds.get(method, {"method": method, "steps": steps}),
        temperature=temperature,
        seed=seed,
        batch_size=rows,
    )
    layout = TOKENS if autoregressive else LAYOUT
    some = prompts(4, seed)
    if given_plan:
        some = [replace(prompt, given={"plan": [1, 2, 3, 4, 5, 8]}) for prompt in some]

    def sample(config, **more):
        decoder = Decoder(NETS[modules], layout, IDS, config, autoregressive)
        return decoder.sample(some, **more)

    plain = sample(config)
    seen: dict[int, list[Event]] = {}
    recorded = sample(
        replace(config, trajectory=True),
        on_event=lambda problem, event: seen.setdefault(problem, []).append(event),
    )
    assert [replace(s, trajectory=None) for s in recorded] == plain
    assert all(s.trajectory is None for s in plain)
    sizes = {spec.name: spec.block_size for spec in layout.segments}
    for s in recorded:
        events = s.trajectory
        assert seen[s.problem] == events
        assert replay(events, IDS.ends, IDS.fill) == (s.segments, s.ended)
        places = [(e.segment, p) for e in events for p in e.positions]
        assert len(places) == len(set(places))  # nothing is decided twice
        assert all(p // sizes[e.segment] == e.block for e in events for p in e.positions)
        for name, tokens in written_tokens(events).items():
            assert None not in tokens and len(tokens) % sizes[name] == 0
        counts = [e.evaluations for e in events]
        assert counts == sorted(set(counts)) and counts[-1] == s.evaluations
        assert all(0 <= c <= 1 + 1e-6 for e in events for c in e.confidence)
        # The pass that commits a block is the first step of the next one; with weights of its
        # own the execution starts after the plan's last block was committed without it.
        first: dict[tuple[str, int], Event] = {}
        for event in events:
            first.setdefault((event.segment, event.block), event)
        for place, event in first.items():
            alone = modules == "separate" and place == ("execution", 0) and not autoregressive
            assert event.commits != alone
        assert all(e in first.values() for e in events if e.commits)


def test_confidence_is_the_probability_an_uncached_network_gives_the_token():
    net = toy_net().double()
    config = SamplingConfig(method="confidence", steps=3, trajectory=True)
    for prompt, sample in zip(prompts(3), Decoder(net, LAYOUT, IDS, config).sample(prompts(3))):
        stretches = [("shared", prompt.question, [0] * len(prompt.question), False)]
        ordinal, block, before = 0, [], None
        for event in sample.trajectory:
            size = 4 if event.segment == "plan" else 8
            if (event.segment, event.block) != before:
                if before is not None:
                    stretches.append(("shared", block, [ordinal] * len(block), False))
                ordinal, block, before = ordinal + 1, [MASK] * size, (event.segment, event.block)
            with torch.no_grad():
                noisy = ("shared", block, [ordinal] * size, True)
                hidden = full_forward(net, [*stretches, noisy])[-size:]
                p = net.logits(hidden).double().softmax(-1)
            for position, token, confidence in zip(event.positions, event.ids, event.confidence):
                assert p[position % size, token].item() == pytest.approx(confidence, abs=1e-5)
                block[position % size] = token


def test_events_so_far_leave_gaps_where_nothing_is_decided():
    events = [
        Event("plan", 0, 1, (2,), (5,), (0.5,), 1, True),
        Event("plan", 0, 2, (0,), (4,), (0.9,), 2, False),
    ]
    assert written_tokens(events) == {"plan": [4, None, 5]}
    done = [*events, Event("plan", 0, 3, (1, 3), (8, 7), (0.9, 0.8), 3, False)]
    assert replay(done, IDS.ends, IDS.fill) == ({"plan": [4]}, {"plan": True})
