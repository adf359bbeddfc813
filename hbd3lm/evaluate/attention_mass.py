"""Where the tokens of an execution look while they are written: how much, at what, in which layer.

Documents are cut open as in training: every block of the execution at once, with all but a number
of its tokens masked, over the clean question, plan and earlier blocks. So a denoising step is how
many of a block's tokens are decided already, and which ones is drawn at random; given the model's
own texts, these are the states its sampler goes through up to that order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hbd3lm.data.tokenizer import ProblemTokenizer
from hbd3lm.diffusion.corruption import Noise
from hbd3lm.diffusion.objective import Autoregressive, Objective
from hbd3lm.errors import UserError
from hbd3lm.model.attention import attention_probabilities
from hbd3lm.model.batch import Part, Prediction, Tokens
from hbd3lm.model.layout import Document, Layout
from hbd3lm.model.transformer import AttentionObserver, Past, Transformer
from hbd3lm.plans.numbers import number_spans, spelled_number_spans

GROUPS = (
    "question: digits",
    "question: number words",
    "question: other words",
    "plan",
    "end tokens and fill",
    "earlier execution",
    "own block",
)
"""What may be looked at. End tokens and fill are those of question and plan."""
_DIGITS, _WORDS, _QUESTION, _PLAN, _ENDS, _EARLIER, _OWN = range(len(GROUPS))


@dataclass(frozen=True)
class AttentionMass:
    """Mean attention of what predicts a document's masked execution tokens, over heads and tokens.

    These are the masked tokens themselves, or under a shifted head the tokens before them.

    Attributes:
        mass: [documents, layers, steps, groups]; sums to 1 over the groups.
        uniform: [documents, steps, groups]: what looking at all visible tokens alike would give.
    """

    mass: np.ndarray
    uniform: np.ndarray


def group_tokens(
    document: Document, question: str, layout: Layout, tokenizer: ProblemTokenizer
) -> np.ndarray:
    """The index into :data:`GROUPS` of each clean token, [len(document)].

    A token is a number's if it stands for any of its characters.
    """
    _, offsets = tokenizer.encode_with_offsets(question)
    kinds = np.full(len(offsets), _QUESTION)
    start, end = np.array(offsets, dtype=np.int64).reshape(-1, 2).T
    for spans, kind in ((spelled_number_spans, _WORDS), (number_spans, _DIGITS)):
        for first, last in spans(question):
            kinds[(start < last) & (end > first)] = kind
    # A question over its cap has lost its first tokens; its end token is always there.
    n_text = len(document.question) - 1
    kinds = np.append(kinds[len(kinds) - n_text :], _ENDS)
    names = [segment.name for segment in layout.segments]
    in_plan = document.segment == names.index("plan")
    special = ~document.real | (document.targets == tokenizer.plan_end_id)
    later = np.where(in_plan, np.where(special, _ENDS, _PLAN), _EARLIER)
    return np.concatenate([kinds, later])


@torch.inference_mode()
def attention_mass(
    net: Transformer,
    objective: Objective,
    documents: Sequence[Document],
    groups: Sequence[np.ndarray],
    batch_size: int = 32,
    seed: int = 0,
) -> AttentionMass:
    """Measure it at every denoising step of a block, step 0 (nothing decided yet) first.

    Args:
        groups: of each document, see :func:`group_tokens`.

    Raises:
        UserError: a model without a plan, or one that predicts the next token: it has no blocks.
    """
    layout = objective.layout
    if not layout.has_plan:
        raise UserError("attention to a plan: this model has none (algo=hierarchical has)")
    if isinstance(objective, Autoregressive):
        raise UserError(
            "attention is measured while blocks are denoised, and this model predicts the next "
            "token (algo=ar); leave it out with experiment.attention_problems=0"
        )
    size, layers = _size(layout), net.config.n_layers
    shape = (len(documents), layers, size, len(GROUPS))
    mass, uniform = np.zeros(shape), np.zeros((shape[0], *shape[2:]))
    order = np.argsort([len(document) for document in documents], kind="stable")
    for step in range(size):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            noises = [
                _noise(documents[i], layout, size - step, (seed, int(i), step)) for i in chosen
            ]
            batch = objective.assemble([documents[i] for i in chosen], noises)
            found, share = _look(net, batch.to(_device(net)).parts, [groups[i] for i in chosen])
            mass[chosen, :, step], uniform[chosen, step] = found, share
    return AttentionMass(mass, uniform)


def _size(layout: Layout) -> int:
    return next(s.block_size for s in layout.segments if s.name == "execution")


def _device(net: Transformer) -> torch.device:
    return next(net.parameters()).device


def _noise(document: Document, layout: Layout, count: int, key: tuple[int, ...]) -> Noise:
    """``count`` masked tokens in every block of the execution, none elsewhere."""
    names = [segment.name for segment in layout.segments]
    mine = document.segment == names.index("execution")
    keys = np.random.default_rng(key).random(len(mine))
    rank = np.argsort(np.argsort(keys[mine].reshape(-1, _size(layout)), 1), 1).ravel()
    masked = np.zeros(len(mine), dtype=bool)
    masked[mine] = rank < count
    return Noise(masked, masked.astype(np.float32))


@contextlib.contextmanager
def watched(net: Transformer, observer: AttentionObserver) -> Iterator[None]:
    """``observer`` is called while the context lasts; the mask is a dense one."""
    before = net.observer, net.attention_backend
    net.observer, net.attention_backend = observer, "sdpa"
    try:
        yield
    finally:
        net.observer, net.attention_backend = before


def _look(
    net: Transformer, parts: Sequence[Part], groups: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Mass [documents, layers, groups] and uniform share [documents, groups] of one batch."""
    device = _device(net)
    table = torch.zeros(len(groups), max(map(len, groups)), dtype=torch.long, device=device)
    for row, kinds in zip(table, groups):
        row[: len(kinds)] = torch.from_numpy(kinds)
    past, of_keys, seen = None, [], []
    for part in parts:
        # A clean token's position is its place in the document.
        of_keys.append(table.gather(1, part.clean.position))
        # Under a shifted head clean tokens predict, too: the first tokens of blocks.
        ahead = part.prediction if part.noisy is None else part.ahead
        if part is not parts[-1] or ahead is None:
            _, past = net(part.clean, past, part.module, keys_only=True)
        else:
            past, sums = _sum_attention(net, part.clean, past, part.module, of_keys, ahead)
            seen.append(sums)
    part = parts[-1]
    if part.noisy is not None:
        of_keys.append(torch.full_like(part.noisy.ids, _OWN))
        _, sums = _sum_attention(net, part.noisy, past, part.module, of_keys, part.prediction)
        seen.append(sums)
    mass, uniform, count = (sum(parts) for parts in zip(*seen))
    return (mass / count[:, None, None]).cpu().numpy(), (uniform / count[:, None]).cpu().numpy()


def _sum_attention(
    net: Transformer,
    tokens: Tokens,
    past: Past | None,
    module: str,
    of_keys: Sequence[Tensor],
    prediction: Prediction,
) -> tuple[Past, tuple[Tensor, Tensor, Tensor]]:
    """Run ``tokens``; the past with them, and sums over those that predict something: of their
    mass [N, layers, groups], of their uniform shares [N, groups], and their number [N].

    Args:
        of_keys: the groups of all keys in sight.
    """
    one_hot = torch.nn.functional.one_hot(torch.cat(list(of_keys), 1), len(GROUPS)).float()
    asked = (prediction.weight > 0).float()  # [N, L]
    found: list[Tensor] = []
    shares: list[Tensor] = []

    def observe(layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, mixed: Tensor) -> None:
        p = attention_probabilities(q, k, mask).mean(1)  # over heads: [N, Lq, Lk]
        found.append(torch.einsum("nqk,nkg,nq->ng", p, one_hot, asked))
        if layer == 0:
            seen = (mask[:, 0] == 0).float()
            seen = seen / seen.sum(-1, keepdim=True)
            shares.append(torch.einsum("nqk,nkg,nq->ng", seen, one_hot, asked))

    with watched(net, observe):
        _, past = net(tokens, past, module)
    return past, (torch.stack(found, 1), shares[0], asked.sum(1))
