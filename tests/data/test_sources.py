"""``hbd3lm.data.sources``: the problems asked for, from where they are said to be, or an error."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from hbd3lm.data.annotations import check_annotation, find_annotations
from hbd3lm.data.answers import strict_answer
from hbd3lm.data.sources import load_problems
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.errors import UserError
from tests.data.published import (
    MAIN,
    write_lines,
)

pytestmark = pytest.mark.usefixtures("no_hub_and_no_folder")


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    names = "gsm8k, gsm8k_socratic, svamp, multiarith, embedded"
    with pytest.raises(UserError, match=f"unknown data set 'gsm9k'; choose one of {names}"):
        load_problems("gsm9k", "train")


@pytest.mark.parametrize(
    ("dataset", "split", "valid"),
    [("gsm8k", "validation", "train, test"), ("multiarith", "train", "test")],
)
def test_an_unknown_split_is_answered_with_the_known_ones(dataset, split, valid):
    with pytest.raises(
        UserError, match=f"'{dataset}' has no split '{split}'; choose one of {valid}$"
    ):
        load_problems(dataset, split)


@pytest.mark.parametrize("limit", [0, -1])
def test_asking_for_no_problems_is_refused(limit):
    with pytest.raises(UserError, match="at least 1"):
        load_problems("embedded", "train", limit=limit)


def test_the_environment_names_the_folder_and_the_argument_overrules_it(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(folder))
    assert load_problems("gsm8k", "train").origin.endswith(str(folder / "gsm8k_train.jsonl"))
    with pytest.raises(UserError, match=r"no file gsm8k_train\.jsonl"):
        load_problems("gsm8k", "train", str(tmp_path))


def test_limit_takes_the_first_rows_and_origin_says_so(folder):
    write_lines(folder / "gsm8k_train.jsonl", *({**MAIN, "question": f"{i}?"} for i in range(5)))
    loaded = load_problems("gsm8k", "train", folder, limit=2)
    assert [problem.question for problem in loaded.problems] == ["0?", "1?"]
    assert "first 2 of 5 problems" in loaded.origin
    assert len(load_problems("gsm8k", "train", folder, limit=99).problems) == 5


@pytest.mark.parametrize(
    ("dataset", "title"), [("gsm8k", "GSM8K main"), ("gsm8k_socratic", "GSM8K socratic")]
)
def test_gsm8k_gives_way_to_embedded_problems_and_says_so(dataset, title):
    with pytest.warns(UserWarning) as caught:
        loaded = load_problems(dataset, "test", limit=4, seed=7)
    assert loaded.problems == generate_problems("test", 4, 7)
    assert loaded.origin == "embedded problems, test: 4 generated with seed 7"
    assert [str(warning.message) for warning in caught] == [loaded.fallback]
    assert loaded.fallback.startswith(
        f"{title} test was asked for, but the hub (http://127.0.0.1:9)"
    )
    for part in ("NOT GSM8K", "--data_dir DIR", "data.dir=DIR", "HBD3LM_DATA_DIR=DIR", "_test"):
        assert part in loaded.fallback


def test_the_replacement_has_as_many_problems_as_gsm8k():
    with pytest.warns(UserWarning):
        assert len(load_problems("gsm8k", "test").problems) == 1319


@pytest.mark.parametrize("dataset", ["svamp", "multiarith"])
def test_other_data_sets_are_not_replaced(dataset):
    with pytest.raises(UserError, match=r"cannot be reached.*--data_dir DIR.*HBD3LM_DATA_DIR"):
        load_problems(dataset, "test")


def test_finding_the_hub_out_of_reach_imports_no_heavy_library(folder):
    """``datasets`` takes seconds to import; neither a folder nor the fallback needs it."""
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from hbd3lm.data.sources import load_problems\n"
        f"load_problems('gsm8k', 'train', {str(folder)!r})\n"
        "load_problems('gsm8k', 'train', limit=1)\n"
        "sys.exit(bool({'datasets', 'torch', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_embedded_problems_need_no_files_and_number_as_many_as_gsm8k(tmp_path, split, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_problems("embedded", split, tmp_path)
    assert len(loaded.problems) == count
    assert loaded.origin == f"embedded problems, {split}: {count} generated with seed 0"
    assert loaded.fallback is None


@pytest.mark.parametrize(
    ("dataset", "split", "count"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("gsm8k_socratic", "train", 7473),
        ("gsm8k_socratic", "test", 1319),
        ("svamp", "train", 700),
        ("svamp", "test", 300),
        ("multiarith", "test", 600),
    ],
)
def test_every_published_problem_is_read(data_dir, dataset, split, count):
    problems = load_problems(dataset, split, data_dir).problems
    assert len({problem.id for problem in problems}) == len(problems) == count
    for problem in problems:
        assert strict_answer(problem.solution) == problem.answer
        assert problem.solution.rpartition("\n")[2].startswith("#### ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_socratic_version_has_the_solutions_of_main(data_dir, split):
    plain = load_problems("gsm8k", split, data_dir).problems
    socratic = load_problems("gsm8k_socratic", split, data_dir).problems
    for left, right in zip(plain, socratic, strict=True):
        assert (left.id, left.question, left.solution) == (right.id, right.question, right.solution)
        steps = [line for line in right.solution.split("\n")[:-1] if line.strip()]
        assert len(right.subquestions) == len(steps)
        assert all(right.subquestions)


def test_the_published_svamp_equations_become_checked_steps(data_dir):
    problems = [p for s in ("train", "test") for p in load_problems("svamp", s, data_dir).problems]
    without_step = [p.id for p in problems if "<<" not in p.solution]
    assert without_step == ["svamp_train_554", "svamp_train_679"]
    for problem in problems:
        assert all(map(check_annotation, find_annotations(problem.solution)))
        assert ".0" not in problem.solution
