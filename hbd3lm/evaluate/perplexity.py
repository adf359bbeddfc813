"""Perplexity of plan and execution, separately and together, on a named token set.

The loss of every predicted token (end tokens and fill included, or the sum would be no bound)
is divided by the number of real tokens: text and end tokens. Block diffusion gives an upper
bound on the negative log-likelihood (NELBO), next-token models the exact value; the result says
which. Numbers are comparable only on the same problems with the same tokenizer.

Two errors, told apart. That of the *problems*: other problems of the kind would give another
number; only more problems lower it. That of the *draws*: other noise would give another number for
the very same problems; more draws lower it, to any precision asked for. Draws are stratified over
the number of masked tokens of a block (``diffusion/corruption.py``), not over random times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from hbd3lm.diffusion.likelihood import EvaluationBatches, add_losses
from hbd3lm.diffusion.objective import Objective
from hbd3lm.model.layout import Document
from hbd3lm.model.transformer import Transformer


@torch.inference_mode()
def score_documents(
    net: Transformer,
    objective: Objective,
    documents: Sequence[Document],
    samples: int,
    batch_size: int,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda batches: batches,
    turn: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """NLL (or NELBO estimate) in nats and real tokens, each [documents, segments] float64.

    Args:
        samples: noise draws per document; an exact likelihood needs one.
        progress: wraps the numbers of the batches, as a bar does.
        turn: every turn has noise of its own.
    """
    samples = samples if objective.is_bound else 1
    device = next(net.parameters()).device
    batches = EvaluationBatches(documents, objective, samples, batch_size, seed, turn)
    table = torch.zeros(
        len(documents), len(objective.layout.segments), dtype=torch.float64, device=device
    )
    tokens = torch.zeros_like(table)
    for index in progress(range(len(batches))):
        batch, indices, shares = batches[index]
        batch = batch.to(device)
        add_losses(table, net, (batch, indices, shares))
        tokens[torch.tensor(indices, device=device)] = batch.real_tokens.to(table)
    return table.cpu().numpy(), tokens.cpu().numpy()


def summarise(
    nll: np.ndarray, tokens: np.ndarray, noise_variance: float | None = None
) -> dict[str, float | int | None]:
    """Nats per token and perplexity with their errors, from per-document sums.

    Args:
        nll, tokens: [documents].
        noise_variance: of ``nll.sum()``, over the noise draws; None: not known.

    Returns:
        ``nats_per_token`` and its ``standard_error`` (of a ratio, by the delta method, over
        documents: it holds the spread of the problems and of the noise draws), ``perplexity``
        with the 95 % interval, counts. One document has no spread: error and interval are None.
        ``noise_error`` is the part of the draws alone, with an interval of its own.
    """
    n, total = len(nll), tokens.sum()
    rate = float(nll.sum() / total)
    residual = nll - rate * tokens
    error = noise_error = None
    if n > 1:
        error = float(np.sqrt((residual**2).sum() * n / (n - 1)) / total)
    if noise_variance is not None:
        noise_error = float(np.sqrt(noise_variance) / total)
    low, high = _interval(rate, error)
    noise_low, noise_high = _interval(rate, noise_error)
    return {
        "nats_per_token": rate,
        "standard_error": error,
        "noise_error": noise_error,
        "perplexity": float(np.exp(rate)),
        "perplexity_low": low,
        "perplexity_high": high,
        "perplexity_noise_low": noise_low,
        "perplexity_noise_high": noise_high,
        "tokens": int(total),
        "documents": n,
    }


def _interval(rate: float, error: float | None) -> tuple[float | None, float | None]:
    """The 95 % interval of a perplexity whose logarithm has this error."""
    if error is None:
        return None, None
    return float(np.exp(rate - 1.96 * error)), float(np.exp(rate + 1.96 * error))


@dataclass(frozen=True)
class Likelihoods:
    """Of every problem, by segment and (in the last column, ``all``) together.

    Attributes:
        names: of the columns.
        nats: [problems, columns] negative log-likelihood or NELBO, mean over the draws.
        tokens: [problems, columns] real tokens.
        noise: [columns] variance of the sum over problems due to the draws; None: not known.
        exact: no bound.
        has_plan: the execution is given the gold plan.
        draws: of the noise, a problem.
        precision, reached: as asked for, and whether it was reached; None: not asked for.
    """

    names: list[str]
    nats: np.ndarray
    tokens: np.ndarray
    noise: list[float | None]
    exact: bool
    has_plan: bool
    draws: int
    precision: float | None = None
    reached: bool | None = None

    def summary(self) -> dict:
        """By segment and for all together, JSON-ready."""
        given = {"plan": "plan | question", "execution": "execution | question"}
        if self.has_plan:
            given["execution"] = "execution | question, gold plan"
        given["all"] = f"{' + '.join(self.names[:-1])} | question"
        result = {
            "kind": "exact" if self.exact else "upper bound (NELBO)",
            "noise_draws": self.draws,
            "segments": {
                name: {
                    "of": given[name],
                    **summarise(self.nats[:, i], self.tokens[:, i], self.noise[i]),
                }
                for i, name in enumerate(self.names)
            },
        }
        if self.precision is not None:
            result |= {"precision": self.precision, "precision_reached": self.reached}
        return result

    def rows(self) -> list[dict[str, dict[str, float]]]:
        """One JSON-ready dictionary a problem."""
        return [
            {
                "nats": dict(zip(self.names, nats)),
                "tokens": dict(zip(self.names, map(int, tokens))),
            }
            for nats, tokens in zip(self.nats.tolist(), self.tokens.tolist())
        ]


def likelihoods(
    net: Transformer,
    objective: Objective,
    documents: Sequence[Document],
    samples: int,
    batch_size: int,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = lambda batches: batches,
    precision: float | None = None,
    max_samples: int = 256,
) -> Likelihoods:
    """Score all documents.

    Args:
        samples: noise draws per document.
        progress: wraps the numbers of the batches of each turn, as a bar does.
        precision: take further turns of ``samples`` draws until the 95 % interval *of the draws*
            of every perplexity is at most this share of it to either side; None: one turn.
        max_samples: draws per document after which to stop all the same.
    """
    layout, exact = objective.layout, not objective.is_bound
    names = [*(segment.name for segment in layout.segments), "all"]
    # Enough turns for the error of the draws to be known itself: 30 degrees of freedom.
    least = 1 if precision is None or exact else 1 + max(1, math.ceil(30 / len(documents)))
    turns: list[np.ndarray] = []
    while True:
        nll, tokens = score_documents(
            net, objective, documents, samples, batch_size, seed, progress, len(turns)
        )
        turns.append(np.column_stack([nll, nll.sum(1)]))  # [documents, segments + 1]
        noise = [0.0 if exact else None] * len(names)
        if len(turns) > 1:
            noise = list(np.var(turns, 0, ddof=1).sum(0) / len(turns))
        found = Likelihoods(
            names,
            np.mean(turns, 0),
            np.column_stack([tokens, tokens.sum(1)]),
            noise,
            exact,
            layout.has_plan,
            1 if exact else len(turns) * samples,
        )
        known = len(turns) >= least
        reached = precision is None or (known and _reached(found.summary()["segments"], precision))
        if reached or (len(turns) + 1) * samples > max_samples:
            return replace(found, precision=precision, reached=reached)


def _reached(parts: dict[str, dict], precision: float) -> bool:
    return all(
        part["noise_error"] is not None and math.expm1(1.96 * part["noise_error"]) <= precision
        for part in parts.values()
    )
