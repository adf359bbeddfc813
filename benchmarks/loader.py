#!/usr/bin/env python
"""Batches a second that the data pipeline makes, against those that a training step eats.

    python benchmarks/loader.py --model tiny

Batches are made by the training process itself unless ``trainer.num_workers`` says otherwise, so
their share of the step's time is what a step could gain. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.train_step import SIZES, Settings, load_documents, make_network
from hbd3lm.commands.arguments import count, positive
from hbd3lm.errors import run_command

STEPS = 4
"""Training steps in a turn, evenly spaced over a window of lengths: their cost depends on it."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/loader.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", choices=[name for name in SIZES if name != "quick"], default="tiny")
    add("--tokenizer", default="gsm", help="gsm, gpt2 or a folder (default: gsm)")
    add("--data_dir", help="folder of GSM8K (default: HBD3LM_DATA_DIR; without: embedded problems)")
    add("--planner", choices=("rules", "socratic"), default="rules", help="decides plan lengths")
    add("--batch_size", type=positive, default=32, help="problems in a batch (default: 32)")
    add("--batching", choices=("bucket", "pack"), default="bucket")
    add(
        "--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto", help="of the step"
    )
    add("--workers", type=count, default=1, help="also through so many worker processes; 0: not")
    add("--repeats", type=positive, default=3, help="turns")
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    add("--quick", action="store_true", help="a toy size, to see that everything runs")
    return parser


def run(args: argparse.Namespace) -> None:
    """Measure and print the table."""
    import numpy as np
    import torch
    from torch.utils.data import DataLoader

    from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.precision import resolve_precision
    from hbd3lm.train.config import TrainingConfig
    from hbd3lm.train.data import TrainingBatches
    from hbd3lm.train.optim import make_optimizer

    if args.threads:
        torch.set_num_threads(args.threads)
    size, precision = args.batch_size, resolve_precision(args.precision)
    settings = Settings(
        args.model, 10**9, args.tokenizer, args.data_dir, precision, args.threads,
        problems=16 * size, short=args.quick, planner=args.planner,
    )  # fmt: skip
    tokenizer, layout, documents, about = load_documents(settings)
    objective = BlockDiffusion(layout, tokenizer.mask_id)
    config = TrainingConfig(batch_size=size, batching=args.batching)
    batches = TrainingBatches(documents, objective, config, seed=0)
    # One window of batches, from short to long.
    window = sorted(range(16), key=lambda i: sum(len(documents[d]) for d in batches.steps[i]))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = "quick" if args.quick else args.model
    model = ModelConfig(tokenizer.vocab_size, **SIZES[name])
    net = make_network(model).to(device)
    optimizer = make_optimizer(net, config)
    ready = [batches[window[(2 * i + 1) * 16 // (2 * STEPS)]].to(device) for i in range(STEPS)]
    print(f"{about}; {size} problems a batch, {args.batching}; step: {name}, {precision}, "
          f"{device.type}, {torch.get_num_threads()} threads")  # fmt: skip

    def noise() -> int:
        for i in window:
            chosen = [documents[d] for d in batches.steps[i]]
            objective.training_noise(chosen, np.random.default_rng(i))
        return len(window)

    def whole() -> int:
        for i in window:
            batches[i]
        return len(window)

    def through_workers() -> int:
        for _ in loader:  # starting the workers is not counted: they live as long as the run
            pass
        return len(window)

    def step() -> int:
        for item in ready:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = negative_log_likelihood(net, item.batch).sum() / item.denominator
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            float(loss.detach())  # waits for the device
        return len(ready)

    rows: dict[str, Callable[[], int]] = {
        "draw the noise": noise,
        "make a batch (noise included)": whole,
    }
    if args.workers:
        loader = DataLoader(
            batches, batch_size=None, sampler=window, num_workers=args.workers,
            persistent_workers=True,
        )  # fmt: skip
        rows[f"through {args.workers} worker process(es)"] = through_workers
    rows[f"training step, {name}"] = step
    for measure in rows.values():
        measure()
    turns = [{name: timed(measure) for name, measure in rows.items()} for _ in range(args.repeats)]
    last = list(rows)[-1]
    width = max(map(len, rows))
    print(
        f"\n{'':{width}} {'ms a batch':>11} {'batches/s':>10} {'examples/s':>11} {'of a step':>10}"
    )
    for row in rows:
        seconds = statistics.median(turn[row] for turn in turns)
        share = statistics.median(turn[row] / turn[last] for turn in turns)
        print(
            f"{row:{width}} {seconds * 1e3:>11.2f} {1 / seconds:>10.1f} {size / seconds:>11.1f} "
            f"{share:>10.2%}"
        )
    print("\nMedians of the turns; 'of a step': time as a share of the training step's.")


def timed(measure: Callable[[], int]) -> float:
    """Seconds a batch."""
    started = time.perf_counter()
    count = measure()
    return (time.perf_counter() - started) / count


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = build_parser().parse_args(argv)
    if args.quick:
        args.batch_size, args.repeats = min(args.batch_size, 2), 1
    run(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
