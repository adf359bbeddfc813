"""``hbd3lm.data.records``: what is written is what is read, and a bad file is named."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import FIELDS, HierarchicalExample, read_examples, write_examples
from hbd3lm.errors import UserError

EXAMPLE = HierarchicalExample(
    id="gsm8k_train_0",
    question="How many clips?",
    plan="Add the given amounts.",
    execution="48+24 = 72\n#### 72",
    answer_numerical="72",
)
# Every character a UTF-8 file can hold; JSON Lines must survive line ends inside strings too.
TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["a\u2028b", "a\u2029b", "a\x85b", "a\r\nb", "\ufeff", "kế hoạch 🎓", '"\\', "\x00"]
)
EXAMPLES = st.lists(
    st.builds(HierarchicalExample, TEXT, TEXT, TEXT, TEXT, TEXT),
    min_size=1,
    max_size=4,
    unique_by=lambda example: example.id,
)


def write(path, text):
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("name", ["examples.json", "examples.jsonl"])
@given(examples=EXAMPLES)
def test_what_is_written_is_read_back(name, examples):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_examples(path, examples)
        assert read_examples(path) == examples


def test_the_file_is_the_documented_json_array(tmp_path):
    write_examples(tmp_path / "x.json", [EXAMPLE])
    rows = json.loads((tmp_path / "x.json").read_bytes())
    assert rows == [asdict(EXAMPLE)]
    assert (
        list(rows[0]) == list(FIELDS) == ["id", "question", "plan", "execution", "answer_numerical"]
    )


def test_text_is_stored_as_it_is_spoken(tmp_path):
    """Not as ``\\u1ebf`` escapes, so that people and ``grep`` can read the file."""
    write_examples(tmp_path / "x.json", [HierarchicalExample("a", "kế", "p", "e", "1")])
    assert "kế".encode() in (tmp_path / "x.json").read_bytes()


def test_json_lines_has_one_record_a_line(tmp_path):
    other = HierarchicalExample("b", "q", "p", "e", "1")
    write_examples(tmp_path / "x.jsonl", [EXAMPLE, other])
    lines = (tmp_path / "x.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["id"] for line in lines[:-1]] == ["gsm8k_train_0", "b"]
    assert lines[-1] == ""


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_the_name_of_a_file_does_not_decide_how_it_is_read(tmp_path, name):
    row = asdict(EXAMPLE)
    array = write(tmp_path / name, json.dumps([row]))
    assert read_examples(array) == [EXAMPLE]
    lines = write(tmp_path / name, json.dumps(row) + "\r\n\n  \n" + json.dumps({**row, "id": "b"}))
    assert [example.id for example in read_examples(lines)] == ["gsm8k_train_0", "b"]


@pytest.mark.parametrize("as_array", [True, False])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path, as_array):
    row = asdict(EXAMPLE)
    path = write(tmp_path / "x.json", "\ufeff" + json.dumps([row] if as_array else row) + "\n")
    assert read_examples(path) == [EXAMPLE]


def test_an_unescaped_line_separator_does_not_end_a_json_line(tmp_path):
    """``str.splitlines`` cuts at U+2028, which JSON allows inside strings."""
    row = {**asdict(EXAMPLE), "plan": "first\u2028second"}
    path = write(tmp_path / "x.jsonl", json.dumps(row, ensure_ascii=False) + "\n")
    assert read_examples(path)[0].plan == "first\u2028second"


def test_further_fields_are_ignored(tmp_path):
    path = write(tmp_path / "x.json", json.dumps([{**asdict(EXAMPLE), "score": 1.0}]))
    assert read_examples(path) == [EXAMPLE]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_a_truncated_array_is_reported_as_cut_off(tmp_path, keep):
    text = json.dumps([asdict(EXAMPLE)] * 3, indent=2)
    path = write(tmp_path / "x.json", text[: int(len(text) * keep)])
    with pytest.raises(UserError, match=r"--data_path: .*x\.json is not valid JSON.*cut off"):
        read_examples(path)


def test_a_truncated_json_line_is_named_by_its_number(tmp_path):
    line = json.dumps(asdict(EXAMPLE))
    path = write(tmp_path / "x.jsonl", f"{line}\n\n{line[:40]}")
    with pytest.raises(UserError, match=r"x\.jsonl, line 3 is not valid JSON"):
        read_examples(path)


@pytest.mark.parametrize("name", FIELDS)
def test_a_record_without_a_field_is_named(tmp_path, name):
    broken = {**asdict(EXAMPLE), "id": "second"}
    del broken[name]
    path = write(tmp_path / "x.json", json.dumps([asdict(EXAMPLE), broken]))
    with pytest.raises(UserError, match=rf"x\.json, record 1.* has no field '{name}'") as caught:
        read_examples(path)
    if name != "id":
        assert "(id 'second')" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "kind"), [(3, "int"), (None, "NoneType"), (["a"], "list"), (1.5, "float")]
)
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_no_string_is_named(tmp_path, name, value, kind):
    path = write(tmp_path / "x.json", json.dumps([{**asdict(EXAMPLE), name: value}]))
    with pytest.raises(UserError, match=rf"record 0.*field '{name}' is {kind}, expected a string"):
        read_examples(path)


@pytest.mark.parametrize(("row", "kind"), [("text", "str"), (["q"], "list"), (None, "NoneType")])
def test_a_record_that_is_no_object_is_named(tmp_path, row, kind):
    path = write(tmp_path / "x.json", json.dumps([asdict(EXAMPLE), row]))
    with pytest.raises(UserError, match=rf"record 1 is a {kind}, not an object"):
        read_examples(path)


def test_repeated_ids_are_refused_with_both_places(tmp_path):
    other = {**asdict(EXAMPLE), "id": "other"}
    path = write(tmp_path / "x.json", json.dumps([asdict(EXAMPLE), other, asdict(EXAMPLE)]))
    with pytest.raises(UserError, match="records 0 and 2 both have the id 'gsm8k_train_0'"):
        read_examples(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "is empty"), (" \n\n", "is empty"), ("\ufeff", "is empty"), ("[]", "holds no examples")],
)
def test_a_file_without_examples_is_refused(tmp_path, text, reason):
    path = write(tmp_path / "x.json", text)
    with pytest.raises(UserError, match=rf"x\.json {reason}"):
        read_examples(path)


def test_the_flag_that_named_the_file_is_in_the_message(tmp_path):
    message = r"data\.train_path: no such file: .*hbd3lm plans --output_path"
    with pytest.raises(UserError, match=message):
        read_examples(tmp_path / "none.json", what="data.train_path")


def test_a_failing_write_keeps_the_old_examples(tmp_path):
    path = tmp_path / "x.json"
    write_examples(path, [EXAMPLE])

    def interrupted():
        yield HierarchicalExample("new", "q", "p", "e", "1")
        raise RuntimeError("the planner died")

    with pytest.raises(RuntimeError):
        write_examples(path, interrupted())
    # A lone surrogate is no UTF-8: the failure comes while the file is being written.
    with pytest.raises(UnicodeEncodeError):
        write_examples(path, [HierarchicalExample("new", "\ud800", "p", "e", "1")])
    assert read_examples(path) == [EXAMPLE]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_values_nested_without_end_are_one_message(tmp_path):
    """They were a RecursionError once."""
    path = tmp_path / "deep.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(UserError, match="nests its values too deeply"):
        read_examples(path)
