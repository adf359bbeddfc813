"""The page's data and policy, read from the file; how it behaves is tested in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.plans.compare import Difference, compare_plans, measure_plans
from hbd3lm.plans.review import fingerprint_examples
from hbd3lm.report.data_page import embed
from hbd3lm.report.page import Picture
from hbd3lm.report.plan_page import FAULTS, LONG_WORDS, difference_cells, write_plan_page
from tests.hostile import rows

PICTURE = Picture("data:image/png;base64,AAAA", "four panels")


def example(id_, plan, execution="2*2 = 4\n4-1 = 3\n#### 3", question="How many?"):
    return HierarchicalExample(id_, question, plan, execution, "3")


def write(tmp_path, examples, **more) -> str:
    path = tmp_path / "page.html"
    write_plan_page(path, measure_plans(examples), PICTURE, data_path="plans.json", **more)
    return path.read_text(encoding="utf-8")


def data(html: str) -> dict:
    return json.loads(re.search(r'type="application/json" id="data">(.*)</script>', html)[1])


def faults(problem: dict) -> list[str]:
    return [FAULTS[index][0] for index in problem["faults"]]


@given(st.text() | st.sampled_from(["</script>", "<!--", "]]>", "\u2028", "&lt;", "\x9b"]))
def test_embedded_json_is_read_back_and_holds_nothing_that_ends_its_element(text):
    embedded = embed({"text": text})
    assert json.loads(embedded) == {"text": text}
    assert not re.search("[<>&\x00-\x1f\x7f-\x9f\u2028\u2029]", embedded)


def test_hostile_texts_arrive_whole_and_add_no_element(tmp_path):
    examples = [HierarchicalExample(**row) for row in rows()]
    html = write(tmp_path, examples)
    problems = data(html)["problems"]
    assert [problem["question"] for problem in problems] == [e.question for e in examples]
    assert html.count("<script") == 2 and "<svg" not in html and "<iframe" not in html


def test_only_the_script_of_the_page_may_run_and_nothing_is_loaded(tmp_path):
    html = write(tmp_path, [example("a", "Add them.")])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'" in policy and "'unsafe-inline'; script" in policy
    assert policy.count("script-src") == 1 and f"script-src 'sha256-{digest}'" in policy.replace(
        "&#39;", "'"
    )
    assert not re.search(r"https?:|@import|url\(|\bon\w+=", html.replace(script, ""))
    assert "innerHTML" not in script and "eval(" not in script


def test_faults_of_a_plan_are_named(tmp_path):
    plans = {
        "answer": "Get 3.",
        "word": "Get three.",
        "result": "First find 4, then subtract.",
        "fine": "Multiply, then subtract the rest.",
        "wrong": "Divide them.",
        "long": "Multiply and subtract " + "it " * LONG_WORDS,
        "empty": "",
        "twin a": "Find it.",
        "twin b": "find it",
    }
    problems = data(write(tmp_path, [example(id_, plan) for id_, plan in plans.items()]))
    assert {problem["id"]: faults(problem) for problem in problems["problems"]} == {
        "answer": ["answer"],
        "word": ["answer", "spelled"],
        "result": ["result", "operations"],
        "fine": [],
        "wrong": ["operations"],
        "long": ["long"],
        "empty": ["empty"],
        "twin a": ["duplicate"],
        "twin b": ["duplicate"],
    }


def test_marks_count_as_javascript_does(tmp_path):
    """Characters beyond the basic plane are two units there, one character here."""
    plan = "\U0001f34e\U0001f34e Add 12 and four."
    (problem,) = data(write(tmp_path, [example("a", plan)]))["problems"]
    units = plan.encode("utf-16-le")
    marked = [
        (units[2 * start : 2 * end].decode("utf-16-le"), kind)
        for start, end, kind in problem["marks"]
    ]
    assert marked == [("12", "d"), ("four", "wr")]


def test_the_page_knows_the_fingerprint_and_the_plans_of_the_other_file(tmp_path):
    mine = [example("a", "Add."), example("b", "Add."), example("c", "Add.", question="Else?")]
    theirs = [example("a", "Sum."), example("c", "Sum.")]
    sets = measure_plans(mine), measure_plans(theirs)
    other = (sets[1], compare_plans(*sets), "somewhere/plans.json")
    html = write(tmp_path, mine, other=other)
    page = data(html)
    assert page["fingerprint"] == fingerprint_examples(mine)
    # Equal ids of different questions are different problems.
    assert [problem.get("other") for problem in page["problems"]] == ["Sum.", None, None]
    assert page["other"] == "somewhere/plans.json"  # both files are called plans.json


def test_differences_are_written_with_their_sign_and_unit():
    share = Difference("k", "share", "share", 0.5, 0.25, 0.25, 0.1, 0.4, (8, 8))
    assert difference_cells(share) == (
        "share", "8", "50.0%", "25.0%", "+25.0 pp", "+10.0 to +40.0 pp",
    )  # fmt: skip
    mean = Difference("k", "mean", "mean", 1, 1.5, -0.5, -1, -0.001, (8, 9))
    assert difference_cells(mean) == ("mean", "8 / 9", "1.00", "1.50", "-0.50", "-1.00 to 0.00")
    nan = float("nan")
    none = Difference("k", "none", "mean", nan, 1, nan, nan, nan, (0, 9))
    assert difference_cells(none) == ("none", "0 / 9", "-", "1.00", "-", "-")


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match=r"page: .*page\.html is a folder"):
        write(tmp_path, [example("a", "Add.")])
