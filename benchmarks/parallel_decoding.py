#!/usr/bin/env python
"""What deciding several tokens in a pass gains in speed, and what it costs in right answers.

    python benchmarks/parallel_decoding.py --checkpoint RUN/checkpoints/best.ckpt --data_path FILE

One trained network, one set of problems: the published way of sampling (one problem at a time,
no cache, logits at every position, a token a step), ours at the same number of steps, and ours with
all tokens decided that are surer than a threshold. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import CLOCKS, check_clock
from hbd3lm.allocator import keep_freed_memory
from hbd3lm.commands.arguments import number, positive
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    from hbd3lm.sample.strategies import SamplingConfig


@dataclass(frozen=True)
class Turn:
    """One way of sampling, once over its problems."""

    speed: float
    evaluations: float
    records: list[dict]


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/parallel_decoding.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", required=True, help="a trained network")
    add("--data_path", required=True, help="plan file with problems it was not trained on")
    add("--data_dir", help="folder with gpt2/, for a network that reads its tokens")
    add("--problems", type=positive, default=200, help="the first so many (default: 200)")
    add("--thresholds", type=number, nargs="+", default=[0.99, 0.95, 0.9, 0.8, 0.7])
    add("--batch_size", type=positive, default=64, help="problems in flight (default: 64)")
    add("--plain", type=positive, default=4, help="problems in a turn of the published sampler")
    add("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto", help="of ours")
    add("--repeats", type=positive, default=2, help="turns of each way")
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    add("--clock", choices=CLOCKS, default="wall", help="cpu: processor time; with --threads 1")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    keep_freed_memory()  # for all
    import numpy as np
    import torch

    from benchmarks.plain_sampler import plain_sample
    from hbd3lm.data.encoding import Caps, encode_examples
    from hbd3lm.data.records import read_examples
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.evaluate.answers import generate, make_records
    from hbd3lm.experiments.statistics import accuracy_estimate, paired_estimate
    from hbd3lm.model.checkpoint import load_network
    from hbd3lm.sample.decoder import Prompt, SpecialIds
    from hbd3lm.sample.strategies import SamplingConfig

    if args.threads:
        torch.set_num_threads(args.threads)
    net, card = load_network(args.checkpoint, what="--checkpoint")
    if card.objective == "autoregressive":
        raise UserError(f"--checkpoint: {args.checkpoint} decides one token at a time by design")
    tokenizer = load_tokenizer(card.tokenizer["name"], args.data_dir)
    if tokenizer.fingerprint != card.tokenizer["fingerprint"]:
        raise UserError(
            f"--checkpoint: {args.checkpoint} was trained with another tokenizer than the "
            f"{card.tokenizer['name']} found here; restore that one"
        )
    examples = read_examples(args.data_path)[: args.problems]
    clock, layout = CLOCKS[args.clock], card.layout
    ids = SpecialIds(tokenizer.mask_id, tokenizer.fill_id, tokenizer.end_ids)
    stepwise = SamplingConfig(batch_size=args.batch_size)  # the most confident token, a pass each

    def published() -> Turn:
        # Spread over the file: it may be sorted.
        some = examples[:: max(1, len(examples) // args.plain)][: args.plain]
        encoded, _ = encode_examples(some, tokenizer, Caps(question=layout.question_len))
        started = clock()
        samples = [
            plain_sample(net, layout, ids, stepwise, Prompt(i, item.question), False, True)
            for i, item in enumerate(encoded)
        ]
        seconds = clock() - started
        return Turn(len(some) / seconds, statistics.mean(s.evaluations for s in samples), [])

    def ours(config: SamplingConfig) -> Callable[[], Turn]:
        def turn() -> Turn:
            started = clock()
            found = generate(net, layout, tokenizer, examples, config)
            seconds = clock() - started
            n = len(examples)
            records = make_records(examples, found, "full")
            return Turn(n / seconds, found.evaluations / n, records)

        return turn

    fast = replace(stepwise, precision=args.precision)
    ways = {
        "published: one by one, no cache, float32": published,
        "ours, a token a pass, float32": ours(stepwise),
        f"ours, a token a pass, {args.precision}": ours(fast),
    }
    for threshold in args.thresholds:
        ways[f"ours, above {threshold:g}, {args.precision}"] = ours(
            replace(fast, threshold=threshold)
        )
    turns = [{name: way() for name, way in ways.items()} for _ in range(args.repeats)]

    print(f"{args.checkpoint}; the first {len(examples)} problems of {args.data_path}")
    first, slow, *_ = ways
    width = max(map(len, ways))
    print(f"\n{'':{width}} {'problems/s':>11} {'ratio':>8} {'evaluations':>12}  right, difference")
    for name in ways:
        speed = statistics.median(turn[name].speed for turn in turns)
        ratio = statistics.median(turn[name].speed / turn[first].speed for turn in turns)
        line = f"{name:{width}} {speed:>11.3f} {ratio:>7.1f}x {turns[0][name].evaluations:>12.1f}"
        if name != first:
            right, base = (
                np.array([[record["correct_strict"] for record in turns[0][who].records]])
                for who in (name, slow)
            )
            mine, less = accuracy_estimate(right), paired_estimate(right, base)
            line += f"  {right.sum()} ({mine.value:.1%}, {mine.low:.1%} to {mine.high:.1%})"
            if name != slow:
                line += f", {less.value:+.1%} ({less.low:+.1%} to {less.high:+.1%})"
        print(line)
    print(
        f"\nSeconds of the {args.clock} clock, medians of the turns; evaluations: network passes a "
        "problem takes part in. Right: strict, with 95 % intervals; differences are to a token a "
        "pass in float32, problem by problem."
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = build_parser().parse_args(argv)
    check_clock(args)
    run(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
