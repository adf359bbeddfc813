"""The model card of a run that started from a checkpoint of another program."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from hbd3lm.hub.card import RunFacts, model_card
from tests.hub.exports import make_model

SUMMARY = {"train_problems": 8, "valid_problems": 2, "steps": 3, "precision": "32-true"}


@pytest.mark.parametrize(
    ("path", "start", "base", "told"),
    [
        ("me/m", "/cache/models--me--m/snapshots/abc", "me/m", "checkpoint `me/m`"),
        ("./some/folder", "some/folder", None, "checkpoint `folder`"),
        ("/home/me/last.ckpt", "/home/me/last.ckpt", None, "checkpoint `last.ckpt`"),
        (None, None, None, None),
    ],
)
def test_only_a_checkpoint_of_the_hub_is_named_as_the_base(path, start, base, told):
    _, card = make_model("hierarchical")
    began = start and {"path": start, "fingerprint": "0123abcd"}
    settings = {"model": {"path": path}, "started_from": began}
    summary = SUMMARY | {"started_from": began}  # as a run writes it
    text = model_card(replace(card, settings=settings), RunFacts("m", "train", summary), 1)
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter.get("base_model") == base
    assert ("(weights 0123abcd)" in text) == bool(start)
    # Whose the weights were decides what they may be used for.
    assert matter.get("license") == (None if start else "mit")
    assert ("whose licence goes with them" in text) == bool(start)
    assert (told in text) if told else ("Started from" not in text)
    assert "/home/me" not in text and "/cache" not in text


def test_problems_that_stood_in_for_gsm8k_are_not_called_gsm8k():
    """The settings name what was asked for; the plans' manifest knows what there was."""
    _, card = make_model("hierarchical")
    card = replace(card, settings={"data": {"name": "gsm8k"}})
    asked, there = (
        model_card(card, RunFacts("m", "train", SUMMARY, dataset=dataset), 1)
        for dataset in (None, "embedded")
    )
    assert "openai/gsm8k" in asked and "openai/gsm8k" not in there
    assert "Data: embedded (generated) problems" in there


def test_where_the_plans_come_from_is_a_table():
    _, card = make_model("hierarchical")
    facts = RunFacts("m", "train", SUMMARY, plans=[("plans by", "`big`"), ("asked again", "3")])
    assert "## Plans\n\n| | |\n|---|---|\n| plans by | `big` |\n" in model_card(card, facts, 1)
    assert "## Plans" not in model_card(card, RunFacts("m", "train", SUMMARY), 1)
