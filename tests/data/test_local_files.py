"""``hbd3lm.data.local_files``: a folder that is named is read, or is an error."""

from __future__ import annotations

import json
import re

import pytest

from hbd3lm.data.catalogue import DATASETS
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError
from tests.data.published import (
    MAIN,
)

pytestmark = pytest.mark.usefixtures("no_hub_and_no_folder")
FROM_FILES = [(name, split) for name in DATASETS if name != "embedded" for split in DATASETS[name]]


@pytest.mark.parametrize("by_environment", [True, False])
@pytest.mark.parametrize(("dataset", "split"), FROM_FILES)
def test_a_named_folder_without_the_file_is_an_error_not_a_fallback(
    tmp_path, monkeypatch, dataset, split, by_environment
):
    if by_environment:
        monkeypatch.setenv("HBD3LM_DATA_DIR", str(tmp_path))
    named_by = "HBD3LM_DATA_DIR" if by_environment else "the data folder"
    file = {"svamp": "svamp.json", "multiarith": "multiarith.jsonl"}.get(
        dataset, f"gsm8k_{split}{dataset.removeprefix('gsm8k')}.jsonl"
    )
    with pytest.raises(UserError, match=rf"^{named_by} .* has no file {re.escape(file)}"):
        load_problems(dataset, split, None if by_environment else tmp_path)


def test_a_folder_that_is_none_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"the data folder .*nowhere is not a folder; .*--data_dir"):
        load_problems("gsm8k", "train", tmp_path / "nowhere")


def test_ids_count_problems_and_errors_count_lines(folder):
    """Blank lines are no problems; U+2028 ends no line; a byte order mark is no text."""
    text = f"\ufeff{json.dumps(MAIN)}\r\n\n"
    text += json.dumps({**MAIN, "question": "a\u2028b"}, ensure_ascii=False) + "\n{}\n"
    path = folder / "gsm8k_test.jsonl"
    path.write_bytes(text.encode())
    problems = load_problems("gsm8k", "test", folder, limit=2).problems
    assert [problem.id for problem in problems] == ["gsm8k_test_0", "gsm8k_test_1"]
    assert problems[1].question == "a\u2028b"
    with pytest.raises(UserError, match=r"gsm8k_test\.jsonl, line 4 has no field 'question'"):
        load_problems("gsm8k", "test", folder)


def test_broken_json_is_named_by_file_and_line(folder):
    line = json.dumps(MAIN)
    (folder / "gsm8k_train.jsonl").write_text(f"{line}\n{line[:30]}\n")
    with pytest.raises(UserError, match=r"gsm8k_train\.jsonl, line 2 is not valid JSON"):
        load_problems("gsm8k", "train", folder)
    text = (folder / "svamp.json").read_text()
    (folder / "svamp.json").write_text("[\n" + text[1:-50])
    with pytest.raises(UserError, match=r"svamp\.json is not valid JSON \(line 2, column"):
        load_problems("svamp", "train", folder)
    (folder / "svamp.json").write_text("{}")
    with pytest.raises(UserError, match=r"svamp\.json, line 1: expected a JSON array"):
        load_problems("svamp", "train", folder)


def test_an_empty_file_is_refused(folder):
    (folder / "gsm8k_train.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"gsm8k_train\.jsonl holds no train problems"):
        load_problems("gsm8k", "train", folder)
