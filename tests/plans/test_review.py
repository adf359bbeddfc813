"""Reviews are merged into the very examples they were made on, or refused with the remedy."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.plans.review import Review, apply_review, fingerprint_examples, read_review

EXAMPLES = [HierarchicalExample(id_, "Q?", f"Plan {id_}.", "#### 1", "1") for id_ in "abcd"]
MARK = fingerprint_examples(EXAMPLES)


def content(*verdicts, **changes):
    return {
        "format": "hbd3lm-plan-review",
        "version": 1,
        "fingerprint": MARK,
        "verdicts": list(verdicts),
    } | changes


def write(tmp_path, value):
    path = tmp_path / "review.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_edited_plans_replace_bad_ones_go_the_rest_stays():
    review = Review(
        MARK, {"a": ("good", None), "b": ("bad", None), "c": ("edited", "A better plan.")}
    )
    merged = apply_review(EXAMPLES, review)
    assert [(e.id, e.plan) for e in merged.examples] == [
        ("a", "Plan a."), ("c", "A better plan."), ("d", "Plan d.")
    ]  # fmt: skip
    assert merged.changes == [
        {"id": "a", "verdict": "good", "done": "kept"},
        {"id": "b", "verdict": "bad", "done": "dropped"},
        {"id": "c", "verdict": "edited", "done": "replaced", "before": "Plan c.",
         "after": "A better plan."},
    ]  # fmt: skip


def test_bad_ones_can_be_kept():
    merged = apply_review(EXAMPLES, Review(MARK, {"b": ("bad", None)}), keep_bad=True)
    assert merged.examples == EXAMPLES and merged.count("dropped") == 0


def test_nothing_left_is_refused():
    with pytest.raises(UserError, match="nothing is left"):
        apply_review(EXAMPLES, Review(MARK, {e.id: ("bad", None) for e in EXAMPLES}))


def test_other_examples_and_unknown_ids_are_refused():
    with pytest.raises(UserError, match="fingerprints differ"):
        apply_review(EXAMPLES, Review("0" * 64, {"a": ("good", None)}))
    with pytest.raises(UserError, match=r"no example with the id 'z'.*nor 1 others"):
        apply_review(EXAMPLES, Review(MARK, {"z": ("good", None), "y": ("bad", None)}))


@pytest.mark.parametrize("field", ["id", "question", "plan", "execution", "answer_numerical"])
def test_the_fingerprint_depends_on_every_field_and_on_the_order(field):
    other = replace(EXAMPLES[0], **{field: getattr(EXAMPLES[0], field) + " "})
    assert fingerprint_examples([other, *EXAMPLES[1:]]) != MARK
    assert fingerprint_examples(EXAMPLES[::-1]) != MARK


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{", "not valid JSON"),
        ([], "holds no JSON object"),
        ({"verdicts": []}, "no review of plans"),
        (content(version=2), "version 2, this program reads 1"),
        (content(fingerprint=None), "lacks 'verdicts' or 'fingerprint'"),
        (content(verdicts={}), "lacks 'verdicts'"),
        (content({"verdict": "good"}), "verdict 0 has no id"),
        (content("a"), "verdict 0 has no id"),
        (content({"id": "a", "verdict": "fine"}), r"\(id 'a'\): 'fine' is none of good, bad"),
        (content({"id": "a", "verdict": ["good"]}), "is none of"),
        (content({"id": "a", "verdict": "edited"}), "needs its text in 'plan'"),
        (content({"id": "a", "verdict": "edited", "plan": "  "}), "needs its text"),
        (content({"id": "a", "verdict": "edited", "plan": "\ud800"}), "half a character"),
        (content(*[{"id": "a", "verdict": "good"}] * 2), "a second verdict on this id"),
    ],
)
def test_a_malformed_review_is_refused_with_its_place(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_review(write(tmp_path, value))


def test_a_review_is_read_as_saved(tmp_path):
    saved = content(
        {"id": "a", "verdict": "good"}, {"id": "b", "verdict": "edited", "plan": " Add. \n"}
    )
    review = read_review(write(tmp_path, saved))
    assert review == Review(MARK, {"a": ("good", None), "b": ("edited", "Add.")})
