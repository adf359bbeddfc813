"""``hbd3lm.data.rows``: a record of each published data set becomes the problem it states."""

from __future__ import annotations

import json
import re
import shutil

import pytest

from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError
from tests.data.published import (
    MAIN,
    MULTIARITH,
    SVAMP,
    only_problem,
    write_lines,
    write_svamp,
)

pytestmark = pytest.mark.usefixtures("no_hub_and_no_folder")


def test_gsm8k_is_read_as_published(folder):
    loaded = load_problems("gsm8k", "train", folder)
    (problem,) = loaded.problems
    assert problem.id == "gsm8k_train_0"
    assert (problem.question, problem.solution) == (MAIN["question"], MAIN["answer"])
    assert (problem.answer, problem.subquestions) == ("72", ())
    assert loaded.origin == f"GSM8K main, train: 1 problems from {folder / 'gsm8k_train.jsonl'}"
    assert loaded.fallback is None


def test_the_socratic_version_is_the_same_problem_with_subquestions(folder):
    plain = only_problem("gsm8k", "test", folder)
    socratic = only_problem("gsm8k_socratic", "test", folder)
    assert socratic.subquestions == ("How many in May?", "How many in all?")
    assert (socratic.id, socratic.solution) == (plain.id, plain.solution)


def test_a_blank_step_of_the_socratic_version_has_no_subquestion(folder):
    """Published rows 480, 2617, 2815 and 5402 ask ahead of a blank line and then once more."""
    answer = "How? ** a\nWhat? ** \nWhat? ** b\n#### 1"
    write_lines(folder / "gsm8k_train_socratic.jsonl", {"question": "Q?", "answer": answer})
    problem = only_problem("gsm8k_socratic", "train", folder)
    assert problem.solution == "a\n\nb\n#### 1"
    assert problem.subquestions == ("How?", "What?")


def test_the_plain_file_under_the_socratic_name_is_noticed(folder):
    shutil.copy(folder / "gsm8k_train.jsonl", folder / "gsm8k_train_socratic.jsonl")
    with pytest.raises(UserError, match=r"socratic\.jsonl, line 1: step .* has no sub-question"):
        load_problems("gsm8k_socratic", "train", folder)


def test_svamp_gets_a_question_and_an_annotated_solution(folder):
    loaded = load_problems("svamp", "train", folder)
    problem = loaded.problems[0]
    assert problem.id == "svamp_train_0"
    assert problem.question == (
        "Each pack costs 76 dollars. There is a discount of 25 dollars. How much is a pack?"
    )
    assert problem.solution == "76 - 25 = <<76-25=51>>51\n#### 51"
    assert problem.answer == "51"


def test_svamp_is_split_by_position_and_says_so(folder):
    train, test = (load_problems("svamp", split, folder) for split in ("train", "test"))
    assert (len(train.problems), len(test.problems)) == (700, 300)
    assert (train.problems[-1].id, test.problems[0].id) == ("svamp_train_699", "svamp_test_700")
    assert "the first 700 rows are train, the last 300 test" in test.origin


def test_a_part_of_svamp_is_refused_since_its_split_would_move(folder):
    (folder / "svamp.json").write_text(json.dumps([SVAMP] * 999))
    with pytest.raises(UserError, match=r"svamp\.json holds 999 problems, SVAMP has 1000"):
        load_problems("svamp", "test", folder)


@pytest.mark.parametrize(
    ("equation", "answer", "solution"),
    [
        ("( ( 4.0 + 2.0 ) * 3.0 )", 18.0, "(4 + 2) * 3 = <<(4+2)*3=18>>18\n#### 18"),
        ("( 9.0 - ( 4.0 + 2.0 ) )", 3.0, "9 - (4 + 2) = <<9-(4+2)=3>>3\n#### 3"),
        ("( 9.0 / 2.0 )", "4.5", "9 / 2 = <<9/2=4.5>>4.5\n#### 4.5"),
        ("8.0", 8.0, "#### 8"),  # no calculation
        ("( ( 4.0 - 2.0 ) + 3.0 )", 1.0, "#### 1"),  # row 679 of the published file: wrong
    ],
)
def test_svamp_solutions_follow_the_equation_if_it_is_right(folder, equation, answer, solution):
    write_svamp(folder, {**SVAMP, "Equation": equation, "Answer": answer})
    assert load_problems("svamp", "train", folder, limit=1).problems[0].solution == solution


def test_a_body_that_ends_in_a_full_stop_gets_no_second(folder):
    write_svamp(folder, {**SVAMP, "Body": "It costs 76. "})
    problem = load_problems("svamp", "train", folder, limit=1).problems[0]
    assert problem.question == "It costs 76. How much is a pack?"


def test_multiarith_is_read(folder):
    problem = only_problem("multiarith", "test", folder)
    assert problem.id == "multiarith_test_0"
    assert (problem.question, problem.answer) == (MULTIARITH["input"], "39")
    assert problem.solution == "#### 39"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "#### 1"}, "has no field 'question'"),
        ({"question": "Q?"}, "has no field 'answer'"),
        ({"question": " ", "answer": "#### 1"}, "field 'question' is empty"),
        ({"question": "Q?", "answer": ""}, "field 'answer' is empty"),
        ({"question": None, "answer": "#### 1"}, "field 'question' is NoneType"),
        ({"question": "Q?", "answer": 1}, "field 'answer' is int"),
        (
            {"question": "Q?", "answer": "It is 1."},
            "the last line of 'answer' is not '#### NUMBER'",
        ),
        (
            {"question": "Q?", "answer": "#### one"},
            "the last line of 'answer' is not '#### NUMBER'",
        ),
        ({"question": "Q?", "answer": "#### 1\nbye"}, "the last line of 'answer' is not"),
        (["Q?"], "is a list, not a record"),
    ],
)
def test_a_bad_gsm8k_row_is_named_by_file_and_line(folder, row, reason):
    path = folder / "gsm8k_train.jsonl"
    write_lines(path, MAIN, row)
    with pytest.raises(
        UserError, match=f"{re.escape(str(path))}, line 2:? {reason}.*; correct that row"
    ):
        load_problems("gsm8k", "train", folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Body": ""}, "field 'Body' is empty"),
        ({"Question": 3}, "field 'Question' is int"),
        ({"Answer": "many"}, "field 'Answer' is 'many', not a number"),
        ({"Answer": None}, "field 'Answer' is None, not a number"),
        ({"Equation": "( 1.0 +"}, "field 'Equation': not an arithmetic expression"),
        ({"Equation": "exit()"}, "field 'Equation': not arithmetic"),
    ],
)
def test_a_bad_svamp_row_is_named(folder, change, reason):
    write_svamp(folder, {**SVAMP, **change}, index=712)
    with pytest.raises(UserError, match=rf"svamp\.json, row 712: {reason}.*; correct that row"):
        load_problems("svamp", "test", folder)


def test_a_bad_multiarith_row_is_named(folder):
    write_lines(folder / "multiarith.jsonl", MULTIARITH, {"input": "Q?"})
    with pytest.raises(UserError, match=r"multiarith\.jsonl, line 2 has no field 'target'"):
        load_problems("multiarith", "test", folder)
