"""The training mask as a picture, in the documented order of the five stretches."""

from __future__ import annotations

import itertools
from pathlib import Path

import torch

from hbd3lm.model.mask import Tags, dense_mask
from hbd3lm.report.style import COLORS, figure_file

STRETCHES = ("Question", "Plan_xt", "Plan_x0", "Exec_xt", "Exec_x0")


def picture_tags(
    question_len: int, plan_len: int, exec_len: int, plan_block_size: int, exec_block_size: int
) -> Tags:
    """Tags [L] of one full document laid out as [Question | Plan_xt | Plan_x0 | Exec_xt | Exec_x0].

    Lengths are in tokens, multiples of their block sizes.
    """
    plan = 1 + torch.arange(plan_len) // plan_block_size
    execution = 1 + plan_len // plan_block_size + torch.arange(exec_len) // exec_block_size
    block = torch.cat([torch.zeros(question_len, dtype=torch.long), plan, plan] + [execution] * 2)
    noisy = torch.cat(
        [
            torch.full((length,), is_noisy)
            for length, is_noisy in (
                (question_len, False),
                (plan_len, True),
                (plan_len, False),
                (exec_len, True),
                (exec_len, False),
            )
        ]
    )
    return Tags(torch.zeros_like(block), noisy, block)


def draw_mask(
    path: str | Path,
    question_len: int,
    plan_len: int,
    exec_len: int,
    plan_block_size: int,
    exec_block_size: int,
) -> None:
    """Draw which query (row) may see which key (column); written atomically.

    Raises:
        UserError: the file name's suffix is no picture format.
    """
    tags = picture_tags(question_len, plan_len, exec_len, plan_block_size, exec_block_size)
    mask = dense_mask(tags, tags).numpy()
    lengths = (question_len, plan_len, plan_len, exec_len, exec_len)
    edges = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    centres = [(a + b) / 2 for a, b in itertools.pairwise(edges)]
    with figure_file(path, (8, 8.4), "--output_plot") as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        axes.imshow(~mask, cmap="gray", interpolation="nearest", vmin=-0.6, vmax=1)
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color=COLORS["execution"], linewidth=1)
            axes.axvline(edge - 0.5, color=COLORS["execution"], linewidth=1)
        axes.set_xticks(centres, STRETCHES)
        axes.set_yticks(centres, STRETCHES, rotation=90, va="center")
        axes.set_xlabel("key")
        axes.set_ylabel("query")
        axes.set_title(
            f"Who may see whom (dark = visible): question {question_len}, plan {plan_len} in "
            f"blocks of {plan_block_size},\nexecution {exec_len} in blocks of {exec_block_size}"
        )
