"""Perplexity of plan and execution, separately and together, on a named token set.

The loss of every predicted token (end tokens and fill included, or the sum would be no bound)
is divided by the number of real tokens: text and end tokens. Block diffusion gives an upper
bound on the negative log-likelihood (NELBO), next-token models the exact value; the result says
which. Numbers are comparable only on the same problems with the same tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    progress=lambda batches: batches,
) -> tuple[np.ndarray, np.ndarray]:
    """NLL (or NELBO estimate) in nats and real tokens, each [documents, segments] float64.

    Args:
        samples: noise draws per document; an exact likelihood needs one.
    """
    samples = samples if objective.is_bound else 1
    device = next(net.parameters()).device
    batches = EvaluationBatches(documents, objective, samples, batch_size, seed)
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


def summarise(nll: np.ndarray, tokens: np.ndarray) -> dict[str, float | int | None]:
    """Nats per token and perplexity with a standard error, from per-document sums.

    Args:
        nll, tokens: [documents].

    Returns:
        ``nats_per_token`` and its ``standard_error`` (of a ratio, by the delta method, over
        documents: it holds the spread of the data set and of the noise draws), ``perplexity``
        with the 95 % interval, counts. One document has no spread: error and interval are None.
    """
    n, total = len(nll), tokens.sum()
    rate = nll.sum() / total
    residual = nll - rate * tokens
    error = low = high = None
    if n > 1:
        error = float(np.sqrt((residual**2).sum() * n / (n - 1)) / total)
        low, high = (float(np.exp(rate + sign * 1.96 * error)) for sign in (-1, 1))
    return {
        "nats_per_token": float(rate),
        "standard_error": error,
        "perplexity": float(np.exp(rate)),
        "perplexity_low": low,
        "perplexity_high": high,
        "tokens": int(total),
        "documents": n,
    }


def perplexities(
    net: Transformer,
    objective: Objective,
    documents: Sequence[Document],
    samples: int,
    batch_size: int,
    seed: int = 0,
    progress=lambda batches: batches,
) -> dict:
    """Summaries by segment and for all together, JSON-ready."""
    nll, tokens = score_documents(net, objective, documents, samples, batch_size, seed, progress)
    given = {"plan": "plan | question", "execution": "execution | question"}
    if objective.layout.has_plan:
        given["execution"] = "execution | question, gold plan"
    parts = {
        segment.name: {"of": given[segment.name], **summarise(nll[:, i], tokens[:, i])}
        for i, segment in enumerate(objective.layout.segments)
    }
    joint = " + ".join(segment.name for segment in objective.layout.segments)
    parts["all"] = {"of": f"{joint} | question", **summarise(nll.sum(1), tokens.sum(1))}
    return {
        "kind": "upper bound (NELBO)" if objective.is_bound else "exact",
        "noise_draws": samples if objective.is_bound else 1,
        "segments": parts,
    }
