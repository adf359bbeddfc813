"""``hbd3lm.data.catalogue``: what is known of the published data sets."""

from __future__ import annotations

from hbd3lm.data.catalogue import DATASETS, published_as


def test_the_data_sets_and_their_splits():
    both = ("train", "test")
    three = dict.fromkeys(["gsm8k", "gsm8k_socratic", "svamp"], both)
    assert dict(DATASETS) == {**three, "multiarith": ("test",), "embedded": both}


def test_data_sets_have_a_title_and_a_name_on_the_hub():
    assert published_as("gsm8k") == ("GSM8K main", "openai/gsm8k")
    assert published_as("embedded") == ("embedded (generated) problems", None)
    assert published_as("of my own") == ("of my own", None)
