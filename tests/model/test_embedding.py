"""One gradient of a tied table is the sum of the two that autograd would make."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hbd3lm.model.embedding import embed_tied


@pytest.mark.parametrize("uses", [("rows",), ("table",), ("rows", "table")])
def test_the_gradient_is_that_of_two_separate_uses(uses):
    torch.manual_seed(0)
    ids = torch.tensor([[3, 0, 3], [5, 3, 1]])  # some twice, some never
    to_rows = torch.randn(2, 3, 4, dtype=torch.float64)
    to_table = torch.randn(6, 4, dtype=torch.float64)
    found = []
    for tied in (True, False):
        table = torch.randn(6, 4, dtype=torch.float64, generator=torch.manual_seed(1))
        table.requires_grad_()
        rows, head = embed_tied(table, ids) if tied else (F.embedding(ids, table), table)
        assert torch.equal(rows, table[ids])
        assert torch.equal(head, table)
        parts = {"rows": (rows * to_rows).sum(), "table": (head.sin() * to_table).sum()}
        sum(parts[use] for use in uses).backward()
        found.append(table.grad)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_frozen_table_has_no_gradient_and_other_weights_have_theirs():
    table, scale = torch.randn(6, 4), torch.ones(4, requires_grad=True)
    rows, head = embed_tied(table, torch.tensor([1, 1, 2]))
    ((rows * scale).sum() + head.sum()).backward()
    assert table.grad is None
    torch.testing.assert_close(scale.grad, table[[1, 1, 2]].sum(0))


def test_gradients_of_several_passes_add_up():
    table = torch.randn(6, 4, requires_grad=True)
    for _ in range(2):
        rows, head = embed_tied(table, torch.tensor([1, 4]))
        (rows.sum() + head.sum()).backward()
    assert table.grad.sum(1).tolist() == [8.0, 16.0, 8.0, 8.0, 16.0, 8.0]
