"""Trajectories for readers: texts that add up to the segment, files that are checked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.evaluate.trajectories import (
    Trajectory,
    describe_run,
    describe_trajectory,
    read_trajectories,
    write_trajectories,
)
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.sample.trajectory import Event
from tests.sample.replay import replay

TOKENIZER = load_tokenizer("gsm")
END = TOKENIZER.end_ids["plan"]


def events_of(ids: list[int], order: list[int] | None = None) -> list[Event]:
    """One token a pass, in ``order``."""
    order = list(range(len(ids))) if order is None else order
    return [
        Event("plan", 0, n, (place,), (ids[place],), (0.5,), n, n == 1)
        for n, place in enumerate(order, start=1)
    ]


# Any ids at all: halves of characters, special tokens in the middle, fill before the end.
ANY_IDS = st.lists(st.integers(0, TOKENIZER.vocab_size - 2), min_size=1, max_size=24)
BYTES = st.lists(st.integers(0, 260), min_size=1, max_size=24)


@settings(max_examples=150)
@given(ids=st.one_of(ANY_IDS, BYTES), data=st.data())
def test_the_texts_of_the_tokens_add_up_to_the_decoded_segment(ids, data):
    order = data.draw(st.permutations(range(len(ids))))
    events = events_of(ids, order)
    trajectory = describe_trajectory(events, TOKENIZER)
    segments, _ = replay(events, TOKENIZER.end_ids, TOKENIZER.fill_id)
    assert trajectory.text("plan") == TOKENIZER.decode(segments["plan"])
    assert [t.position for step in trajectory.steps for t in step.tokens] == order
    text = "é 🍎 ₫ add"
    described = describe_trajectory(events_of(TOKENIZER.encode(text)), TOKENIZER)
    assert described.text("plan") == text


def test_each_token_says_what_it_is():
    ids = [*TOKENIZER.encode("Add"), TOKENIZER.end_ids["question"], TOKENIZER.fill_id, END,
           TOKENIZER.fill_id, *TOKENIZER.encode("x")]  # fmt: skip
    steps = describe_trajectory(events_of(ids), TOKENIZER).steps
    tokens = [token for step in steps for token in step.tokens]
    assert "".join(t.text for t in tokens if t.kind == "text") == "Add"
    assert [(t.text, t.kind) for t in tokens if t.kind != "text"] == [
        ("<|question_end|>", "dropped"),
        ("<|fill|>", "fill"),
        ("<|plan_end|>", "end"),
        ("<|fill|>", "fill"),
        ("x", "dropped"),
    ]


def test_a_trajectory_reads_as_text_step_by_step():
    ids = TOKENIZER.encode("Add the given amounts.")
    order = [1, 0, *range(2, len(ids))]
    trajectory = describe_trajectory(events_of(ids, order), TOKENIZER)
    first, second = (TOKENIZER.decode([i]) for i in ids[:2])
    assert trajectory.text("plan", 1, mask="_") == f"_{second}"
    assert trajectory.text("plan", 2) == first + second
    assert trajectory.text("execution") == "" and trajectory.text("plan", 0) == ""
    assert str(trajectory).splitlines()[0] == f"   1 plan block 0 step 1: 1:{second!r} 0.50"


# -- files ----------------------------------------------------------------------------------

LAYOUT = plan_execution_layout(16, 8, 8, 4, 4)
RECORD = {
    "id": "a", "question": "How many?", "plan": "Add.", "execution": "#### 7",
    "answer_numerical": "7", "gold_plan": "Add.", "gold_execution": "#### 7",
    "predicted_strict": "7", "correct_strict": True, "ended": {"plan": True},
    "network_evaluations": 4,
}  # fmt: skip


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "t.jsonl"
    about = describe_run(LAYOUT, "run/best.ckpt", "one problem", {"method": "confidence"})
    ids = [*TOKENIZER.encode("Add"), END]
    ids += [TOKENIZER.fill_id] * (4 - len(ids))
    write_trajectories(path, about, [RECORD], [describe_trajectory(events_of(ids), TOKENIZER)])
    return path


def test_a_file_comes_back_as_it_was_written(file):
    content = read_trajectories(file)
    assert content.about["checkpoint"] == "run/best.ckpt"
    assert content.about["segments"][0] == {"name": "plan", "block_size": 4}
    (record,) = content.records
    assert {name: record[name] for name in RECORD} == RECORD
    assert [step["evaluations"] for step in record["trajectory"]] == [1, 2, 3, 4]


def test_every_record_needs_its_trajectory(tmp_path):
    with pytest.raises(ValueError, match="zip"):
        write_trajectories(tmp_path / "t.jsonl", {}, [RECORD, RECORD], [Trajectory(())])
    assert not (tmp_path / "t.jsonl").exists()


def test_a_header_alone_holds_no_problems(file):
    file.write_text(file.read_text().partition("\n")[0])
    with pytest.raises(UserError, match="holds no problems"):
        read_trajectories(file)


def spoil(file, line: int, change):
    rows = [json.loads(text) for text in file.read_text().splitlines()]
    change(rows[line])
    file.write_text("\n".join(json.dumps(row) for row in rows))


@pytest.mark.parametrize(
    ("line", "change", "message"),
    [
        (0, lambda r: r.update(format="x"), "is no file of trajectories"),
        (0, lambda r: r.update(version=9), "is of version 9, this program reads 1"),
        (0, lambda r: r.pop("segments"), "line 1: segments are missing"),
        (0, lambda r: r.pop("checkpoint"), "line 1: checkpoint is no text"),
        (1, lambda r: r.pop("question"), "line 2: field 'question' is no text"),
        (1, lambda r: r.update(trajectory=[]), "line 2: field 'trajectory' is no list of steps"),
        (1, lambda r: r.update(network_evaluations=0), "'network_evaluations' is no whole number"),
        (1, lambda r: r.update(predicted_strict=54), "'predicted_strict' is neither text nor null"),
        (1, lambda r: r.update(correct_strict="yes"), "'correct_strict' is neither true, false"),
        (1, lambda r: r.update(ended=True), "line 2: field 'ended' is no object"),
        (1, lambda r: r["trajectory"][1].pop("block"), "step 1 of the trajectory is not as it"),
        (1, lambda r: r["trajectory"][1].update(segment="none"), "step 1 of the trajectory"),
        (1, lambda r: r["trajectory"][0]["tokens"].append([9, "x", 2.0, "text"]), "step 0 of"),
        (1, lambda r: r["trajectory"].pop(1), "leaves out tokens of the plan"),
        (1, lambda r: r["trajectory"].append(r["trajectory"][0]), "step 4 of the trajectory"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_whole_is_refused_with_place_and_remedy(file, line, change, message):
    spoil(file, line, change)
    with pytest.raises(UserError, match=message) as caught:
        read_trajectories(file)
    assert str(caught.value).endswith("make one with mode=sample_eval sampling.trajectory=true")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "line 1 is not valid JSON"),
        ('{"id": "a"}\n', "is no file of trajectories"),
        ("[1]\n", "is no file of trajectories"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "other.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_trajectories(path)
    with pytest.raises(UserError, match="no such file"):
        read_trajectories(tmp_path / "none.jsonl")
