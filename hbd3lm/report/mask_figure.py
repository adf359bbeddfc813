"""The training mask as a picture, in the documented order of the five stretches."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch

from hbd3lm.model.mask import Tags, dense_mask
from hbd3lm.report.style import COLORS, INK, MUTED, figure_file

STRETCHES = ("Question", "Plan_xt", "Plan_x0", "Exec_xt", "Exec_x0")

# A visible pair has the colour of the key's segment; its noisy copy is lighter.
_SEGMENT = ("question", "plan", "plan", "execution", "execution")
_STRENGTH = {"Question": 0.75, "Plan_xt": 0.5, "Plan_x0": 0.9, "Exec_xt": 0.5, "Exec_x0": 0.9}
_MEANING = {
    "Question": "clean",
    "Plan_xt": "noisy",
    "Plan_x0": "clean",
    "Exec_xt": "noisy",
    "Exec_x0": "clean",
}


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


def mask_image(mask: np.ndarray, edges: list[int]) -> np.ndarray:
    """RGB [L, L, 3] of a bool mask [L, L]: white, or the colour of the key's stretch.

    Args:
        edges: where the five stretches begin, and L.
    """
    from matplotlib.colors import to_rgb

    image = np.ones((*mask.shape, 3))
    for stretch, segment, (start, end) in zip(STRETCHES, _SEGMENT, itertools.pairwise(edges)):
        colour = 1 - _STRENGTH[stretch] * (1 - np.array(to_rgb(COLORS[segment])))
        image[:, start:end][mask[:, start:end]] = colour
    return image


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
    edges = [0, *itertools.accumulate(lengths)]
    centres = [(a + b - 1) / 2 for a, b in itertools.pairwise(edges)]
    with figure_file(path, (8.6, 9), "--output_plot") as figure:
        axes = figure.add_subplot()
        axes.grid(False)
        axes.imshow(mask_image(mask, edges), interpolation="nearest")
        for edge in edges[1:-1]:
            axes.axhline(edge - 0.5, color=INK, linewidth=0.9)
            axes.axvline(edge - 0.5, color=INK, linewidth=0.9)
        names = [f"{stretch}\n{_MEANING[stretch]}" for stretch in STRETCHES]
        axes.set_xticks(centres, names)
        axes.set_yticks(centres, names, rotation=90, va="center", multialignment="center")
        axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            for label, segment in zip(labels, _SEGMENT):
                label.set(color=COLORS[segment], fontweight="bold")
        axes.spines[["top", "right"]].set_visible(True)
        axes.set_ylabel("query: who looks")
        axes.set_xlabel("key: who is seen")
        axes.xaxis.set_label_position("top")
        _label_parts(axes, edges)
        axes.set_title(
            f"Who may see whom (coloured = visible): question {question_len}, plan {plan_len} in "
            f"blocks of {plan_block_size},\nexecution {exec_len} in blocks of {exec_block_size}; "
            "xt is the noisy copy, x0 the clean one",
            pad=14,
        )
        figure.supxlabel(
            "M_BD: a noisy block sees itself.   M_OBC: and all that is clean before it.   "
            "M_BC: a clean block sees itself and all that is clean before it.",
            fontsize=9,
            color=MUTED,
        )


def _label_parts(axes, edges: list[int]) -> None:
    """Name the three parts of BD3-LM's mask and the two things that never happen."""
    left = dict(zip(STRETCHES, edges))
    right = dict(zip(STRETCHES, edges[1:]))
    for query, key, text in (
        ("Plan_xt", "Plan_xt", "M_BD"),
        ("Plan_xt", "Plan_x0", "M_OBC"),
        ("Plan_x0", "Plan_x0", "M_BC"),
        ("Exec_xt", "Exec_xt", "M_BD"),
        ("Exec_xt", "Exec_x0", "M_OBC"),
        ("Exec_x0", "Exec_x0", "M_BC"),
    ):  # their upper right halves are empty
        x, y = right[key] - 0.5, left[query] - 0.5
        axes.annotate(text, (x, y), (-4, -4), textcoords="offset points", ha="right", va="top",
                      fontsize=9, color=INK)  # fmt: skip
    x = (left["Exec_xt"] + right["Exec_x0"] - 1) / 2
    y = (left["Plan_xt"] + right["Plan_x0"] - 1) / 2
    never = {"ha": "center", "va": "center", "color": MUTED, "fontsize": 10, "style": "italic",
             "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 2}}  # fmt: skip
    axes.text(x, y, "the plan never sees the execution", **never)
    x = (left["Exec_xt"] + right["Exec_xt"] - 1) / 2
    y = (left["Exec_x0"] + right["Exec_x0"] - 1) / 2
    axes.text(x, y, "nothing clean sees\nanything noisy", **never)
