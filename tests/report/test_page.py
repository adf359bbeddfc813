"""Pages hold all they show, load nothing, and show every text as it is."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import pytest

from hbd3lm.errors import UserError
from hbd3lm.report import page as p

EVIL = "<script>alert('x')</script> & \"quoted\" <img src=http://evil.example/x.png>"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


class Reader(HTMLParser):
    """Tags, attributes and texts, and whether every tag that was opened is closed in order."""

    VOID = ("meta", "img", "br", "hr")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def record(**changes) -> dict:
    values = {
        "id": "gsm8k_test_0",
        "question": "How many?",
        "plan": "Add the given amounts.",
        "execution": "1+2 = 3\n#### 3",
        "answer_numerical": "3",
        "gold_plan": "Add them.",
        "gold_execution": "1+2=3\n#### 3",
        "predicted_strict": "3",
        "correct_strict": True,
        "ended": {"plan": True, "execution": True},
    }
    return values | changes


def page(tmp_path, text: str = "text") -> p.Page:
    """A page with a block of every kind, ``text`` in every place that takes one."""
    image = tmp_path / "figure.png"
    image.write_bytes(PIXEL)
    blocks = [
        p.picture(image, text, text),
        p.Table((text, text), [(text, text)], text),
        p.Card(text, text, [("Plan", text, text), ("Execution", text, "")], False, (text, text),
               [text]),
        p.problem_card(record(question=text, plan=text, gold_execution=text, id=text)),
        p.Commands([(text, text)]),
        p.links(tmp_path / "index.html", [(text, tmp_path / "run" / "a b#<&.json")]),
    ]  # fmt: skip
    return p.Page(
        text, text, [p.Fact(text, text, text)], [p.Section(text, blocks, text)], text, text
    )


def test_every_text_is_escaped(tmp_path):
    html = p.render_page(page(tmp_path, EVIL))
    reader = Reader(html)
    tags = {tag for tag, _ in reader.tags}
    assert "script" not in tags
    assert [a["src"][:10] for tag, a in reader.tags if tag == "img"] == ["data:image"]
    assert not [name for _, attributes in reader.tags for name in attributes if name[:2] == "on"]
    # ... and shown as it is, wherever it stands.
    assert "".join(reader.texts).count(EVIL) >= 18


def test_a_page_holds_all_it_shows_and_loads_nothing(tmp_path):
    html = p.render_page(page(tmp_path))
    reader = Reader(html)
    assert base64.b64encode(PIXEL).decode() in html
    for tag, attributes in reader.tags:
        assert tag not in ("link", "script", "iframe", "object")
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?://|url\(|@import", html)
    policy = next(a["content"] for _, a in reader.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy


def test_pages_are_written_whole_and_contents_point_to_sections(tmp_path):
    path = tmp_path / "new" / "index.html"
    p.write_page(path, page(tmp_path, "Repeat it"))
    reader = Reader(path.read_text(encoding="utf-8"))
    anchors = {a["id"] for _, a in reader.tags if "id" in a}
    targets = {a["href"] for _, a in reader.tags if a.get("href", "").startswith("#")}
    assert anchors == {"repeat-it"} and targets == {"#repeat-it"}


def test_links_are_relative_to_the_page_and_quoted(tmp_path):
    made = p.links(
        tmp_path / "out" / "index.html",
        [("inside", tmp_path / "out" / "run" / "a b#1.json"), ("above", tmp_path / "data")],
    )
    assert [address for _, _, address in made.items] == ["run/a%20b%231.json", "../data"]


def test_a_missing_picture_and_an_unknown_format_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        p.picture(tmp_path / "none.png", "alt")
    with pytest.raises(UserError, match="the name must end in"):
        p.picture(tmp_path / "figure.bmp", "alt")


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="page: cannot write"):
        p.write_page(tmp_path / "file" / "index.html", page(tmp_path))


def test_a_card_tells_the_verdict_and_what_is_odd():
    card = p.problem_card(record())
    assert card.correct and card.answers == ("3", "3")
    assert [name for name, _, _ in card.parts] == ["Plan", "Execution"]
    assert card.notes == ["0 numbers in the plan"]
    odd = p.problem_card(
        record(
            plan="Add 1.",
            predicted_strict=None,
            correct_strict=False,
            ended={"plan": True, "execution": False},
        )
    )
    assert not odd.correct and odd.answers == ("none", "3")
    assert odd.notes == [
        "1 number in the plan",
        "execution cut off at its cap",
        "no line with ####",
    ]


def test_a_model_without_plans_shows_none():
    card = p.problem_card(record(plan="", ended={"execution": True}))
    assert [name for name, _, _ in card.parts] == ["Execution"]
    empty = p.problem_card(record(plan="", ended={"plan": True, "execution": True}))
    assert [name for name, _, _ in empty.parts] == ["Plan", "Execution"]


def test_accuracy_stands_beside_chance():
    score = {"correct": 7, "value": 0.7, "low": 0.397, "high": 0.892}
    table = p.accuracy_table(
        {"accuracy_strict": score, "accuracy_flexible": score}, {"always 4": 0.05}, 10
    )
    assert table.rows == [
        ("model, answer after ####", "70.0%", "39.7% to 89.2%", "7 of 10"),
        ("model, last number written", "70.0%", "39.7% to 89.2%", "7 of 10"),
        ("guess: always 4", "5.0%", "", ""),
    ]


def test_plan_tables_read_the_analysis_of_filled_and_of_empty_plans():
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.plans.quality import analyze_examples

    filled, empty = (
        analyze_examples([HierarchicalExample("a", "q", plan, "1+2=3\n#### 3", "3")]).to_dict()
        for plan in ("Add 2 amounts.", "")
    )
    table = p.plan_table({"gold": filled, "own": empty})
    rows = {label: values for label, *values in table.rows}
    assert table.headers == ("", "gold", "own")
    assert rows["numbers a plan"] == ["1.000", "-"]
    assert rows["Mostly abstract (1-2 numbers)"] == ["100.0%", "0.0%"]
    assert rows["Empty (no plan)"] == ["0.0%", "100.0%"]


def test_perplexity_and_length_tables_read_their_files():
    part = {
        "of": "plan | question",
        "nats_per_token": 1.0,
        "standard_error": None,
        "perplexity": 2.718,
        "perplexity_low": None,
        "perplexity_high": None,
        "tokens": 1500,
    }
    table = p.perplexity_table({"kind": "exact", "token_set": "test", "segments": {"plan": part}})
    assert table.rows == [("plan: plan | question", "1.0000 ± -", "2.72", "- to -", "1,500")]
    stats = {"mean": 31.94, "p95": 44.0, "max": 50, "cap": 128, "truncated_share": 0.001}
    table = p.length_table({"lengths": {"plan": stats}, "tokenizer": "gsm", "vocab_size": 4096})
    assert table.rows == [("plan", "31.9", "44", "50", "128", "0.10%")]
