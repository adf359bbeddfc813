#!/usr/bin/env python
"""How noisy one draw of the NELBO is: random times against numbers of masked tokens; and training.

    python benchmarks/likelihood_variance.py --checkpoint RUN/checkpoints/best.ckpt

Every estimator below estimates the same bound for the same problems with the same network, and one
draw of each costs one network evaluation a problem. What several draws of a problem cost that share
its clean tokens is measured as well. See ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hbd3lm.commands.arguments import count, positive, whole
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    import numpy as np

    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.diffusion.corruption import Noise
    from hbd3lm.diffusion.objective import BlockDiffusion
    from hbd3lm.model.batch import Batch
    from hbd3lm.model.layout import Document
    from hbd3lm.model.transformer import Transformer

    Estimator = Callable[[Sequence[Document], np.random.Generator], list[list[Noise]]]
    """Documents -> [turns of draws][documents]."""


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(prog="benchmarks/likelihood_variance.py", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--checkpoint", required=True, help="a trained network")
    add("--data_path", help="plan file (default: embedded problems with plans by the rules)")
    add("--problems", type=whole(2), default=64, help="the first so many of it")
    add("--draws", type=whole(2), default=16, help="of every estimator, for each problem")
    add("--gradient_draws", type=count, default=0, help="also compare the training gradients of so "
        "many draws, by interval (default: 0, not)")  # fmt: skip
    add("--batch_size", type=positive, default=32, help="problems of a network evaluation")
    add("--threads", type=positive, help="of torch (default: torch's choice)")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the tables; 0.

    Raises:
        UserError: a network without noise, too few draws, or no data.
    """
    args = build_parser().parse_args(argv)
    if args.gradient_draws == 1:
        raise UserError(f"--gradient_draws {args.gradient_draws}: 0, or at least 2")
    import torch

    from hbd3lm.commands.build import build_documents, build_objective, load_trained_tokenizer
    from hbd3lm.model.checkpoint import load_network

    if args.threads:
        torch.set_num_threads(args.threads)
    net, card = load_network(args.checkpoint, what="--checkpoint")
    if card.objective != "diffusion":
        raise UserError(f"--checkpoint {args.checkpoint}: its likelihood is exact, without noise")
    tokenizer = load_trained_tokenizer(card, Path(args.checkpoint), None)
    objective = build_objective("diffusion", card.layout, tokenizer.mask_id, card.model)
    documents = build_documents(load_examples(args), tokenizer, card.layout)
    blocks = ", ".join(f"{s.name} in blocks of {s.block_size}" for s in card.layout.segments)
    print(f"{args.checkpoint}: {len(documents)} problems, {blocks}; {args.draws} draws each")
    compare_estimators(net, objective, documents, args.draws, args.batch_size)
    compare_sharing(net, objective, documents, args.draws, args.batch_size)
    if args.gradient_draws:
        compare_gradients(net, objective, documents[: args.batch_size], args.gradient_draws)
    return 0


def load_examples(args: argparse.Namespace) -> list[HierarchicalExample]:
    """Of the plan file, or embedded problems with plans by the rules."""
    from hbd3lm.data.annotations import execution_text
    from hbd3lm.data.records import HierarchicalExample, read_examples
    from hbd3lm.data.sources import load_problems
    from hbd3lm.plans.planner import load_planner

    if args.data_path:
        return read_examples(args.data_path)[: args.problems]
    problems = load_problems("embedded", "train", None, limit=args.problems).problems
    return [
        HierarchicalExample(p.id, p.question, plan, execution_text(p), p.answer)
        for p, plan in zip(problems, load_planner("rules").plan(problems))
    ]


# -- the bound -----------------------------------------------------------------------------------


def estimators(draws: int) -> dict[str, Estimator]:
    """What is compared, the plainest first."""
    from hbd3lm.diffusion.corruption import Noise, noise_by_count, noise_by_time
    from hbd3lm.diffusion.schedule import LogLinearSchedule

    whole = LogLinearSchedule(0.0, 1.0)  # the bound itself, unclipped

    def transpose(rows: list[list[Noise]]) -> list[list[Noise]]:
        return [list(column) for column in zip(*rows)]

    def random_times(document: Document, rng: np.random.Generator) -> Noise:
        t = 1.0 - rng.random(document.n_blocks)[document.block - 1]
        masked = rng.random(len(t)) < t
        return Noise(masked, (masked / t).astype("float32"))

    return {
        "random times": lambda documents, rng: [
            [random_times(document, rng) for document in documents] for _ in range(draws)
        ],
        "times stratified over blocks": lambda documents, rng: [
            noise_by_time(list(documents), whole, rng) for _ in range(draws)
        ],
        "random counts": lambda documents, rng: transpose(
            [[noise_by_count(d, 1, rng)[0] for _ in range(draws)] for d in documents]
        ),
        "counts stratified over draws": lambda documents, rng: transpose(
            [noise_by_count(d, draws, rng) for d in documents]
        ),
    }


def compare_estimators(
    net: Transformer,
    objective: BlockDiffusion,
    documents: Sequence[Document],
    draws: int,
    batch_size: int,
) -> None:
    """Two sets of draws of every estimator; their differences are its noise."""
    import numpy as np

    tokens = sum(int(document.real.sum()) for document in documents)
    print(f"\n{'estimator':<30} nats/token   error   variance  of plainest  seconds")
    first = None
    for index, (name, draw) in enumerate(estimators(draws).items()):
        started = time.perf_counter()
        sets = []
        for repeat in range(2):
            rng = np.random.default_rng([repeat, index])
            turns = draw(documents, rng)
            sets.append(
                np.mean([score(net, objective, documents, t, batch_size) for t in turns], 0)
            )
        # Each document's two means are independent: half their squared difference is the variance
        # of one of them, and the sum over documents that of the total.
        variance = float(((sets[0] - sets[1]) ** 2).sum() / 2) / tokens**2
        first = first or variance
        print(
            f"{name:<30} {float(np.mean(sets, 0).sum()) / tokens:10.4f} "
            f"{(variance / 2) ** 0.5:7.4f} {variance:10.3g} {variance / first:12.4f} "
            f"{time.perf_counter() - started:8.1f}"
        )
    print("error: of the mean of both sets, nats/token; variance: of the mean of one set")


def score(
    net: Transformer,
    objective: BlockDiffusion,
    documents: list[Document],
    noises: list[Noise],
    batch_size: int,
) -> np.ndarray:
    """[documents] estimates in nats."""
    import torch

    from hbd3lm.diffusion.objective import negative_log_likelihood

    order = sorted(range(len(documents)), key=lambda i: len(documents[i]))
    found = torch.zeros(len(documents), dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            some = order[start : start + batch_size]
            batch = objective.assemble([documents[i] for i in some], [noises[i] for i in some])
            found[some] = negative_log_likelihood(net, batch).sum(1).double()
    return found.numpy()


# -- the cost of draws ---------------------------------------------------------------------------


class CleanCopyEach:
    """An objective whose draws share nothing, as those of training."""

    def __init__(self, objective: BlockDiffusion) -> None:
        self.evaluation_noise, self._assemble = objective.evaluation_noise, objective.assemble

    def assemble_draws(self, documents: list[Document], noises: list[list[Noise]]) -> Batch:
        """A batch in which every draw has a clean copy of its own."""
        from hbd3lm.diffusion.objective import repeat_documents

        return self._assemble(*repeat_documents(documents, noises))


def compare_sharing(
    net: Transformer,
    objective: BlockDiffusion,
    documents: list[Document],
    draws: int,
    batch_size: int,
) -> None:
    """All draws of all documents, in the batches of an evaluation."""
    import torch

    from hbd3lm.diffusion.likelihood import EvaluationBatches, add_losses

    print(f"\n{draws} draws of a problem".ljust(31), "nats/token  seconds  of plainest")
    tokens = sum(int(document.real.sum()) for document in documents)
    first = None
    for name, kind in (("a clean copy each", CleanCopyEach(objective)), ("one for all", objective)):
        batches = EvaluationBatches(documents, kind, draws, batch_size, seed=0)
        nats = torch.zeros(len(documents), len(objective.layout.segments), dtype=torch.float64)
        started = time.perf_counter()
        with torch.inference_mode():
            for index in range(len(batches)):
                add_losses(nats, net, batches[index])
        seconds = time.perf_counter() - started
        first = first or seconds
        print(
            f"{name:<30} {float(nats.sum()) / tokens:10.4f} {seconds:8.1f} {seconds / first:12.2f}"
        )


# -- the gradient --------------------------------------------------------------------------------


def compare_gradients(
    net: Transformer, objective: BlockDiffusion, documents: list[Document], draws: int
) -> None:
    """Variance of the training gradient under some intervals."""
    from hbd3lm.diffusion.schedule import LogLinearSchedule
    from hbd3lm.diffusion.variance import gradient_variance

    print(f"\ntraining gradient of {len(documents)} problems, {draws} draws")
    print(f"{'times':<16} trace of covariance  |mean|^2   ratio")
    for low, high in ((0.001, 1.0), (0.001, 0.5), (0.3, 0.8), (0.45, 0.95), (0.5, 1.0)):
        clipped = replace(objective, schedule=LogLinearSchedule(low, high))
        found = gradient_variance(net, clipped, documents, draws, seed=0)
        ratio = found.trace / found.squared_norm if found.squared_norm > 0 else float("inf")
        print(
            f"({low}, {high}]".ljust(16),
            f"{found.trace:19.4g} {found.squared_norm:9.4g} {ratio:7.3f}",
        )


if __name__ == "__main__":
    sys.exit(run_command(main))
