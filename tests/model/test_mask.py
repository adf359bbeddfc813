"""The mask rule against a definition written the slow way, over many layouts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.commands.check_mask import LAYOUTS, brute_force
from hbd3lm.model.mask import PADDING, Tags, dense_mask, flex_mask_mod
from hbd3lm.report.mask_figure import picture_tags


@pytest.mark.parametrize("layout", LAYOUTS)
def test_mask_equals_brute_force_on_the_documented_layouts(layout):
    tags = picture_tags(*layout)
    assert np.array_equal(dense_mask(tags, tags).numpy(), brute_force(*layout))


@settings(max_examples=60)
@given(
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1, 2, 4]),
)
def test_mask_equals_brute_force_on_random_layouts(question, plans, executions, plan_b, exec_b):
    layout = (question, plans * plan_b, executions * exec_b, plan_b, exec_b)
    tags = picture_tags(*layout)
    assert np.array_equal(dense_mask(tags, tags).numpy(), brute_force(*layout))


def test_nothing_clean_sees_anything_noisy():
    tags = picture_tags(5, 8, 12, 4, 4)
    mask = dense_mask(tags, tags)
    assert not mask[~tags.noisy][:, tags.noisy].any()
    assert mask.diagonal().all()


def test_documents_never_meet_and_padding_sees_only_padding():
    tags = Tags(
        torch.tensor([[0, 0, 1, 1, PADDING, PADDING]]),
        torch.zeros(1, 6, dtype=torch.bool),
        torch.tensor([[0, 1, 0, 1, 0, 0]]),
    )
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
    assert dense_mask(tags, tags)[0].int().tolist() == expected


def test_flex_attention_mask_is_the_dense_mask():
    tags = Tags(*(tag.unsqueeze(0) for tag in picture_tags(6, 8, 12, 4, 4)))
    mask_mod = flex_mask_mod(tags, tags)
    dense = dense_mask(tags, tags)[0]
    zero = torch.tensor(0)
    for q, k in itertools.product(range(0, len(dense), 3), range(len(dense))):
        assert bool(mask_mod(zero, zero, torch.tensor(q), torch.tensor(k))) == bool(dense[q, k])
