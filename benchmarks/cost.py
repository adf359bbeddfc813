#!/usr/bin/env python
"""Operations and bytes of a training step, and how near to what the machine can do they are done.

    python benchmarks/cost.py
    python benchmarks/cost.py --measure tiny

Counts come from shapes alone (``hbd3lm/model/cost.py``). See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.clock import check_clock
from benchmarks.train_step import SIZES, Settings, load_documents, make_network
from hbd3lm.allocator import keep_freed_memory
from hbd3lm.commands.arguments import positive
from hbd3lm.errors import run_command

if TYPE_CHECKING:
    import torch

    from hbd3lm.diffusion.objective import BlockDiffusion
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.cost import Lengths, PartShape
    from hbd3lm.model.layout import Document, Layout

    Clock = Callable[[], float]
    """The time now, in seconds."""

GIGA = 1e9
BATCH = {"quick": 2, "nano": 32, "tiny": 32, "small": 8, "medium": 4}
KINDS = {
    "matrix products": ("aten::mm", "aten::bmm", "aten::addmm"),
    "softmax, GELU, norms": ("softmax", "gelu", "rms_norm", "layer_norm", "exp", "logsumexp"),
    "optimiser, clipping": ("fused_adamw", "foreach", "linalg_vector_norm", "lerp"),
    "copies, fills, index": ("copy", "fill", "zero", "index", "cat", "gather", "scatter", "embed"),
}
"""Of a profile: operators by what their names contain; the first that fits, else "other"."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/cost.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--vocab", type=positive, default=50262, help="embedding rows (default: gpt2 and ours)")
    add("--tokenizer", help="decides the lengths (default: gpt2 where DATA_DIR/gpt2 is, else gsm)")
    add("--data_dir", help="folder of GSM8K (default: HBD3LM_DATA_DIR; without: embedded problems)")
    add("--problems", type=positive, default=512, help="the first so many decide the lengths")
    add("--optimizer", choices=("adamw", "muon"), default="adamw")
    add("--measure", choices=[*SIZES], help="also take real steps of this model")
    add("--batch_size", type=positive, help="of the measured steps (default: by the model)")
    add("--precision", choices=("auto", "32-true", "bf16-mixed"), default="auto")
    add("--compile", action="store_true", help="compile the measured step")
    add("--repeats", type=positive, default=3, help="turns of the measurement")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: processor time, for a "
        "machine that others use as well; with --threads 1")  # fmt: skip
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    return parser


def lengths_of(documents: list[Document]) -> list[Lengths]:
    """The real lengths of every document, as :mod:`hbd3lm.model.cost` takes them."""
    import numpy as np

    from hbd3lm.model.cost import Lengths

    return [
        Lengths(len(d.question), tuple(int(n) for n in np.bincount(d.segment[d.real])))
        for d in documents
    ]


def print_counts(args: argparse.Namespace, layout: Layout, documents: list[Document]) -> None:
    """The tables of a step's operations, and of evaluation and sampling."""
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.cost import (
        evaluation_operations,
        expected_shapes,
        optimizer_operations,
        parameters_by_module,
        sampling_cost,
        step_bytes,
        step_operations,
    )
    from hbd3lm.model.memory import BatchShape

    problems = lengths_of(documents)
    n = len(problems)
    read, dense = (expected_shapes(layout, problems, read=flag) for flag in (True, False))
    (part,) = read
    print(
        f"a problem on average: {part.clean / n:.0f} clean tokens, {part.noisy / n:.0f} noisy, "
        f"{part.predicted / n:.0f} predicted"
    )
    print(f"\n{'GFLOP of a step, a problem':<28}{'matrices':>10}{'attention':>11}{'(dense)':>9}"
          f"{'head':>8}{'total':>8}{args.optimizer:>9}")  # fmt: skip
    names = [name for name in SIZES if name != "quick"]
    for name in names:
        config = ModelConfig(args.vocab, **SIZES[name])
        one, all_pairs = (step_operations(config, shapes) * (1 / n) for shapes in (read, dense))
        update = optimizer_operations(config, args.optimizer)
        print(f"{name:<28}{one.matrices / GIGA:>10.2f}{one.attention / GIGA:>11.3f}"
              f"{all_pairs.attention / GIGA:>9.3f}{one.head / GIGA:>8.2f}{one.total / GIGA:>8.2f}"
              f"{update / GIGA:>9.2f}")  # fmt: skip
    print("attention: of the pairs the rule lets see; (dense): of all pairs of a problem's row;")
    print(f"{args.optimizer}: matrix products of the update, once a step")
    print(f"\n{'':<10}{'million':>9}{'in blocks':>11}{'MB a step':>11}{'weights':>9}{'update':>8}"
          f"{'activations':>13}{'FLOP a byte':>13}{'MFLOP/token':>13}{'GFLOP/sample':>14}"
          )  # fmt: skip
    mean = sorted(problems, key=lambda p: sum(p.segments))[n // 2]
    for name in names:
        config, rows = ModelConfig(args.vocab, **SIZES[name]), BATCH[name]
        weights = parameters_by_module(config)["shared"]
        shape = BatchShape(
            rows,
            round(part.clean / n),
            round(part.noisy / n),
            round(part.predicted / n * rows),
        )
        moved = step_bytes(config, shape, optimizer=args.optimizer, mixed=True)
        operations = step_operations(config, read).total / n * rows
        token = evaluation_operations(config, layout, mean)
        sample = sampling_cost(config, layout, mean).operations.total
        print(f"{name:<10}{weights.total / 1e6:>9.1f}{weights.blocks / 1e6:>11.1f}"
              f"{moved.total / 1e6:>11.0f}{moved.weights / 1e6:>9.0f}{moved.update / 1e6:>8.0f}"
              f"{moved.activations / 1e6:>13.0f}{operations / moved.total:>13.0f}"
              f"{token / 1e6:>13.1f}{sample / GIGA:>14.1f}")  # fmt: skip
    sizes = ", ".join(f"{name} {BATCH[name]}" for name in names)
    print(f"MB a step: least traffic with the memory, bf16, problems a step: {sizes};")
    print(
        "MFLOP/token: of one draw of a likelihood; GFLOP/sample: a middling problem, token by token"
    )


# -- what the machine can do, and what a step does -------------------------------------------------


def matrix_rate(
    device: torch.device, dtype: torch.dtype, clock: Clock, size: int | None = None
) -> float:
    """FLOP a second of large square matrix products, the best of several."""
    import torch

    size = size or (8192 if device.type == "cuda" else 1024)
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / best_time(lambda: a @ b, device, clock)


def bandwidth(device: torch.device, clock: Clock, size: int = 1 << 28) -> float:
    """Bytes a second of a copy, read and written ones added up."""
    import torch

    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size / best_time(lambda: target.copy_(source), device, clock)


def best_time(
    work: Callable[[], object], device: torch.device, clock: Clock, turns: int = 7
) -> float:
    """Seconds of the fastest of ``turns`` calls of ``work``."""
    return min(timed(work, device, clock) for _ in range(turns))


def timed(work: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Seconds of one call of ``work`` by ``clock``, what runs on a GPU included."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    started = clock()
    work()
    wait()
    return clock() - started


class Step:
    """Real training steps of a model on packed batches of one shape."""

    def __init__(
        self, config: ModelConfig, objective: BlockDiffusion, documents: list[Document],
        batch_size: int, optimizer: str, mixed: bool, device: torch.device, compiled: bool = False,
        count: int = 4,
    ) -> None:  # fmt: skip
        from hbd3lm.diffusion.objective import negative_log_likelihood
        from hbd3lm.train.compiled import compile_losses
        from hbd3lm.train.config import TrainerConfig, TrainingConfig
        from hbd3lm.train.data import TrainingBatches
        from hbd3lm.train.optim import make_optimizer

        on_gpu = device.type == "cuda"
        # Without a kernel that skips what is masked, long rows would be mostly masked.
        batching = "pack" if on_gpu or compiled else "bucket"
        training = TrainingConfig(batch_size=batch_size, optimizer=optimizer, batching=batching)
        self.compute = compile_losses(training, TrainerConfig(compile=compiled))
        self.compute = self.compute or negative_log_likelihood
        batches = TrainingBatches(documents, objective, training, seed=0, tiles=on_gpu)
        window = sorted(range(16), key=lambda i: sum(len(documents[d]) for d in batches.steps[i]))
        self.items = [
            batches[window[(2 * i + 1) * 16 // (2 * count)]].to(device) for i in range(count)
        ]
        self.net, self.mixed, self.device = make_network(config).to(device), mixed, device
        self.optimizer = make_optimizer(self.net, training)
        self.config = config

    def turn(self) -> None:
        """All batches once."""
        import torch

        for item in self.items:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                loss = self.compute(self.net, item.batch).sum() / item.denominator
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()

    def shapes(self, read: bool) -> list[tuple[PartShape, ...]]:
        """The parts of every batch; ``read``: with the pairs the rule allows, not all of a row."""
        from hbd3lm.model.cost import shapes_of_batch

        return [shapes_of_batch(item.batch.to("cpu"), read) for item in self.items]

    def tokens(self) -> float:
        """Real (not padding) positions computed a step."""
        streams = [
            s for item in self.items for p in item.batch.parts for s in (p.clean, p.noisy) if s
        ]
        return sum(int((~s.is_padding).sum()) for s in streams) / len(self.items)


def measure(
    args: argparse.Namespace,
    name: str,
    objective: BlockDiffusion,
    documents: list[Document],
    device: torch.device,
) -> None:
    """Print measured over ideal, and on a GPU the model FLOPs utilisation and the memory."""
    import torch

    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.cost import optimizer_operations, step_bytes, step_operations
    from hbd3lm.model.memory import BatchShape
    from hbd3lm.model.precision import resolve_precision

    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    mixed = resolve_precision(args.precision) == "bf16-mixed"
    dtype = torch.bfloat16 if mixed else torch.float32
    config, rows = ModelConfig(args.vocab, **SIZES[name]), args.batch_size or BATCH[name]
    step = Step(config, objective, documents, rows, args.optimizer, mixed, device, args.compile)
    step.turn()  # warms up, compiles, makes the moments
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    count = len(step.items)
    # The machine's limits in the same turns: it may be slower in some than in others.
    turns = [
        (timed(step.turn, device, clock) / count, matrix_rate(device, dtype, clock),
         bandwidth(device, clock))
        for _ in range(args.repeats)
    ]  # fmt: skip
    seconds, rate, bytes_a_second = (statistics.median(column) for column in zip(*turns))
    read, dense = (
        sum(step_operations(config, parts).total for parts in step.shapes(flag)) / count
        for flag in (True, False)
    )
    parts = [shapes[0] for shapes in step.shapes(False)]
    shape = BatchShape(
        rows,
        *(round(statistics.mean(getattr(p, kind) for p in parts) / rows)
          for kind in ("clean", "noisy")),
        round(statistics.mean(p.predicted for p in parts)),
    )  # fmt: skip
    moved = step_bytes(
        config, shape, optimizer=args.optimizer, mixed=mixed, average=False,
        dense_mask=device.type == "cpu",
    )  # fmt: skip
    update = optimizer_operations(config, args.optimizer)
    ideal = max(read / rate, (moved.weights + moved.activations) / bytes_a_second)
    ideal += max(update / rate, moved.update / bytes_a_second)
    tokens = step.tokens()
    print(f"\n{name}, {rows} problems a step, {'bf16' if mixed else 'float32'}, {args.optimizer}, "
          f"{device.type}{', compiled' if args.compile else ''}, {args.clock} clock")  # fmt: skip
    lines = [
        ("matrix rate of the machine", f"{rate / GIGA:.0f} GFLOP/s"),
        ("its memory bandwidth", f"{bytes_a_second / GIGA:.1f} GB/s"),
        (
            "operations by the mask read; as computed",
            f"{read / GIGA:.1f}; {dense / GIGA:.1f} GFLOP",
        ),
        ("least traffic", f"{moved.total / GIGA:.2f} GB"),
        ("ideal step", f"{ideal:.4f} s"),
        ("measured step", f"{seconds:.4f} s"),
        ("measured over ideal", f"{seconds / ideal:.2f}"),
        ("model FLOPs utilisation", f"{read / seconds / rate:.1%} of the matrix rate"),
        ("real tokens a second, both streams", f"{tokens / seconds:.0f}"),
        ("problems a second", f"{rows / seconds:.2f}"),
    ]
    if device.type == "cuda":
        lines.append(("peak memory", f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"))
    for label, value in lines:
        print(f"  {label:<42}{value}")
    if device.type == "cpu":
        print_profile(step)


def print_profile(step: Step) -> None:
    """Shares of the time of a turn by kind of operator."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as found:
        step.turn()
    shares = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in found.key_averages():
        name = event.key.lower()
        kind = next((k for k, words in KINDS.items() if any(w in name for w in words)), "other")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    text = ", ".join(f"{kind} {share / total:.0%}" for kind, share in shares.items())
    print(f"  {'where the time goes (profile)':<42}{text}")


def run(args: argparse.Namespace) -> None:
    """Print the counts and, where asked for, the measurement."""
    keep_freed_memory()
    import torch

    from hbd3lm.diffusion.objective import BlockDiffusion

    if args.threads:
        torch.set_num_threads(args.threads)
    settings = Settings(
        args.measure or "tiny", args.vocab, args.tokenizer, args.data_dir, args.precision,
        args.threads, problems=args.problems,
    )  # fmt: skip
    _, layout, documents, about = load_documents(settings)
    print(about)
    print_counts(args, layout, documents)
    if args.measure:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        measure(args, args.measure, BlockDiffusion(layout, args.vocab - 1), documents, device)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = build_parser().parse_args(argv)
    check_clock(args)
    run(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
