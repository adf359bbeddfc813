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
    settings = {"model": {"path": path}, "started_from": start and {"path": start}}
    text = model_card(replace(card, settings=settings), RunFacts("m", "train", SUMMARY), 1)
    assert yaml.safe_load(text.split("---\n")[1]).get("base_model") == base
    assert (told in text) if told else ("Started from" not in text)
    assert "/home/me" not in text and "/cache" not in text


def test_where_the_plans_come_from_is_a_table():
    _, card = make_model("hierarchical")
    facts = RunFacts("m", "train", SUMMARY, plans=[("plans by", "`big`"), ("asked again", "3")])
    assert "## Plans\n\n| | |\n|---|---|\n| plans by | `big` |\n" in model_card(card, facts, 1)
    assert "## Plans" not in model_card(card, RunFacts("m", "train", SUMMARY), 1)
