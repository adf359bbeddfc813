"""The picture of the mask shows the mask, stretch by stretch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hbd3lm.errors import UserError
from hbd3lm.model.mask import dense_mask
from hbd3lm.report.mask_figure import STRETCHES, draw_mask, mask_image, picture_tags
from hbd3lm.report.style import COLORS

LAYOUT = (3, 4, 6, 2, 3)
EDGES = [0, 3, 7, 11, 17, 23]


def test_stretches_stand_in_the_documented_order():
    tags = picture_tags(*LAYOUT)
    assert STRETCHES == ("Question", "Plan_xt", "Plan_x0", "Exec_xt", "Exec_x0")
    assert tags.block.tolist() == (
        [0] * 3 + [1, 1, 2, 2] * 2 + [3, 3, 3, 4, 4, 4] * 2
    )  # fmt: skip
    noisy = [False] * 3 + [True] * 4 + [False] * 4 + [True] * 6 + [False] * 6
    assert tags.noisy.tolist() == noisy


def test_what_is_invisible_is_white_and_each_stretch_has_its_colour():
    tags = picture_tags(*LAYOUT)
    mask = dense_mask(tags, tags).numpy()
    image = mask_image(mask, EDGES)
    assert (image[~mask] == 1).all()
    shades = []
    for start, end in itertools.pairwise(EDGES):
        colours = np.unique(image[:, start:end][mask[:, start:end]], axis=0)
        assert len(colours) == 1
        shades.append(colours[0])
    assert len(np.unique(shades, axis=0)) == len(STRETCHES)
    for i, segment in enumerate(("question", "plan", "plan", "execution", "execution")):
        nearest = min(COLORS, key=lambda name: np.abs(shades[i] - to_rgb(COLORS[name])).sum())
        assert nearest == segment


@pytest.mark.parametrize("layout", [(128, 128, 256, 16, 16), (1, 1, 1, 1, 1), (4, 8, 8, 8, 2)])
def test_any_layout_can_be_drawn(layout, tmp_path):
    path = tmp_path / "new folder" / "mask.png"
    draw_mask(path, *layout)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_picture_names_stretches_parts_and_sizes(tmp_path):
    path = tmp_path / "mask.svg"
    draw_mask(path, *LAYOUT)
    text = path.read_text(encoding="utf-8")
    for word in (*STRETCHES, "M_BD", "M_OBC", "M_BC", "plan 4 in", "execution 6 in blocks of 3"):
        assert word in text


def test_a_name_without_picture_format_is_refused(tmp_path):
    with pytest.raises(UserError, match="--output_plot"):
        draw_mask(tmp_path / "mask.txt", *LAYOUT)
