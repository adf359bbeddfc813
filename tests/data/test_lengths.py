"""The token-length table: exact numbers on a small case."""

import pytest

from hbd3lm.data.encoding import Caps, encode_examples
from hbd3lm.data.lengths import measure_lengths
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError

GSM = load_tokenizer("gsm")


def _example(index: int, question: int, plan: int, execution: int) -> HierarchicalExample:
    """Segments of so many digits, which are so many tokens."""
    return HierarchicalExample(f"e{index}", "1" * question, "2" * plan, "3" * execution, "3")


EXAMPLES = [_example(i, question=i, plan=9, execution=30 - i) for i in range(1, 11)]


def test_mean_median_percentiles_and_maximum_count_the_end_token():
    table = measure_lengths(EXAMPLES, GSM)
    question = table["question"]  # 2, 3, ..., 11 tokens
    assert (question.mean, question.median, question.max) == (6.5, 6.5, 11)
    assert question.p95 == pytest.approx(10.55)
    assert question.p99 == pytest.approx(10.91)
    assert (table["plan"].mean, table["plan"].p99, table["plan"].max) == (10, 10, 10)
    assert table["total"].mean == 10 + 33 - 1
    assert table["total"].max == 42


def test_truncation_counts_examples_beyond_the_cap_and_agrees_with_the_encoder():
    caps = Caps(question=8, plan=10, execution=28)
    table = measure_lengths(EXAMPLES, GSM, caps)
    # Questions of 9, 10, 11 tokens; executions of 30, 29: five different examples.
    assert [table[name].truncated for name in table] == [3, 0, 2, 5]
    assert table["question"].truncated_share == 0.3
    assert table["total"].truncated_share == 0.5
    assert [table[name].cap for name in table] == [8, 10, 28, 46]
    _, truncation = encode_examples(EXAMPLES, GSM, caps)
    for name, cut in truncation.cut.items():
        assert len(cut) == table[name].truncated


@pytest.mark.parametrize(
    ("block_size", "expected"), [(16, [16, 16, 32, 64]), (4, [12, 12, 32, 56]), (1, [11, 10, 30])]
)
def test_the_recommended_cap_is_the_next_whole_block_above_the_99th_percentile(
    block_size, expected
):
    table = measure_lengths(EXAMPLES, GSM, block_size=block_size)
    assert [table[name].recommended for name in table][: len(expected)] == expected


def test_the_99th_percentile_fits_the_recommended_cap_exactly():
    """A percentile that is a whole number of blocks asks for no further block."""
    table = measure_lengths([_example(0, 15, 15, 16)], GSM, block_size=16)
    assert [table[name].recommended for name in table] == [16, 16, 32, 64]


def test_nothing_to_measure_and_blocks_of_nothing_are_refused():
    with pytest.raises(UserError, match="no examples"):
        measure_lengths([], GSM)
    with pytest.raises(UserError, match="--block_size is 0"):
        measure_lengths(EXAMPLES, GSM, block_size=0)
