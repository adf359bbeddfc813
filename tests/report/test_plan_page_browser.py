"""The page of the analysis in a real browser: reading, judging, keeping, saving, and no harm."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hbd3lm.commands.analyze_plans import main as analyze
from hbd3lm.commands.apply_review import main as apply_review
from hbd3lm.data.annotations import execution_text
from hbd3lm.data.records import HierarchicalExample, read_examples, write_examples
from hbd3lm.data.sources import load_problems
from hbd3lm.plans.rules.planner import plan_problem
from tests.browser import CONTRAST, PATIENCE, UNNAMED, launch, open_page
from tests.hostile import MEGABYTE, QUESTIONS, rows

FAULTY = {
    3: "Add 12 and 30, then take the two away.",
    5: "Add the amounts.",
    7: "Add the amounts!",
    9: " ",
}


@pytest.fixture(scope="module")
def browser():
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(data_dir, tmp_path_factory):
    """120 real problems, a few plans spoilt: the data, a second file, the page."""
    folder = tmp_path_factory.mktemp("page")
    problems = load_problems("gsm8k", "train", data_dir, limit=120).problems
    good = [
        HierarchicalExample(p.id, p.question, plan_problem(p)[0], execution_text(p), p.answer)
        for p in problems
    ]
    spoilt = [replace(e, plan=FAULTY.get(index, e.plan)) for index, e in enumerate(good)]
    write_examples(folder / "plans.json", spoilt)
    other = [replace(example, plan=f"{example.plan} Then look back.") for example in good]
    write_examples(folder / "other.json", other)
    page_of(folder, "--compare", folder / "other.json")
    return folder


def page_of(folder: Path, *more: object) -> None:
    arguments = ["--data_path", folder / "plans.json", "--output_page", folder / "plans.html",
                 "--output_plot", folder / "plot.png", "--num_samples", 0, *more]  # fmt: skip
    assert analyze([str(argument) for argument in arguments]) == 0


@pytest.fixture
def context(browser):
    """A browser profile of its own: nothing kept from another test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


def names(page) -> list[str]:
    return page.locator(".row .name").all_text_contents()


def shown(page) -> str:
    return page.locator("#problem header h3").inner_text()


def saved(page, folder: Path) -> Path:
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "review.json"
    download.value.save_as(folder / "review.json")
    return folder / "review.json"


def test_a_page_of_real_problems_loads_without_network_or_errors(context, files):
    page = open_page(context, files / "plans.html")
    assert page.locator("h1").inner_text() == "Plans of plans.json"
    assert page.locator(".verdicts li").count() == 4
    assert page.locator(".plate img").evaluate("image => image.naturalWidth") > 1000
    assert page.locator("#inspected").inner_text() == "0 of 120 inspected"
    example = read_examples(files / "plans.json")[0]
    assert shown(page) == example.id
    for text in (example.question, example.plan, example.execution):
        assert text in page.locator("#problem").inner_text()
    assert page.locator(".row").count() < 40  # a window on the list, not the list
    assert page.problems == []


def test_numbers_of_a_plan_are_highlighted_by_kind(context, files):
    page = open_page(context, files / "plans.html")
    page.locator(".row").nth(3).click()
    assert page.locator(".is-plan mark").all_text_contents() == ["12", "30", "two"]
    assert page.locator(".is-plan mark.w").all_text_contents() == ["two"]


def test_filters_and_search_narrow_the_list(context, files):
    page = open_page(context, files / "plans.html")
    page.get_by_role("button", name=re.compile("^repeated plan 2")).click()
    assert names(page) == ["gsm8k_train_5", "gsm8k_train_7"]
    page.get_by_role("button", name=re.compile("^empty 1")).click()
    assert names(page) == ["gsm8k_train_5", "gsm8k_train_7", "gsm8k_train_9"]  # any of both
    page.get_by_label("Category").select_option(label="Empty (no plan): 1")
    assert names(page) == ["gsm8k_train_9"]
    page.reload()
    page.keyboard.press("/")
    page.keyboard.type("natalia sold")
    page.locator("#inspected", has_text="0 of 1 inspected").wait_for()
    assert names(page) == ["gsm8k_train_0"]
    page.get_by_label("Search").fill("no such words anywhere")
    page.get_by_text("No problem fits these filters.").wait_for()
    assert page.problems == []


def test_a_sample_of_twenty_is_drawn_by_seed(context, files):
    page = open_page(context, files / "plans.html")
    page.click("#inspect")
    assert page.locator("#inspected").inner_text() == "0 of 20 inspected (sample)"
    first = names(page)
    page.get_by_label("Seed").fill("7")
    page.keyboard.press("Tab")
    assert names(page) != first
    page.get_by_label("Seed").fill("0")
    page.keyboard.press("Tab")
    assert names(page) == first
    page.click("#draw")
    assert page.locator("#inspected").inner_text() == "0 of 120 inspected"


def test_keys_judge_move_and_undo(context, files):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("g")
    page.keyboard.press("b")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert shown(page) == "gsm8k_train_2"
    assert page.locator(".row .said").all_text_contents()[:2] == ["✓ good", "✗ bad"]
    assert page.locator("#inspected").inner_text() == "2 of 120 inspected"
    page.keyboard.press("u")
    assert shown(page) == "gsm8k_train_1"
    assert page.locator("#inspected").inner_text() == "1 of 120 inspected"
    page.keyboard.press("k")
    page.keyboard.press("g")  # a second time: taken back
    assert page.locator("#inspected").inner_text() == "0 of 120 inspected"
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("g")  # the dialog is open: no verdict
    page.keyboard.press("Escape")
    assert page.locator("#inspected").inner_text() == "0 of 120 inspected"
    assert page.problems == []


def test_typing_in_the_search_or_the_editor_is_no_verdict(context, files):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("/")
    page.keyboard.type("bag")
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.keyboard.type(" gbu")
    page.keyboard.press("Escape")
    assert page.locator("#inspected").inner_text().startswith("0 of")


def test_a_filter_changed_meanwhile_does_not_cost_the_edit(context, files):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("e")
    page.locator("#editor").fill("Add what is given.")
    page.get_by_label("Category").select_option(label="Empty (no plan): 1")
    assert page.locator("#editor").input_value() == "Add what is given."
    assert "when the edit is kept" in page.locator("#notice").inner_text()
    page.click("#keep")
    assert names(page) == ["gsm8k_train_9"] and page.locator("#notice").is_hidden()
    page.get_by_label("Category").select_option(label="all")
    page.get_by_label("My verdict").select_option(label="edited")
    assert names(page) == ["gsm8k_train_0"]


def test_a_long_review_is_loaded_with_one_write(context, files, tmp_path):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("g")
    review = saved(page, tmp_path)
    content = json.loads(review.read_text())
    ids = [example.id for example in read_examples(files / "plans.json")]
    content["verdicts"] = [{"id": name, "verdict": "bad"} for name in ids]
    review.write_text(json.dumps(content))
    page.evaluate(
        "() => { window.writes = 0; const write = Storage.prototype.setItem;"
        " Storage.prototype.setItem = function (...a) { window.writes++; write.apply(this, a); } }"
    )
    page.set_input_files("#file", review)
    page.locator("#inspected", has_text="120 of 120 inspected").wait_for()
    assert page.evaluate("window.writes") == 1
    page.reload()
    assert page.locator("#inspected").inner_text() == "120 of 120 inspected"


def test_verdicts_survive_closing_are_saved_and_merged(context, files, tmp_path, capsys):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("g")
    page.keyboard.press("b")
    page.keyboard.press("e")
    page.locator("#editor").fill("Add the given amounts; nothing else.")
    page.keyboard.press("Control+Enter")
    assert "Plan, edited" in page.locator("#problem").inner_text()
    page.close()
    page = open_page(context, files / "plans.html")
    assert page.locator("#inspected").inner_text() == "3 of 120 inspected"
    review = saved(page, tmp_path)
    verdicts = json.loads(review.read_text())["verdicts"]
    assert verdicts == [
        {"id": "gsm8k_train_0", "verdict": "good"},
        {"id": "gsm8k_train_1", "verdict": "bad"},
        {"id": "gsm8k_train_2", "verdict": "edited",
         "plan": "Add the given amounts; nothing else."},
    ]  # fmt: skip
    output = tmp_path / "new.json"
    apply_review(["--data_path", str(files / "plans.json"), "--review", str(review),
                  "--output_path", str(output)])  # fmt: skip
    merged = {example.id: example for example in read_examples(output)}
    assert len(merged) == 119 and "gsm8k_train_1" not in merged
    assert merged["gsm8k_train_2"].plan == "Add the given amounts; nothing else."
    assert page.problems == []


def test_a_saved_review_is_loaded_elsewhere_and_one_of_other_plans_is_not(
    context, browser, files, tmp_path
):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("g")
    review = saved(page, tmp_path)
    other = browser.new_context()
    page = open_page(other, files / "plans.html")
    page.set_input_files("#file", review)
    page.locator("#inspected", has_text="1 of 120 inspected").wait_for()
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(json.loads(review.read_text()) | {"fingerprint": "0"}))
    page.set_input_files("#file", wrong)
    page.get_by_text("is a review of other plans").wait_for()
    other.close()


def test_an_edit_cannot_be_empty_and_bad_keeps_it_for_later(context, files, tmp_path):
    page = open_page(context, files / "plans.html")
    page.keyboard.press("e")
    page.locator("#editor").fill("  ")
    page.click("#keep")
    assert page.get_by_text("A plan needs text").is_visible()
    page.locator("#editor").fill("Better.")
    page.click("#keep")
    page.keyboard.press("b")
    page.keyboard.press("k")
    assert json.loads(saved(page, tmp_path).read_text())["verdicts"] == [
        {"id": "gsm8k_train_0", "verdict": "bad"}
    ]
    page.keyboard.press("b")
    assert json.loads(saved(page, tmp_path).read_text())["verdicts"] == [
        {"id": "gsm8k_train_0", "verdict": "edited", "plan": "Better."}
    ]


def test_a_comparison_stands_side_by_side(context, files):
    page = open_page(context, files / "plans.html")
    table = page.locator("section[aria-labelledby=comparison]")
    assert "paired bootstrap over the 120 problems of both files" in table.inner_text()
    assert table.locator("tbody tr").count() == 16
    row = table.locator("tr", has_text="plans without text").locator("td").all_text_contents()
    assert row[:4] == ["plans without text", "120", "0.8%", "0.0%"]
    assert 0 < table.locator("tr.clear").count() < 16
    page.locator(".row").nth(5).click()
    assert "Plan of other.json" in page.locator("#problem").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_narrow_and_wide_and_its_text_has_contrast(browser, files, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = open_page(context, files / "plans.html")
    page.keyboard.press("g")
    page.locator(".row").nth(3).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    worst = page.evaluate(CONTRAST)
    assert worst["ratio"] >= 4.5, worst
    context.close()


def test_every_control_has_a_name(context, files):
    page = open_page(context, files / "plans.html")
    assert page.evaluate(UNNAMED) == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "plans.json").write_text(json.dumps(rows()), encoding="utf-8")
    (folder / "other.json").write_text(json.dumps(rows()), encoding="utf-8")
    page_of(folder, "--compare", folder / "other.json")
    return folder


def test_hostile_texts_are_shown_and_never_run(context, hostile):
    page = open_page(context, hostile / "plans.html")
    for index, text in enumerate(QUESTIONS):
        page.locator(".row").nth(index).click()
        card = page.locator("#problem .is-question .text")
        expected = text if len(text) <= 3000 else text[:3000]
        expected = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda m: chr(0x2400 + ord(m[0])), expected)
        expected = re.sub(r"[\x80-\x9f]", "\ufffd", expected).replace("\x7f", "\u2421")
        assert card.evaluate("node => node.textContent") == expected
        assert card.evaluate("node => node.children.length") == 0
        assert card.get_attribute("dir") == "auto"
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
    scripts = page.evaluate("[...document.scripts].map((script) => script.type)")
    assert scripts == ["application/json", ""]
    assert page.locator("iframe, svg, #problem img").count() == 0
    assert page.problems == []


def test_right_to_left_text_is_set_from_right_to_left(context, hostile):
    page = open_page(context, hostile / "plans.html")
    page.locator(".row").nth(6).click()
    direction = "node => getComputedStyle(node).direction"
    assert page.locator("#problem .is-question .text").evaluate(direction) == "rtl"


def test_a_megabyte_is_cut_until_asked_for(context, hostile):
    page = open_page(context, hostile / "plans.html")
    page.locator(".row").nth(8).click()
    question = page.locator("#problem .is-question")
    button = question.get_by_role("button", name=f"Show all {len(MEGABYTE):,} characters")
    button.click()
    assert question.locator(".text").evaluate("node => node.textContent") == MEGABYTE
    assert button.count() == 0


def test_even_an_injected_script_would_not_run(context, hostile):
    page = open_page(context, hostile / "plans.html")
    page.evaluate(
        """() => { const script = document.createElement("script");
        script.textContent = "window.__pwned = 9"; document.body.append(script);
        const div = document.createElement("div");
        div.innerHTML = "<img src=x onerror='window.__pwned = 10'>"; document.body.append(div); }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None


def test_hostile_verdicts_travel_to_the_file_and_back(context, hostile, tmp_path):
    page = open_page(context, hostile / "plans.html")
    for key in "gbggg":
        page.keyboard.press(key)
    review = saved(page, tmp_path)
    apply_review(["--data_path", str(hostile / "plans.json"), "--review", str(review),
                  "--output_path", str(tmp_path / "new.json")])  # fmt: skip
    assert [e.question for e in read_examples(tmp_path / "new.json")] == [
        text for index, text in enumerate(QUESTIONS) if index != 1
    ]
