"""Which token a position gets: the most probable one, or one drawn from the distribution.

Shapes: M positions asked about, D channels, V - 1 logits each.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.sample.randomness import TOKEN, uniforms

RUN = 256
"""Tokens of the vocabulary whose probabilities are summed at a time when one is drawn."""
SLICE = 2048
"""Tokens of the vocabulary whose logits a processor makes, and forgets, at a time. One number
whatever M is: a problem's confidences are then added up in the same order in any company."""


def token_uniforms(
    seed: int, problem: np.ndarray, ordinal: np.ndarray, place: np.ndarray
) -> np.ndarray:
    """The numbers that pick tokens: [M], one for each (problem, block, place in the block)."""
    return uniforms(seed, problem, ordinal, place, 0, TOKEN)


def most_probable(
    hidden: Tensor, table: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """argmax and max of softmax(hidden @ table.T + bias), row by row.

    All positions of a block are asked about at once, and nobody reads their logits again: they are
    made a slice of the vocabulary at a time, and folded into a running maximum and sum.

    Args:
        hidden: [M, D].
        table: [V - 1, D], in the dtype the product is to run in, as all of them.
        bias: [V - 1], or None.

    Returns:
        tokens [M] (of equals the first) and their probabilities [M], at least float32.

    Raises:
        UserError: a logit is no number.
    """
    wide = torch.promote_types(table.dtype, torch.float32)
    best = hidden.new_full((len(hidden),), -torch.inf, dtype=wide)
    total, token = torch.zeros_like(best), torch.zeros_like(best, dtype=torch.long)
    size = SLICE if hidden.device.type == "cpu" else len(table)
    for start in range(0, len(table), size):
        here = slice(start, start + size)
        logits = F.linear(hidden, table[here], None if bias is None else bias[here]).to(wide)
        top = logits.amax(-1)
        # Few rows find a better token in a later slice, and the search for its place is slow.
        better = (top > best).nonzero().squeeze(-1)
        token[better] = start + logits[better].argmax(-1)
        before, best = best, torch.maximum(best, top)
        mass = logits.sub_(best[:, None]).exp_().sum(-1)
        total = total * (before - best).exp() + mass
    _check_numbers(best)
    return token, 1 / total


def draw_tokens(
    logits: Tensor, temperature: float, top_p: float, u: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Draw one token per row of ``logits`` [M, V - 1] with the uniform numbers ``u`` [M].

    Returns:
        tokens [M] and the probability the (tempered, full) distribution gives them [M].

    Raises:
        UserError: a logit is no number.
    """
    tempered = logits.float() if temperature == 1 else logits.float() / temperature
    p = tempered.softmax(-1)
    _check_numbers(p[:, 0])  # one NaN among the logits makes all of its row
    allowed = p
    if top_p < 1:
        ordered, order = p.sort(-1, descending=True)
        # Keep a token if the mass before it has not yet reached top_p.
        keep = ordered.cumsum(-1) - ordered < top_p
        allowed = torch.zeros_like(p).scatter(-1, order, ordered * keep)
    token = _invert(allowed, torch.from_numpy(u).to(p.device))
    return token, p.gather(-1, token[:, None]).squeeze(-1)


def _check_numbers(values: Tensor) -> None:
    """One value a row, NaN where a logit of the row is."""
    if values.isnan().any():
        raise UserError(
            "the network's predictions are not numbers (NaN): its weights are damaged, or too "
            "large for bf16; try sampling.precision=32-true, or another checkpoint"
        )


def _invert(p: Tensor, u: Tensor) -> Tensor:
    """First index at which the cumulative sum of ``p`` [M, V] exceeds ``u`` [M] times its total.

    Summed in runs first: only the run in which the sum crosses is looked into. A run is summed as
    it is (for a float64 sum torch would copy all of ``p`` on a CPU); the runs, and the tokens of
    the one that matters, are added up in float64.
    """
    whole = p.shape[-1] // RUN * RUN
    runs = p[:, :whole].unflatten(-1, (-1, RUN)).sum(-1)
    rest = p[:, whole:].sum(-1, keepdim=True)
    total = torch.cat([runs, rest], -1).double().cumsum(-1)
    before = F.pad(total, (1, 0))  # mass before each run, and all
    target = (u * before[:, -1])[:, None]
    run = torch.searchsorted(before[:, 1:].contiguous(), target, right=True)
    run = run.clamp(max=before.shape[-1] - 2)
    place = run * RUN + torch.arange(RUN, device=p.device)  # [M, RUN]
    inside = p.gather(-1, place.clamp(max=p.shape[-1] - 1)).double()
    inside = torch.where(place < p.shape[-1], inside, 0).cumsum(-1)
    # Rounding may put the target past the run's end, where a token without mass could stand.
    end = torch.nextafter(inside[:, -1:], torch.zeros_like(target))
    target = torch.minimum(target - before.gather(-1, run), end)
    return (run * RUN + torch.searchsorted(inside, target, right=True)).squeeze(-1)
