#!/usr/bin/env python
"""Our training step against BD3-LM's published one: examples a second, memory, arithmetic.

    python benchmarks/train_step.py --model tiny

Every variant lives in a process of its own, which counts its own memory; they take their turns
A B A B, so that whatever else the machine does hits them alike. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import sys
import time
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hbd3lm.commands.arguments import count, positive
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    from benchmarks.bd3lm_baseline import PaddedBatch
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.model.batch import Batch
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.layout import Document, Layout
    from hbd3lm.model.transformer import Transformer

SIZES = {
    "quick": {"dim": 32, "n_layers": 2, "n_heads": 2},
    "nano": {"dim": 128, "n_layers": 4, "n_heads": 4},
    "tiny": {"dim": 256, "n_layers": 8, "n_heads": 8},
    "small": {"dim": 768, "n_layers": 12, "n_heads": 12},
    "medium": {"dim": 1024, "n_layers": 24, "n_heads": 16},
}
BATCH_SIZE = {"quick": 2, "nano": 4, "tiny": 4, "small": 1, "medium": 1}
STEPS = 4
"""Steps of ours in a turn, at evenly spaced lengths: their cost depends on the length."""
GIB, GFLOP = 2**30, 1e9


@dataclass(frozen=True)
class Variant:
    """One row of the table; ``layout`` is ``ragged`` (ours) or ``padded`` (BD3-LM's)."""

    name: str
    layout: str
    batch_size: int
    head: str = "all"
    steps: int = 1
    plain: bool = False
    """In float32, with the C library's allocator as it comes and all activations kept, as autograd
    does by itself; whatever the machine can do."""
    again: str = "none"
    """``trainer.activation_checkpoint``."""


@dataclass(frozen=True)
class Settings:
    """What all variants share."""

    model: str
    vocab: int
    tokenizer: str | None
    data_dir: str | None
    precision: str
    threads: int | None
    problems: int
    short: bool = False
    planner: str = "rules"


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/train_step.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--model", choices=[name for name in SIZES if name != "quick"], default="tiny")
    add("--vocab", type=positive, default=50262, help="embedding rows (default: gpt2 and ours)")
    add("--tokenizer", help="decides the lengths (default: gpt2 where DATA_DIR/gpt2 is, else gsm)")
    add("--data_dir", help="folder of GSM8K (default: HBD3LM_DATA_DIR; without: embedded problems)")
    add("--planner", choices=("rules", "socratic"), default="rules", help="decides plan lengths")
    add("--batch_size", type=positive, help="of both (default: 4, for small 1)")
    add("--large_batch", type=count, default=32, help="of ours in a row of its own; 0: no such row")
    add("--kinder", action="store_true", help="add the padded layout with logits for x_t only")
    add("--again", action="store_true", help="add ours with trainer.activation_checkpoint")
    add(
        "--precision",
        choices=("auto", "32-true", "bf16-mixed"),
        default="auto",
        help="of all but the plain row",
    )
    add("--repeats", type=positive, default=3, help="turns of each variant")
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    add(
        "--apart",
        action="store_true",
        help="one variant after another, for batches that do not fit the machine side by side",
    )
    add("--quick", action="store_true", help="a toy size, to see that everything runs")
    return parser


# -- what is measured ----------------------------------------------------------------------------


def load_documents(settings: Settings) -> tuple[ProblemTokenizer, Layout, list[Document], str]:
    """Tokenizer, layout, documents, and one line that says what they are.

    Raises:
        UserError: no such data or tokenizer, or a vocabulary that does not hold its ids.
    """
    from hbd3lm.data.annotations import execution_text
    from hbd3lm.data.encoding import Caps, encode_examples
    from hbd3lm.data.local_files import DATA_DIR_VARIABLE
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.sources import load_problems
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.model.layout import build_document, plan_execution_layout
    from hbd3lm.plans.planner import load_planner

    folder = settings.data_dir or os.environ.get(DATA_DIR_VARIABLE)
    name = settings.tokenizer
    if name is None:
        name = "gpt2" if folder and Path(folder, "gpt2").is_dir() else "gsm"
    tokenizer = load_tokenizer(name, folder)
    if settings.vocab < tokenizer.vocab_size:
        raise UserError(
            f"--vocab {settings.vocab} does not hold the {tokenizer.vocab_size} ids of the "
            f"tokenizer {name}; set --vocab {tokenizer.vocab_size} or more, or --tokenizer gsm"
        )
    dataset = "gsm8k" if folder else "embedded"
    if folder and settings.planner == "socratic":
        dataset = "gsm8k_socratic"
    loaded = load_problems(dataset, "train", folder, limit=settings.problems)
    plans = load_planner(settings.planner).plan(loaded.problems)
    examples = [
        HierarchicalExample(p.id, p.question, plan, execution_text(p), p.answer)
        for p, plan in zip(loaded.problems, plans)
    ]
    caps = Caps(64, 64, 64) if settings.short else Caps()
    layout = plan_execution_layout(caps.question, caps.plan, caps.execution)
    encoded, _ = encode_examples(examples, tokenizer, caps)
    documents = [
        build_document(
            e.question, {"plan": e.plan, "execution": e.execution}, layout, tokenizer.fill_id
        )
        for e in encoded
    ]
    mean = sum(len(document) for document in documents) / len(documents)
    about = (
        f"{loaded.origin}; plans: {settings.planner}; tokenizer {name}, "
        f"{mean:.0f} of {layout.max_len} tokens on average"
    )
    return tokenizer, layout, documents, about


def make_network(config: ModelConfig) -> Transformer:
    """A random network whose residual branches are no longer zero, so that every weight counts."""
    import torch

    from hbd3lm.model.transformer import Transformer

    torch.manual_seed(0)
    net = Transformer(config)
    with torch.no_grad():
        for stack in net.stacks.values():
            for block in stack.blocks:
                block.attention.wo.weight.normal_(std=0.02)
                block.mlp.down.weight.normal_(std=0.02)
    return net


def padded_flops(config: ModelConfig, rows: int, length: int, head: str) -> int:
    """Forward FLOPs of the published layout: ``rows`` of 2 x ``length`` tokens, all the way."""
    from hbd3lm.model.cost import token_operations

    width, tokens = config.n_heads * config.resolved_head_dim, 2 * length
    block = sum(token_operations(config)) + 4 * width * tokens
    predicted = tokens if head == "all" else length
    logits = 2 * config.dim * (config.vocab_size - 1) * predicted
    return rows * (tokens * config.n_layers * block + logits)


class Bench:
    """A variant, ready to take steps."""

    def __init__(self, settings: Settings, variant: Variant) -> None:
        from hbd3lm.allocator import keep_freed_memory, return_freed_memory

        if not variant.plain:
            keep_freed_memory()  # as training does, before torch is imported

        import numpy as np
        import torch

        from benchmarks.bd3lm_baseline import keep_activations, pad_documents
        from hbd3lm.data.batching import StepBatches
        from hbd3lm.diffusion.objective import BlockDiffusion
        from hbd3lm.model.config import ModelConfig
        from hbd3lm.train.config import TrainingConfig
        from hbd3lm.train.optim import make_optimizer

        if settings.threads:
            torch.set_num_threads(settings.threads)
        if variant.plain:
            keep_activations()
        self.settings, self.variant = settings, variant
        tokenizer, layout, documents, self.about = load_documents(settings)
        self.layout = layout
        self.config = ModelConfig(vocab_size=settings.vocab, **SIZES[settings.model])
        mask_id = settings.vocab - 1
        objective = BlockDiffusion(layout, mask_id)
        # A training window: batches of similar lengths. Some of them, evenly from short to long.
        lengths = [len(document) for document in documents]
        steps = StepBatches(lengths, variant.batch_size, seed=0)
        window = sorted((steps[i] for i in range(16)), key=lambda s: sum(lengths[d] for d in s))
        chosen = [window[(2 * i + 1) * 16 // (2 * variant.steps)] for i in range(variant.steps)]

        def assemble(indices):
            rng = np.random.default_rng(int(indices[0]))
            some = [documents[i] for i in indices]
            noises = objective.training_noise(some, rng)
            if variant.layout == "padded":
                return pad_documents(some, noises, layout, mask_id, tokenizer.fill_id)
            return objective.assemble(some, noises)

        self.batches = [assemble(indices) for indices in chosen]
        self.net = make_network(self.config)
        self.net.activation_checkpoint = variant.again
        self.optimizer = make_optimizer(self.net, TrainingConfig(optimizer="adamw"))
        self._make_moments()
        return_freed_memory()  # of gradients, which are the step's: else those kept would not count
        self.resident = resident_bytes()

    def _make_moments(self) -> None:
        """AdamW's moments outlive the step and are the same for all: made before memory counts."""
        sum(parameter.sum() * 0 for parameter in self.net.parameters()).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def step(self, batch: Batch | PaddedBatch) -> float:
        """Forward, backward, AdamW: the loss per example."""
        import torch

        from benchmarks.bd3lm_baseline import published_loss
        from hbd3lm.diffusion.objective import negative_log_likelihood

        mixed = self.settings.precision == "bf16-mixed" and not self.variant.plain
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            if self.variant.layout == "padded":
                loss = published_loss(self.net, batch, self.variant.head)
            else:
                loss = negative_log_likelihood(self.net, batch).sum()
            loss = loss / self.variant.batch_size
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def turn(self) -> float:
        """Seconds a step, averaged over this variant's batches."""
        started = time.perf_counter()
        for batch in self.batches:
            self.step(batch)
        return (time.perf_counter() - started) / len(self.batches)

    def flops(self) -> float:
        """FLOPs a step: the backward pass counts twice the forward one (nothing run again)."""
        from hbd3lm.model.cost import shapes_of_batch, step_operations

        variant, total = self.variant, 0
        for batch in self.batches:
            if variant.layout == "padded":
                rows, length = batch.targets.shape
                total += 3 * padded_flops(self.config, rows, length, variant.head)
            else:
                total += step_operations(self.config, shapes_of_batch(batch)).total
        return total / len(self.batches)


def resident_bytes() -> int:
    """Memory this process holds now."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return peak_bytes()


def peak_bytes() -> int:
    """Most memory this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def check_agreement(settings: Settings) -> str:
    """Both layouts must give the same loss for the same x_t; says what was compared.

    Raises:
        RuntimeError: they do not.
    """
    import numpy as np
    import torch

    from benchmarks.bd3lm_baseline import pad_documents, published_loss
    from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.layout import build_document

    if settings.threads:
        torch.set_num_threads(settings.threads)
    tokenizer, layout, documents, _ = load_documents(replace(settings, problems=2))
    mask_id, rng = settings.vocab - 1, np.random.default_rng(0)
    objective = BlockDiffusion(layout, mask_id)
    net = make_network(ModelConfig(vocab_size=settings.vocab, **SIZES[settings.model]))

    def ids(count: int):
        return rng.integers(0, tokenizer.fill_id, size=count)

    full = build_document(
        ids(layout.question_len),
        {segment.name: ids(segment.max_len) for segment in layout.segments},
        layout,
        tokenizer.fill_id,
    )
    found = []
    for some, like_ours in (([full], False), (documents[:2], True)):
        noises = objective.training_noise(some, rng)
        padded = pad_documents(some, noises, layout, mask_id, tokenizer.fill_id, like_ours)
        with torch.no_grad():
            ours = float(negative_log_likelihood(net, objective.assemble(some, noises)).sum())
            theirs = float(published_loss(net, padded))
        found.append(abs(ours - theirs) / abs(theirs))
    if max(found) > 1e-4:
        raise RuntimeError(f"the two layouts disagree: relative differences {found}")
    return (
        f"same loss for the same x_t: relative difference {found[0]:.0e} on a full-length document,"
        f" {found[1]:.0e} on ragged ones (their padding hidden)"
    )


# -- processes and the table ---------------------------------------------------------------------


def work(pipe: Connection, settings: Settings, variant: Variant | None) -> None:
    """A process of its own: makes its variant, then steps when told to. None: the check."""
    try:
        if variant is None:
            pipe.send(check_agreement(settings))
            return
        bench = Bench(settings, variant)
        pipe.send((bench.about, bench.flops()))
        while pipe.recv() == "turn":
            pipe.send(bench.turn())
        pipe.send((peak_bytes() - bench.resident, peak_bytes()))
    except UserError as error:
        pipe.send(error)


class Worker:
    """The other end of :func:`work`."""

    def __init__(self, settings: Settings, variant: Variant | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, settings, variant), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> Any:
        """The next answer.

        Raises:
            RuntimeError: the process died.
            UserError: what it was given does not fit.
        """
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"a benchmark process died ({self.process.exitcode})") from None
        if isinstance(answer, UserError):
            raise answer
        return answer

    def ask(self, question: str) -> Any:
        """The answer to one question; raises as :meth:`receive` does."""
        self.pipe.send(question)
        return self.receive()


def measure(
    settings: Settings, variants: list[Variant], repeats: int
) -> tuple[list[tuple], list[list[float]], list[tuple[int, int]]]:
    """What was ready, seconds a step ``[turn][variant]``, and bytes, of variants taking turns."""
    workers = [Worker(settings, variant) for variant in variants]
    ready = [worker.receive() for worker in workers]
    for worker in workers:
        worker.ask("turn")  # warm-up
    turns = [[worker.ask("turn") for worker in workers] for _ in range(repeats)]
    memory = [worker.ask("end") for worker in workers]
    for worker in workers:
        worker.process.join()  # what it holds is free for the next
    return ready, turns, memory


def run(settings: Settings, variants: list[Variant], repeats: int, apart: bool = False) -> None:
    """Measure and print. The second variant is what the others are compared with."""
    print(f"{settings.model}, vocabulary {settings.vocab}, {settings.precision}")
    print(Worker(settings, None).receive())
    ready, memory, turns = [], [], [[] for _ in range(repeats)]
    for group in [[variant] for variant in variants] if apart else [variants]:
        about, seconds, held = measure(settings, group, repeats)
        ready, memory = ready + about, memory + held
        turns = [row + more for row, more in zip(turns, seconds)]
    print(ready[0][0])

    def rate(turn: list[float], i: int) -> float:
        return variants[i].batch_size / turn[i]

    header = ("", "batch", "examples/s", "ratio", "GFLOP/ex", "ratio", "GFLOP/s", "step GiB",
              "ratio", "peak GiB", "ratio")  # fmt: skip
    width = max(len(variant.name) for variant in variants)
    line = "{:" + str(width) + "} {:>6} {:>11} {:>7} {:>9} {:>7} {:>8} {:>9} {:>7} {:>9} {:>7}"
    print("\n" + line.format(*header))
    for i, variant in enumerate(variants):
        flops = [f / v.batch_size / GFLOP for (_, f), v in zip(ready, variants)]
        speed = statistics.median(rate(turn, i) for turn in turns)
        # Turn by turn, since the machine may be slower in some turns than in others.
        faster = statistics.median(rate(turn, i) / rate(turn, 1) for turn in turns)
        (step, peak), (step_1, peak_1) = memory[i], memory[1]
        print(
            line.format(
                variant.name,
                variant.batch_size,
                f"{speed:.3f}",
                f"{faster:.2f}x",
                f"{flops[i]:.1f}",
                f"{flops[1] / flops[i]:.2f}x",
                f"{flops[i] * speed:.0f}",
                f"{step / GIB:.2f}",
                f"{step / step_1:.2f}",
                f"{peak / GIB:.2f}",
                f"{peak / peak_1:.2f}",
            )
        )
    print(
        "\nMedians of the turns. step: peak less what was held before the first step (interpreter,"
        "\ndata, weights, AdamW's moments), so activations, gradients and temporaries; peak: all."
    )


def utilisation(args: argparse.Namespace) -> None:
    """Our step on the GPU: model FLOPs utilisation, tokens a second, memory."""
    from benchmarks import cost

    options = ["--measure", args.model, "--vocab", str(args.vocab), "--precision", args.precision]
    for name in ("tokenizer", "data_dir"):
        if getattr(args, name) is not None:
            options += [f"--{name}", getattr(args, name)]
    cost.main(options)
    cost.main([*options, "--compile"])


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = build_parser().parse_args(argv)
    from hbd3lm.model.precision import resolve_precision

    model = "quick" if args.quick else args.model
    batch_size = args.batch_size or BATCH_SIZE[model]
    large = 0 if args.quick else args.large_batch
    variants = [
        Variant("ours", "ragged", batch_size, steps=STEPS),
        Variant("BD3-LM, written plainly", "padded", batch_size, plain=True),
        Variant("BD3-LM's layout, all else ours", "padded", batch_size),
    ]
    if args.kinder:
        variants.append(Variant("BD3-LM, logits of x_t only", "padded", batch_size, head="noisy"))
    if args.again:
        for again in ("mlp", "block"):
            variants.append(replace(variants[0], name=f"ours, {again} again", again=again))
    if large:
        variants.append(Variant("ours, large batch", "ragged", large))
    settings = Settings(
        model=model,
        vocab=args.vocab,
        tokenizer="gsm" if args.quick else args.tokenizer,
        data_dir=args.data_dir,
        precision=resolve_precision(args.precision),
        threads=args.threads,
        problems=32 if args.quick else 16 * max(batch_size, large, 32),
        short=args.quick,
        planner=args.planner,
    )
    run(settings, variants, 1 if args.quick else args.repeats, args.apart)
    import torch

    if torch.cuda.is_available() and not args.quick:
        utilisation(args)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
