#!/usr/bin/env python
"""Our sampler against sampling one problem at a time without a cache: problems a second.

    python benchmarks/sample.py --model tiny

Same network, same problems, same random numbers, same number of network evaluations for each
problem; the two take turns. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import CLOCKS, check_clock
from benchmarks.train_step import SIZES, Settings, load_documents, make_network
from hbd3lm.allocator import keep_freed_memory
from hbd3lm.commands.arguments import positive
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    from hbd3lm.model.layout import Layout
    from hbd3lm.model.transformer import Transformer
    from hbd3lm.sample.decoder import Prompt, SpecialIds
    from hbd3lm.sample.strategies import SamplingConfig

PUBLISHED = "published: the same with logits at every position"
NEVER = -1
"""An end token no network writes: random ones would stop anywhere, or nowhere."""


@dataclass(frozen=True)
class Task:
    """What is sampled, and by what."""

    net: Transformer
    layout: Layout
    ids: SpecialIds
    prompts: list[Prompt]
    autoregressive: bool = False
    clock: Callable[[], float] = time.perf_counter


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/sample.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", choices=[name for name in SIZES if name != "quick"], default="nano")
    add("--checkpoint", help="a trained network instead of a random one (decides the model)")
    add("--tokenizer", default="gsm", help="gsm, gpt2 or a folder (default: gsm)")
    add("--data_dir", help="folder of GSM8K (default: HBD3LM_DATA_DIR; without: embedded problems)")
    add("--batch_size", type=positive, default=64, help="problems in flight (default: 64)")
    add("--plain", type=positive, default=1, help="problems in a turn of the plain sampler")
    add("--repeats", type=positive, default=3, help="turns of each sampler")
    add("--compile", action="store_true", help="a row with compiled blocks as well")
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    add("--clock", choices=CLOCKS, default="wall", help="cpu: processor time of this process, for "
        "a machine that others use as well; with --threads 1")  # fmt: skip
    add("--quick", action="store_true", help="a toy size, to see that everything runs")
    return parser


def make_task(args: argparse.Namespace) -> tuple[Task, str]:
    """The network and the problems, and a few words about them.

    A random network gets segments of the data's mean lengths, in whole blocks, and no end tokens:
    every problem is then as long as GSM8K's are on average, for every sampler.
    """
    import numpy as np

    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.model.checkpoint import load_network
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.layout import Layout, SegmentSpec
    from hbd3lm.sample.decoder import Prompt, SpecialIds

    model, card = "quick" if args.quick else args.model, None
    tokenizer_name = "gsm" if args.quick else args.tokenizer
    if args.checkpoint:
        net, card = load_network(args.checkpoint, what="--checkpoint")
        tokenizer_name = card.tokenizer["name"]
    vocab = load_tokenizer(tokenizer_name, args.data_dir).vocab_size
    settings = Settings(
        model=model,
        vocab=vocab,
        tokenizer=tokenizer_name,
        data_dir=args.data_dir,
        precision="32-true",
        threads=args.threads,
        problems=args.batch_size,
        short=args.quick,
    )
    tokenizer, layout, documents, about = load_documents(settings)
    if card is not None and tokenizer.fingerprint != card.tokenizer["fingerprint"]:
        raise UserError(
            f"--checkpoint: {args.checkpoint} was trained with another tokenizer than the "
            f"{tokenizer_name} found here; restore that one"
        )
    prompts = [Prompt(i, document.question.tolist()) for i, document in enumerate(documents)]
    if card is not None:
        ends = {segment.name: tokenizer.end_ids[segment.name] for segment in card.layout.segments}
        ids = SpecialIds(tokenizer.mask_id, tokenizer.fill_id, ends)
        autoregressive = card.objective == "autoregressive"
        return Task(net, card.layout, ids, prompts, autoregressive), f"{args.checkpoint}; {about}"
    segments = []
    for s, segment in enumerate(layout.segments):
        mean = np.mean([(document.segment == s).sum() for document in documents])
        blocks = max(1, round(mean / segment.block_size))
        segments.append(SegmentSpec(segment.name, blocks * segment.block_size, segment.block_size))
    net = make_network(ModelConfig(vocab_size=vocab, **SIZES[model])).eval()
    ids = SpecialIds(tokenizer.mask_id, tokenizer.fill_id, {s.name: NEVER for s in segments})
    lengths = " and ".join(f"{s.max_len} {s.name}" for s in segments)
    task = Task(net, Layout(layout.question_len, tuple(segments)), ids, prompts)
    return task, f"random {model}, {lengths} tokens each; {about}"


def check_agreement(task: Task, config: SamplingConfig, count: int = 2) -> str:
    """Both samplers must write the same tokens; float64, so that no rounding decides a draw.

    Raises:
        RuntimeError: they do not.
    """
    import copy

    from benchmarks.plain_sampler import plain_sample
    from hbd3lm.sample.decoder import Decoder

    net = copy.deepcopy(task.net).double()
    some = task.prompts[:count]
    got = Decoder(net, task.layout, task.ids, config, task.autoregressive).sample(some)
    for prompt, sample in zip(some, got):
        plain = plain_sample(net, task.layout, task.ids, config, prompt, task.autoregressive)
        if sample.segments != plain.segments:
            raise RuntimeError(f"the samplers disagree on problem {prompt.problem}")
    tokens = sum(len(ids) for sample in got for ids in sample.segments.values())
    return f"same tokens from both samplers: {tokens} of {len(some)} problems (float64)"


def time_plain(
    task: Task, config: SamplingConfig, prompts: list[Prompt], logits_everywhere: bool = False
) -> tuple[float, float]:
    """Problems a second, and network evaluations a problem, one by one without a cache."""
    from benchmarks.plain_sampler import plain_sample

    started = task.clock()
    samples = [
        plain_sample(
            task.net,
            task.layout,
            task.ids,
            config,
            prompt,
            task.autoregressive,
            logits_everywhere,
        )
        for prompt in prompts
    ]
    seconds = task.clock() - started
    return len(samples) / seconds, statistics.mean(sample.evaluations for sample in samples)


def time_decoder(task: Task, config: SamplingConfig) -> tuple[float, float]:
    """The same, of our decoder on all problems."""
    from hbd3lm.sample.decoder import Decoder

    decoder = Decoder(task.net, task.layout, task.ids, config, task.autoregressive)
    started = task.clock()
    samples = decoder.sample(task.prompts)
    seconds = task.clock() - started
    return len(samples) / seconds, statistics.mean(sample.evaluations for sample in samples)


def count_operations(task: Task) -> str:
    """How many operations ours and the published sampler take for a problem of middling length."""
    from benchmarks.plain_sampler import plain_cost
    from hbd3lm.model.cost import Lengths, sampling_cost

    question = sorted(len(prompt.question) for prompt in task.prompts)[len(task.prompts) // 2]
    problem = Lengths(question, tuple(segment.max_len for segment in task.layout.segments))
    given = (task.net.config, task.layout, problem)
    ours = sampling_cost(*given).operations.total
    published = plain_cost(*given, logits_everywhere=True).operations.total
    plain = plain_cost(*given).operations.total
    return (
        f"Operations a problem: published {published / 1e9:.1f} GFLOP, plain {plain / 1e9:.1f}, "
        f"ours {ours / 1e9:.1f}: {published / ours:.1f} and {plain / ours:.1f} times fewer."
    )


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    keep_freed_memory()  # for all samplers
    import torch

    from hbd3lm.model.layout import Layout, SegmentSpec
    from hbd3lm.sample.strategies import SamplingConfig

    if args.threads:
        torch.set_num_threads(args.threads)
    task, about = make_task(args)
    task = replace(task, clock=CLOCKS[args.clock])
    print(about)
    exact = SamplingConfig(method="first_hitting", temperature=1.0, batch_size=args.batch_size)
    mixed = replace(exact, precision="bf16-mixed")
    print(check_agreement(task, exact))
    step_by_step = "next token" if task.autoregressive else "first hitting"
    # A problem of middling length stands for all in the plain sampler's few.
    by_length = sorted(task.prompts, key=lambda prompt: len(prompt.question))
    middle = max(0, (len(by_length) - args.plain) // 2)
    few = by_length[middle : middle + args.plain]

    def plain_mixed() -> tuple[float, float]:
        with torch.autocast("cpu", torch.bfloat16):
            return time_plain(task, exact, few)

    rows = {
        f"plain: one by one, no cache, {step_by_step}": lambda: time_plain(task, exact, few),
        "plain: the same in bf16": plain_mixed,
        f"ours: {args.batch_size} at a time, cached, {step_by_step}": lambda: time_decoder(
            task, exact
        ),
    }
    if not task.autoregressive:
        rows[PUBLISHED] = lambda: time_plain(task, exact, few, logits_everywhere=True)
        rows["ours: the same in bf16"] = lambda: time_decoder(task, mixed)
        if args.compile:
            fused = replace(mixed, compile=True)
            time_decoder(task, fused)  # generates the code
            rows["ours: in bf16, compiled"] = lambda: time_decoder(task, fused)
        eager = replace(mixed, method="confidence", temperature=0.0, threshold=0.9)
        rows["ours: confidence above 0.9, bf16"] = lambda: time_decoder(task, eager)
    if not args.checkpoint:
        segments = tuple(SegmentSpec(s.name, s.max_len, 1) for s in task.layout.segments)
        layout = Layout(task.layout.question_len, segments)
        token_by_token = Task(
            task.net, layout, task.ids, task.prompts, autoregressive=True, clock=task.clock
        )
        rows["ours: autoregressive, cached"] = lambda: time_decoder(token_by_token, exact)
    turns = [{name: measure() for name, measure in rows.items()} for _ in range(args.repeats)]
    plain = next(iter(rows))
    width = max(map(len, rows))
    heads = f"{'ratio':>8} {'evaluations':>12}" + ("" if task.autoregressive else " to published")
    print(f"\n{'':{width}} {'problems/s':>11} {heads}")
    for name in rows:
        speed = statistics.median(turn[name][0] for turn in turns)
        faster = statistics.median(turn[name][0] / turn[plain][0] for turn in turns)
        evaluations = statistics.median(turn[name][1] for turn in turns)
        line = f"{name:{width}} {speed:>11.3f} {faster:>7.2f}x {evaluations:>12.1f}"
        if not task.autoregressive:
            than = statistics.median(turn[name][0] / turn[PUBLISHED][0] for turn in turns)
            line += f" {than:>11.2f}x"
        print(line)
    print(
        f"\nSeconds of the {args.clock} clock, medians of the turns; evaluations: network passes "
        "a problem takes part in."
    )
    if not args.checkpoint:
        print(count_operations(task))
        print("A random network is never 0.9 sure: only a trained one gains by the threshold.")


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = build_parser().parse_args(argv)
    check_clock(args)
    if args.quick:
        args.batch_size, args.plain, args.repeats = min(args.batch_size, 4), 1, 1
    run(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
