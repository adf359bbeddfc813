"""``hbd3lm plans apply-review``: plans in, verdicts in, plans and a record of changes out."""

from __future__ import annotations

import json

import pytest

from hbd3lm import cli
from hbd3lm.commands.apply_review import main
from hbd3lm.data.records import HierarchicalExample, read_examples, write_examples
from hbd3lm.errors import UserError
from hbd3lm.plans.review import fingerprint_examples

EXAMPLES = [HierarchicalExample(id_, "Q?", f"Plan {id_}.", "#### 1", "1") for id_ in "abcd"]
VERDICTS = [
    {"id": "a", "verdict": "good"},
    {"id": "b", "verdict": "bad"},
    {"id": "c", "verdict": "edited", "plan": "Better."},
]


@pytest.fixture
def files(tmp_path):
    """The data and a review of it."""
    write_examples(tmp_path / "plans.json", EXAMPLES)
    review = {"format": "hbd3lm-plan-review", "version": 1,
              "fingerprint": fingerprint_examples(EXAMPLES), "verdicts": VERDICTS}  # fmt: skip
    (tmp_path / "review.json").write_text(json.dumps(review))
    return tmp_path


def arguments(files, *more):
    return ["--data_path", str(files / "plans.json"), "--review", str(files / "review.json"),
            *map(str, more)]  # fmt: skip


def test_the_verb_of_two_words_merges_and_says_what_it_did(files, capsys):
    words = ["plans", "apply-review", *arguments(files, "--output_path", files / "new.json")]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "3 verdicts on 4 examples: 1 good, 1 edited, 1 bad\n" in printed
    assert "plans replaced: 1; problems dropped: 1\n" in printed
    assert [e.plan for e in read_examples(files / "new.json")] == ["Plan a.", "Better.", "Plan d."]


def test_the_data_stay_as_they_are_and_keep_their_five_keys(files):
    before = (files / "plans.json").read_bytes()
    main(arguments(files))
    assert (files / "plans.json").read_bytes() == before
    rows = json.loads((files / "plans_reviewed.json").read_text())
    assert all(list(row) == list(json.loads(before)[0]) for row in rows)


def test_what_was_changed_is_recorded_beside_the_plans(files):
    main(arguments(files, "--output_path", files / "out" / "new.json"))
    record = json.loads((files / "out" / "new.json.review.json").read_text())
    assert record["counts"] == {
        "examples": 4, "verdicts": 3, "good": 1, "bad": 1, "edited": 1, "replaced": 1,
        "dropped": 1, "written": 3,
    }  # fmt: skip
    assert record["changes"][2] == {"id": "c", "verdict": "edited", "done": "replaced",
                                    "before": "Plan c.", "after": "Better."}  # fmt: skip
    merged = read_examples(files / "out" / "new.json")
    assert record["fingerprint_after"] == fingerprint_examples(merged)


def test_bad_ones_are_kept_if_asked(files, capsys):
    main(arguments(files, "--bad", "keep"))
    assert len(read_examples(files / "plans_reviewed.json")) == 4
    assert "1 bad (kept: --bad keep)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("plans.json", "is read by this command"),
        ("review.json", "is read by this command"),
        (".", "is a folder"),
        ("plans.json/x", "cannot write"),
    ],
)
def test_outputs_that_would_destroy_or_cannot_be_are_refused(files, output, message):
    before = sorted((path.name, path.read_bytes()) for path in files.iterdir())
    with pytest.raises(UserError, match=message):
        main(arguments(files, "--output_path", files / output))
    assert sorted((path.name, path.read_bytes()) for path in files.iterdir()) == before


def test_a_review_of_an_older_version_is_refused_and_nothing_is_written(files):
    write_examples(files / "plans.json", [*EXAMPLES[:3], HierarchicalExample(*"dQPE1")])
    with pytest.raises(UserError, match="fingerprints differ"):
        main(arguments(files))
    assert sorted(path.name for path in files.iterdir()) == ["plans.json", "review.json"]
