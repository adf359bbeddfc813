"""Sampling written the plain way: one problem at a time, no cache, everything recomputed.

The yardstick for ``hbd3lm.sample.decoder`` in speed (``benchmarks/sample.py``) and in truth
(``tests/sample/test_decoder.py``): same network, same strategies, same random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hbd3lm.model.batch import Tokens
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cost import Lengths, Operations, SamplingCost, token_operations
from hbd3lm.model.layout import Layout
from hbd3lm.model.mask import Tags
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.decoder import Prompt, Sample, SpecialIds
from hbd3lm.sample.strategies import (
    BlockState,
    SamplingConfig,
    make_strategy,
)
from hbd3lm.sample.tokens import draw_tokens, token_uniforms

Stretch = tuple[str, list[int], list[int], bool]
"""Module, ids, block ordinals, noisy."""


def full_forward(net: Transformer, stretches: list[Stretch]) -> Tensor:
    """Hidden states [L, D] of the last module's tokens; earlier modules first, as in training.

    Of a shifted network a later module begins with the token before its own.
    """
    past, hidden, position = None, None, 0
    if net.config.causal_context:
        stretches = count_tokens(stretches)
    modules = list(dict.fromkeys(module for module, *_ in stretches))
    for module in modules:
        mine = [stretch for stretch in stretches if stretch[0] == module]
        ids = [i for _, some, _, _ in mine for i in some]
        block = [b for _, _, some, _ in mine for b in some]
        noisy = [flag for _, some, _, flag in mine for _ in some]
        if net.config.shift and past is not None:
            _, some, of_some, _ = [s for s in stretches if s[0] != module and not s[3]][-1]
            ids, block, noisy = [some[-1], *ids], [of_some[-1], *block], [False, *noisy]
            position -= 1
        tags = Tags(
            torch.zeros(1, len(ids), dtype=torch.long), torch.tensor([noisy]), torch.tensor([block])
        )
        positions = torch.arange(position, position + len(ids))[None]
        hidden, past = net(Tokens(torch.tensor([ids]), positions, tags), past, module)
        position += len(ids)
    return hidden[0]


def count_tokens(stretches: list[Stretch]) -> list[Stretch]:
    """The same with ordinals that count tokens; a noisy block has that of its first one."""
    counted, n = [], 0
    for module, ids, _, noisy in stretches:
        ordinals = [n] * len(ids) if noisy else list(range(n, n + len(ids)))
        counted.append((module, ids, ordinals, noisy))
        n += len(ids)
    return counted


@torch.inference_mode()
def plain_sample(
    net: Transformer,
    layout: Layout,
    ids: SpecialIds,
    config: SamplingConfig,
    prompt: Prompt,
    autoregressive: bool = False,
    logits_everywhere: bool = False,
) -> Sample:
    """One sample of one problem; compare :meth:`hbd3lm.sample.decoder.Decoder.sample`.

    ``logits_everywhere`` computes logits and probabilities of every position in sight, as the
    published sampler does, and then takes those of the current block.
    """
    strategy = make_strategy(config)
    sample = Sample(prompt.problem)
    first = net.module_of(layout.segments[0].name)
    clean: list[Stretch] = [(first, list(prompt.question), [0] * len(prompt.question), False)]
    ordinal = 1
    for spec in layout.segments:
        module = net.module_of(spec.name)
        if spec.name in prompt.given:
            some = list(prompt.given[spec.name])
            while len(some) % spec.block_size:
                some.append(ids.fill)
            blocks = [ordinal + i // spec.block_size for i in range(len(some))]
            clean.append((module, some, blocks, False))
            ordinal = blocks[-1] + 1
            continue
        written: list[int] = []
        while len(written) < spec.max_len and ids.ends[spec.name] not in written:
            if autoregressive:
                block = _next_token(net, config, prompt, clean, ordinal)
                sample.evaluations += 1
            else:
                block = [ids.mask] * spec.block_size
                step = np.zeros(1, dtype=np.int64)
                while ids.mask in block:
                    noisy = (module, block, [ordinal] * len(block), True)
                    hidden = full_forward(net, [*clean, noisy])
                    if net.config.shift:  # the token before predicts
                        hidden = hidden[:-1]
                    sample.evaluations += 1
                    here = (prompt.problem, ordinal, step)
                    if logits_everywhere:
                        net.logits(hidden, module).softmax(-1)
                    _denoise(net, config, strategy, module, hidden, block, here, ids)
            clean.append((module, block, [ordinal] * len(block), False))
            written += block
            ordinal += 1
        ended = ids.ends[spec.name] in written
        text = written[: written.index(ids.ends[spec.name])] if ended else written
        sample.segments[spec.name] = [i for i in text if i != ids.fill]
        sample.ended[spec.name] = ended
    return sample


def _denoise(net, config, strategy, module, hidden, block, here, ids) -> None:
    masked = np.array([[token == ids.mask for token in block]])
    problem, ordinals, step = np.array([here[0]]), np.array([here[1]]), here[2]
    state = BlockState(masked, problem, ordinals, step, np.array([len(block)]))
    asked = strategy.choose(state)
    place = np.nonzero(asked)
    logits = net.logits(hidden[-len(block) :], module)[torch.from_numpy(asked[0])]
    u = token_uniforms(config.seed, problem[place[0]], ordinals[place[0]], place[1])
    tokens, probability = _pick(logits, config, u)
    confidence = np.zeros(asked.shape)
    confidence[place] = probability.numpy()
    decided = strategy.decide(state, asked, confidence)[0]
    for where, token in zip(place[1], tokens.tolist()):
        if decided[where]:
            block[where] = token


def _next_token(net, config, prompt, clean, ordinal) -> list[int]:
    tokens = [i for _, some, _, _ in clean for i in some]
    hidden = full_forward(net, [(clean[0][0], tokens, list(range(len(tokens))), False)])
    u = token_uniforms(
        config.seed, np.array([prompt.problem]), np.array([ordinal]), np.zeros(1, dtype=np.int64)
    )
    return _pick(net.logits(hidden[-1:]), config, u)[0].tolist()


def _pick(logits: Tensor, config: SamplingConfig, u: np.ndarray) -> tuple[Tensor, Tensor]:
    if config.temperature == 0:
        probability, token = logits.softmax(-1).max(-1)
        return token, probability
    return draw_tokens(logits, config.temperature, config.top_p, u)


def plain_cost(
    config: ModelConfig,
    layout: Layout,
    problem: Lengths,
    *,
    steps: Sequence[int] | None = None,
    logits_everywhere: bool = False,
) -> SamplingCost:
    """What :func:`plain_sample` costs: every step runs everything before the block again.

    Args:
        logits_everywhere: of every position in sight, as the published sampler computes them.
    """
    steps = [s.block_size for s in layout.segments] if steps is None else steps
    query, key_value, rest = token_operations(config)
    width = config.n_heads * config.resolved_head_dim
    head = 2 * config.dim * (config.vocab_size - 1)
    total, evaluations, tokens, before = Operations(), 0, 0, problem.question
    for spec, length, n_steps in zip(layout.segments, problem.segments, steps):
        for _ in range(-(-length // spec.block_size)):
            run = before + spec.block_size
            once = Operations(
                config.n_layers * run * (query + key_value + rest),
                config.n_layers * 4 * width * run * run,
                head * (run if logits_everywhere else spec.block_size),
            )
            n = min(n_steps, spec.block_size)
            total += once * n
            evaluations, tokens, before = evaluations + n, tokens + n * run, run
    return SamplingCost(total, evaluations, tokens)
