"""Segments, caps and aligned ragged blocks."""

from __future__ import annotations

import pytest

from hbd3lm.errors import UserError
from hbd3lm.model.layout import Layout, build_document, plan_execution_layout

FILL = 99


def test_a_segment_is_filled_to_the_next_block_boundary_only():
    layout = plan_execution_layout(8, 8, 12, plan_block_size=2, exec_block_size=4)
    document = build_document(
        [1, 2, 3], {"plan": [4, 5, 6], "execution": [7, 8, 9, 10, 11]}, layout, FILL
    )
    assert document.question.tolist() == [1, 2, 3]
    assert document.targets.tolist() == [4, 5, 6, FILL, 7, 8, 9, 10, 11, FILL, FILL, FILL]
    assert document.segment.tolist() == [0] * 4 + [1] * 8
    assert document.block.tolist() == [1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]
    assert document.real.tolist() == [True] * 3 + [False] + [True] * 5 + [False] * 3
    assert document.n_blocks == 4 and len(document) == 15


def test_block_size_one_needs_no_fill():
    layout = plan_execution_layout(8, 8, 8, 1, 1)
    document = build_document([1], {"plan": [2, 3], "execution": [4, 5, 6]}, layout, FILL)
    assert document.targets.tolist() == [2, 3, 4, 5, 6]
    assert document.block.tolist() == [1, 2, 3, 4, 5]


def test_a_flat_layout_has_no_plan():
    layout = plan_execution_layout(8, 8, 8, 4, 4, with_plan=False)
    document = build_document([1], {"execution": [4]}, layout, FILL)
    assert document.targets.tolist() == [4, FILL, FILL, FILL]
    assert not layout.has_plan and layout.max_len == 16


def test_a_block_size_that_does_not_divide_is_refused_by_name_with_a_remedy():
    with pytest.raises(UserError, match=r"exec_len=256.*block size 24.*exec_len=240 or 264"):
        plan_execution_layout(128, 128, 256, 16, 24)
    with pytest.raises(UserError, match="plan_block_size must be at least 1"):
        plan_execution_layout(128, 128, 256, 0, 16)


def test_a_segment_over_its_cap_is_refused():
    layout = plan_execution_layout(8, 4, 4, 4, 4)
    with pytest.raises(UserError, match="the plan has 5 tokens"):
        build_document([1], {"plan": [2] * 5, "execution": [1]}, layout, FILL)


def test_a_layout_survives_its_dict_form():
    layout = plan_execution_layout(8, 8, 12, 2, 4)
    assert Layout.from_dict(layout.to_dict()) == layout
