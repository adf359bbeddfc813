"""BD3-LM's published training step, written as plainly as possible: the yardstick for ours.

Every example is a row of fixed length (128 question, 128 plan, 256 execution tokens, padded).
The network runs [x_t, x_0], 1024 tokens, through dense attention under a boolean mask, and
computes logits at every one of them; the loss then reads the noisy half. The blocks are those of
``hbd3lm.model.transformer``, weights included, so model and vocabulary are the same to the bit;
:func:`keep_activations` takes back what these save by themselves.

Shapes: N examples, L = 512 tokens a row, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.diffusion.corruption import Noise
from hbd3lm.model import transformer
from hbd3lm.model.layout import Document, Layout
from hbd3lm.model.transformer import SHARED, Transformer, rotary_frequencies, rotary_tables


@dataclass(frozen=True)
class PaddedBatch:
    """A batch of the published layout.

    Attributes:
        ids, position: [N, 2L], x_t then x_0.
        mask: bool, [2L, 2L], or [N, 1, 2L, 2L] where padding is hidden.
        targets, weight: [N, L]; the weight is 0 wherever nothing is predicted.
    """

    ids: Tensor
    position: Tensor
    mask: Tensor
    targets: Tensor
    weight: Tensor


def keep_activations() -> None:
    """For the rest of this process blocks keep what activation functions give, as autograd does."""
    transformer.remade = lambda *_: contextlib.nullcontext()


def row_blocks(layout: Layout) -> Tensor:
    """[L] block ordinals of a padded row: the question is block 0."""
    blocks = [torch.zeros(layout.question_len, dtype=torch.long)]
    first = 1
    for segment in layout.segments:
        blocks.append(first + torch.arange(segment.max_len) // segment.block_size)
        first += segment.max_len // segment.block_size
    return torch.cat(blocks)


def published_mask(layout: Layout) -> Tensor:
    """Bool [2L, 2L]: M_BD | M_OBC | M_BC (BD3-LM, section 3.3) over [x_t, x_0]."""
    block = row_blocks(layout).repeat(2)
    clean = torch.arange(len(block)) >= len(block) // 2
    block_q, block_k = block[:, None], block[None, :]
    clean_q, clean_k = clean[:, None], clean[None, :]
    block_diagonal = (block_q == block_k) & (clean_q == clean_k)
    offset_block_causal = (block_q > block_k) & clean_k & ~clean_q
    block_causal = (block_q > block_k) & clean_k & clean_q
    return block_diagonal | offset_block_causal | block_causal


def pad_documents(
    documents: Sequence[Document],
    noises: Sequence[Noise],
    layout: Layout,
    mask_id: int,
    pad_id: int,
    like_ours: bool = False,
) -> PaddedBatch:
    """Documents with their noise, every segment padded to its cap.

    Args:
        like_ours: give every token the position it has without padding, and hide padding from
            everybody. The loss is then that of the ragged layout, which the published one is
            only where nothing is padded: it sees its padding and counts it in the positions.
    """
    length, n = layout.max_len, len(documents)
    x_0 = np.full((n, length), pad_id)
    x_t, targets = x_0.copy(), x_0.copy()
    weight = np.zeros((n, length), dtype=np.float32)
    real = np.zeros((n, length), dtype=bool)
    position = np.tile(np.arange(length), (n, 1))
    for i, (document, noise) in enumerate(zip(documents, noises)):
        n_question = len(document.question)
        place = [np.arange(n_question)]  # of each token in the padded row
        start = layout.question_len
        for s, segment in enumerate(layout.segments):
            place.append(start + np.arange(int((document.segment == s).sum())))
            start += segment.max_len
        everything, predicted = np.concatenate(place), np.concatenate(place[1:])
        clean = np.concatenate([document.question, document.targets])
        x_0[i, everything] = x_t[i, everything] = clean
        x_t[i, predicted[noise.masked]] = mask_id
        targets[i, predicted], weight[i, predicted] = document.targets, noise.weight
        real[i, everything] = True
        if like_ours:
            position[i, everything] = np.arange(len(everything))
    mask = published_mask(layout)
    if like_ours:
        visible = torch.from_numpy(np.tile(real, 2))[:, None, None, :]
        itself = torch.eye(2 * length, dtype=torch.bool)  # or padding would see nothing at all
        mask = (mask & visible) | itself
    return PaddedBatch(
        torch.from_numpy(np.concatenate([x_t, x_0], axis=1)),
        torch.from_numpy(np.tile(position, 2)),
        mask,
        torch.from_numpy(targets),
        torch.from_numpy(weight),
    )


def published_loss(net: Transformer, batch: PaddedBatch, head: str = "all") -> Tensor:
    """The weighted cross-entropy of the batch, summed, in nats.

    Args:
        head: ``all`` computes logits at all 2L positions, as published; ``noisy`` at the L that
            the loss reads, an obvious improvement that ours should be compared with as well.
    """
    stack, config = net.stacks[SHARED], net.config
    length = batch.targets.shape[1]
    x = stack.embedding(batch.ids)  # [N, 2L, D]
    cos, sin = rotary_tables(batch.position, rotary_frequencies(config, batch.position.device))
    grouped = config.n_heads != config.resolved_kv_heads
    for block in stack.blocks:
        normed = block.attention_norm(x)
        q = block.attention.queries(normed, cos, sin)
        k, v = block.attention.keys_values(normed, cos, sin)
        mixed = F.scaled_dot_product_attention(
            q, k.type_as(q), v.type_as(q), attn_mask=batch.mask, enable_gqa=grouped
        )
        x = x + block.attention.wo(mixed.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.mlp_norm(x))
    x = stack.norm(x)
    if head == "noisy":
        x = x[:, :length]
    logits = net.logits(x)[:, :length]  # [N, L, V - 1]
    loss = F.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none")
    return (loss * batch.weight.flatten()).sum()
