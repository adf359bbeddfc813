"""Segments as token ids: end tokens, caps, and truncation that is never silent."""

from __future__ import annotations

import pytest
import torch

from hbd3lm.data.encoding import Caps, HierarchicalDataset, encode_examples
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.data.tokenizer import load_tokenizer

TEXTS = ("Tom has 12 eggs and eats 5. How many are left?", "Subtract what he eats.", "12-5 = 7")


def example(name="one", texts=TEXTS) -> HierarchicalExample:
    return HierarchicalExample(name, *texts, "7")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gsm")


def test_segments_come_back_as_text_and_close_with_their_own_end_token(tokenizer):
    (encoded,), truncation = encode_examples([example()], tokenizer, Caps())
    assert not truncation and str(truncation) == ""
    for name, text in zip(("question", "plan", "execution"), TEXTS):
        ids = getattr(encoded, name)
        assert ids[-1] == tokenizer.end_ids[name]
        assert tokenizer.decode(ids[:-1]) == text


def test_a_question_over_its_cap_loses_its_start_and_keeps_its_end_token(tokenizer):
    whole = tokenizer.encode(TEXTS[0])
    (encoded,), truncation = encode_examples([example()], tokenizer, Caps(question=6))
    assert encoded.question == [*whole[-5:], tokenizer.question_end_id]
    assert truncation.cut == {"question": ["one"], "plan": [], "execution": []}


@pytest.mark.parametrize("name, position", [("plan", 1), ("execution", 2)])
def test_a_plan_or_execution_over_its_cap_loses_its_end_and_its_end_token(
    tokenizer, name, position
):
    whole = tokenizer.encode(TEXTS[position])
    (encoded,), truncation = encode_examples([example()], tokenizer, Caps(**{name: 3}))
    assert getattr(encoded, name) == whole[:3]
    assert truncation.cut[name] == ["one"]


@pytest.mark.parametrize("name, position", [("question", 0), ("plan", 1), ("execution", 2)])
def test_a_segment_that_fits_with_its_end_token_exactly_is_kept_whole(tokenizer, name, position):
    exact = len(tokenizer.encode(TEXTS[position])) + 1
    (encoded,), truncation = encode_examples([example()], tokenizer, Caps(**{name: exact}))
    assert not truncation
    assert len(getattr(encoded, name)) == exact
    _, truncation = encode_examples([example()], tokenizer, Caps(**{name: exact - 1}))
    assert truncation.cut[name] == ["one"]


def test_a_cap_of_one_token_keeps_the_end_of_a_question_only(tokenizer):
    (encoded,), _ = encode_examples([example()], tokenizer, Caps(question=1, plan=1))
    assert encoded.question == [tokenizer.question_end_id]
    assert encoded.plan == tokenizer.encode(TEXTS[1])[:1]


def test_truncation_is_reported_with_counts_ids_and_the_setting_that_helps(tokenizer):
    long = [example(f"e{i}") for i in range(5)]
    short = example("short", ("Why?", "Add.", "#### 7"))
    _, truncation = encode_examples([*long, short], tokenizer, Caps(8, 128, 6))
    assert truncation
    assert str(truncation).splitlines() == [
        "5 of 6 questions are longer than 8 tokens and lose their start (e0, e1, e2, ...); "
        "raise hierarchical.question_len to keep them whole",
        "5 of 6 executions are longer than 6 tokens and lose their end (e0, e1, e2, ...); "
        "raise hierarchical.exec_len to keep them whole",
    ]


def test_an_empty_plan_is_its_end_token_alone(tokenizer):
    (encoded,), _ = encode_examples([example(texts=("Q", "", "E"))], tokenizer, Caps())
    assert encoded.plan == [tokenizer.plan_end_id]


def test_the_dataset_gives_tensors_of_each_segments_own_length(tokenizer, tmp_path):
    write_examples(tmp_path / "data.json", [example("a"), example("b", ("Q", "P", "#### 7"))])
    dataset = HierarchicalDataset(tmp_path / "data.json", "gsm", exec_len=4)
    assert len(dataset) == 2
    item = dataset[0]
    assert item["id"] == "a"
    assert item["question_ids"].dtype == torch.int64
    assert item["question_ids"].tolist()[:-1] == tokenizer.encode(TEXTS[0])
    assert len(item["execution_ids"]) == 4
    assert dataset.truncation.cut["execution"][0] == "a"
