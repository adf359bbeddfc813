"""The denoising viewer in a real browser: playing, scrubbing, finding, editing, and no harm."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import hydra
import numpy as np
import pytest

from hbd3lm.commands.compose import CONFIGS
from hbd3lm.commands.overrides import quote_text
from hbd3lm.commands.view import main as view
from hbd3lm.data.answers import flexible_answer, same_answer, strict_answer
from hbd3lm.data.records import read_examples
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.evaluate.trajectories import (
    Trajectory,
    describe_run,
    describe_trajectory,
    write_trajectories,
)
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.sample.trajectory import Event
from tests.browser import CONTRAST, PATIENCE, UNNAMED, launch, open_page
from tests.hostile import MEGABYTE, QUESTIONS

TOKENIZER = load_tokenizer("gsm")
LAYOUT = plan_execution_layout(64, 64, 64, 8, 8)
SETTINGS = {"mode": "full", "method": "confidence", "temperature": 0.0, "threshold": 0.9, "seed": 3}


def trajectory_of(segments: dict[str, str], seed: int = 0, block_size: int = 8) -> Trajectory:
    """As a sampler might have written these texts: one or two tokens a pass, in random order."""
    rng = np.random.default_rng(seed)
    events, evaluations = [], 0
    for name, text in segments.items():
        ids = [*TOKENIZER.encode(text)[:120], TOKENIZER.end_ids[name]]
        ids += [TOKENIZER.fill_id] * (-len(ids) % block_size)
        for block in range(len(ids) // block_size):
            order, step = rng.permutation(block_size), 0
            while len(order):
                now, order = np.split(order, [min(rng.integers(1, 3), len(order))])
                now.sort()
                step, evaluations = step + 1, evaluations + 1
                places = tuple((now + block * block_size).tolist())
                events.append(
                    Event(name, block, step, places, tuple(ids[p] for p in places),
                          tuple(rng.uniform(0.1, 1, len(places))), evaluations, step == 1)
                )  # fmt: skip
    return describe_trajectory(events, TOKENIZER)


def record_of(name: str, question: str, segments: dict[str, str], gold: str) -> dict:
    execution = segments["execution"]
    strict, flexible = strict_answer(execution), flexible_answer(execution)
    return {
        "id": name,
        "question": question,
        "plan": segments.get("plan", ""),
        "execution": execution,
        "answer_numerical": gold,
        "gold_plan": "Add the gold amounts." if "plan" in segments else "",
        "gold_execution": f"gold work\n#### {gold}",
        "predicted_strict": strict,
        "predicted_flexible": flexible,
        "correct_strict": same_answer(strict, gold) if gold else None,
        "correct_flexible": same_answer(flexible, gold) if gold else None,
        "ended": dict.fromkeys(segments, True),
        "network_evaluations": 0,
    }


def page_of(folder: Path, rows: list[tuple[dict, Trajectory]], layout=LAYOUT) -> Path:
    for record, trajectory in rows:
        record["network_evaluations"] = trajectory.steps[-1].evaluations
    about = describe_run(layout, "runs/my run/best.ckpt", "test problems", SETTINGS)
    records, trajectories = zip(*rows)
    write_trajectories(folder / "t.jsonl", about, records, trajectories)
    assert view([str(folder / "t.jsonl")]) == 0
    return folder / "t.html"


# Every fourth: right; wrong; no answer line but the right number; not scored.
ENDINGS = ("#### 7", "#### 8", "so it is 7", "#### 7")


def make_rows(count: int) -> list[tuple[dict, Trajectory]]:
    rows = []
    for i in range(count):
        segments = {
            "plan": f"Add the given apples, then share plan {i}.",
            "execution": f"3 + 4 = 7 apples, row {i}\n{ENDINGS[i % 4]}",
        }
        gold = "" if i % 4 == 3 else "7"
        record = record_of(f"p{i}", f"Ann has {i} apples. How many?", segments, gold)
        rows.append((record, trajectory_of(segments, i)))
    return rows


@pytest.fixture(scope="module")
def browser():
    with launch() as browser:
        yield browser


@pytest.fixture(scope="module")
def rows():
    return make_rows(200)


@pytest.fixture(scope="module")
def file(rows, tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("viewer"), rows)


@pytest.fixture
def context(browser):
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    yield context
    context.close()


def scrub(page, frame: int) -> None:
    page.locator("#scrub").evaluate(
        "(node, value) => { node.value = value; node.dispatchEvent(new Event('input')); }", frame
    )


# What a reader sees: the decided tokens of text, and how many masks.
SEEN = """(segment) => {
  const canvas = document.querySelector(`.is-${segment} .canvas`);
  const blocks = [...canvas.querySelectorAll(".block")].filter((b) => b.getClientRects().length);
  const tokens = blocks.flatMap((block) => [...block.querySelectorAll(".tok")]);
  const text = tokens.filter((t) => !/masked|end|fill|dropped/.test(t.className))
    .map((t) => t.textContent.replaceAll("↵", "")).join("");
  return [text, tokens.filter((t) => t.classList.contains("masked")).length, tokens.length];
}"""


def names(page) -> list[str]:
    return page.locator(".row .name").all_text_contents()


def shown(page) -> str:
    return page.locator("#name").inner_text()


def test_a_page_of_two_hundred_problems_opens_with_the_first_one_finished(context, file, rows):
    page = open_page(context, file)
    record, trajectory = rows[0]
    assert page.evaluate(SEEN, "plan")[:2] == [record["plan"], 0]
    assert page.evaluate(SEEN, "execution")[:2] == [record["execution"], 0]
    card = page.locator("#problem").inner_text()
    for text in (record["question"], "Add the gold amounts.", "gold work", "✓ correct"):
        assert text in card
    assert page.locator("#passes").inner_text() == str(trajectory.steps[-1].evaluations)
    assert "correct 33.3% (50 of 150)" in page.locator(".facts-line").inner_text()
    assert page.locator(".row").count() < 40  # a window on the list, not the list
    assert page.problems == []


def test_every_frame_shows_exactly_what_was_decided_by_then(context, file, rows):
    page = open_page(context, file)
    page.locator(".row").nth(1).click()
    trajectory = rows[1][1]
    total = len(trajectory.steps)
    for frame in range(total + 1):
        scrub(page, frame)
        opened = {(s.segment, s.block) for s in trajectory.steps[: frame + 1]}
        for segment in ("plan", "execution"):
            text, masked, tokens = page.evaluate(SEEN, segment)
            assert text == trajectory.text(segment, frame)
            assert tokens == 8 * sum(name == segment for name, _ in opened)
            decided = [s for s in trajectory.steps[:frame] if s.segment == segment]
            assert masked == tokens - sum(len(s.tokens) for s in decided)
        fresh = page.locator(".tok.fresh").count()
        expected = len(trajectory.steps[frame - 1].tokens) if 0 < frame < total else 0
        assert fresh == expected
        evaluations = trajectory.steps[frame - 1].evaluations if frame else 0
        assert page.locator("#passes").inner_text() == str(evaluations)
        verdict = page.locator("#answers").inner_text()
        assert ("✗ wrong" in verdict) == (frame == total)
    assert page.problems == []


def test_playing_runs_from_nothing_to_the_verdict_and_pauses(context, file):
    page = open_page(context, file)
    page.evaluate(
        "window.seen = []; new MutationObserver(() => window.seen.push($('scrub').value))"
        ".observe($('passes'), {childList: true})".replace("$", "document.getElementById")
    )
    page.select_option("#speed", "60")
    page.keyboard.press("Escape")
    page.click("#play")
    page.locator("#play", has_text="Pause").wait_for()
    assert page.locator("#verdict strong").count() == 0
    page.locator("#play", has_text="Play").wait_for()
    assert page.locator("#verdict strong").inner_text() == "✓ correct"
    frames = [int(value) for value in page.evaluate("window.seen")]
    last = int(page.locator("#scrub").get_attribute("max"))
    assert frames == list(range(last + 1))  # every frame once, in order
    page.select_option("#speed", "1")
    page.locator("#list").focus()
    page.keyboard.press("Space")
    page.locator("#play", has_text="Pause").wait_for()
    page.keyboard.press("Space")
    assert "Play" in page.locator("#play").inner_text()
    assert int(page.locator("#scrub").input_value()) < last
    assert page.problems == []


def test_playing_goes_on_to_the_next_problem_if_asked(context, file):
    page = open_page(context, file)
    page.check("#on-and-on")
    page.select_option("#speed", "60")
    page.click("#play")
    page.locator("#name", has_text=re.compile("^p1$")).wait_for()
    page.locator("#play", has_text="Pause").wait_for()
    page.click("#play")
    assert page.problems == []


def test_keys_step_through_passes_blocks_and_problems(context, file, rows):
    page = open_page(context, file)
    steps = rows[0][1].steps
    starts = [i for i, step in enumerate(steps) if step.commits]
    value = page.locator("#scrub").input_value

    page.keyboard.press("Home")
    assert value() == "0"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert value() == "1"
    page.keyboard.press("Shift+ArrowRight")
    assert value() == str(starts[1])
    page.keyboard.press("Shift+ArrowRight")
    assert value() == str(starts[2])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowLeft")
    assert value() == str(starts[2])
    page.keyboard.press("End")
    assert value() == str(len(steps))
    page.keyboard.press("+")
    assert page.locator("#speed").input_value() == "20"
    page.keyboard.press("-")
    assert page.locator("#speed").input_value() == "8"
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert shown(page) == "p1"
    page.locator("#scrub").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert value() == "1"  # once, though the slider has the focus
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    page.keyboard.type("j ")  # typing is no command
    assert shown(page) == "p1"


def test_shade_and_tooltip_tell_the_confidence(context, file, rows):
    page = open_page(context, file)
    tokens = [t for s in rows[0][1].steps if s.segment == "plan" for t in s.tokens]
    tokens.sort(key=lambda token: token.position)
    drawn = page.evaluate(
        """() => [...document.querySelectorAll(".is-plan .canvas .tok")].map((t) =>
          [t.title, getComputedStyle(t).backgroundColor.match(/[\\d.]+/g).map(Number)[3] ?? 1])"""
    )
    told = [float(title.partition(" % sure; ")[0]) / 100 for title, _ in drawn]
    assert told == pytest.approx([t.confidence for t in tokens], abs=6e-4)
    assert "plan token 1, evaluation" in drawn[0][0] and "block 1, step" in drawn[0][0]
    order = sorted(range(len(tokens)), key=lambda i: tokens[i].confidence)
    shades = [drawn[i][1] for i in order]
    assert shades == sorted(shades, reverse=True) and shades[0] > 0.3 > shades[-1]


def test_a_click_on_the_map_goes_there(context, file, rows):
    page = open_page(context, file)
    box = page.locator("#map").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 20)
    middle = int(page.locator("#scrub").input_value())
    assert abs(middle - len(rows[0][1].steps) / 2) <= 1
    inked = page.locator("#map").evaluate(
        """(canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
          .data.some((byte, i) => i % 4 === 3 && byte)"""
    )
    assert inked


def test_verdicts_words_and_order_choose_the_problems(context, file, rows):
    page = open_page(context, file)
    show = page.get_by_label("Show")
    assert show.locator("option").all_text_contents() == [
        "all: 200", "correct: 50", "wrong: 100", "wrong, but its last number is right: 50",
        "without an answer line: 50", "with an edited plan",
    ]  # fmt: skip
    show.select_option("wrong")
    assert names(page)[:3] == ["p1", "p2", "p5"]
    show.select_option("loose")
    assert names(page)[:2] == ["p2", "p6"]
    assert "The last number written is 7, which is right." in page.locator("#answers").inner_text()
    show.select_option("all")
    page.get_by_label("Search").fill("plan 17.")
    page.locator("#place", has_text="1 of 1").wait_for()
    assert names(page) == ["p17"] and shown(page) == "p17"
    page.get_by_label("Search").fill("no such words")
    page.get_by_text("No problem fits these filters.").wait_for()
    assert not page.locator("#player").is_visible()
    page.get_by_label("Search").fill("")
    page.locator("#place", has_text="of 200").wait_for()
    page.get_by_label("Order").select_option("passes")
    most = max(range(200), key=lambda i: (rows[i][1].steps[-1].evaluations, -i))
    assert names(page)[0] == f"p{most}"
    page.get_by_label("Order").select_option("doubt")

    def sure(i):
        values = [t.confidence for s in rows[i][1].steps for t in s.tokens]
        return sum(round(v, 4) for v in values) / len(values)

    assert names(page)[0] == f"p{min(range(200), key=sure)}"
    assert page.problems == []


def test_a_problem_without_gold_has_no_verdict_and_an_address_leads_to_it(context, file):
    page = context.new_page()
    page.goto(file.as_uri() + "#problem-4")
    assert shown(page) == "p3"
    assert page.locator("#verdict").inner_text().split() == ["answer", "7"]
    page.keyboard.press("j")
    assert page.url.endswith("#problem-5")


# -- edited plans ---------------------------------------------------------------------------


def settings_of(command: str):
    """The configuration a printed command composes to, after the shell and main.py took it in."""
    first, _, second = command.partition(" &&\n")
    words = shlex.split(first)
    assert words[:2] == ["python", "main.py"]
    assert shlex.split(second)[:2] == ["hbd3lm", "view"]
    overrides = [quote_text(word) for word in words[2:]]
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("config", overrides=overrides)


def edit(page, text: str) -> None:
    page.keyboard.press("e")
    page.locator("#editor").fill(text)
    page.keyboard.press("Control+Enter")


def test_an_edited_plan_becomes_a_command_that_repeats_the_sampling(context, file, rows):
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = open_page(context, file)
    plan = 'Ann\'s "plan": take ${all} \\ of them,\nthen [share], 50% = half.'
    edit(page, plan)
    assert page.locator("#edited-plan").inner_text() == plan
    page.click("#copy")
    page.locator("#copy", has_text="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#command").inner_text()
    cfg = settings_of(copied)
    assert (cfg.mode, cfg.sampling.mode, cfg.seed) == ("sample", "exec_only", 3)
    assert cfg.sampling.plan == plan
    assert cfg.sampling.question == rows[0][0]["question"]
    assert cfg.sampling.threshold == 0.9 and cfg.sampling.trajectory
    assert cfg.checkpoint == "runs/my run/best.ckpt"
    assert cfg.eval.output_dir == str(file.parent / "edited")
    assert page.problems == []


def test_edits_stay_are_listed_saved_and_discarded(context, file, tmp_path):
    page = open_page(context, file)
    edit(page, "Do nothing.")
    page.keyboard.press("j")
    edit(page, "Do less.")
    page.reload()
    page.get_by_label("Show").select_option("edited")
    assert names(page) == ["p0", "p1"]
    page.locator(".row").first.click()
    page.locator("#edit-part").get_by_role("button", name="Edit", exact=True).click()
    assert page.locator("#editor").input_value() == "Do nothing."
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "edited_plans.json"
    download.value.save_as(tmp_path / "edited_plans.json")
    examples = read_examples(tmp_path / "edited_plans.json")
    assert [(e.id, e.plan, e.answer_numerical) for e in examples] == [
        ("p0", "Do nothing.", "7"), ("p1", "Do less.", "7"),
    ]  # fmt: skip
    cfg = settings_of(page.locator("#file-command").inner_text())
    assert (cfg.mode, cfg.sampling.mode) == ("sample_eval", "exec_only")
    assert cfg.data.test_path == "edited_plans.json"
    page.click("#discard")
    assert page.locator("#edit-part").is_hidden()
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Show").select_option("edited")
    assert names(page) == ["p1"]


def test_an_edit_needs_text_and_is_not_lost_to_a_click_elsewhere(context, file):
    page = open_page(context, file)
    page.keyboard.press("e")
    page.locator("#editor").fill(" ")
    page.click("#keep")
    assert page.get_by_text("A plan needs text.").is_visible()
    page.locator("#editor").fill("Half an edit")
    page.locator(".row").nth(3).click()
    assert shown(page) == "p0" and page.locator("#editor").input_value() == "Half an edit"
    page.keyboard.press("Escape")
    assert page.get_by_text("First keep the edit").is_visible()  # the list has the focus
    page.locator("#editor").focus()
    page.keyboard.press("Escape")
    assert page.locator("#edit-part").is_hidden() and page.locator("#notice").is_hidden()


# -- other models, other screens ------------------------------------------------------------


def test_a_model_without_plans_that_writes_token_by_token(context, tmp_path):
    segments = {"execution": "3 + 4 = 7\n#### 7"}
    row = (record_of("a", "How many?", segments, "7"), trajectory_of(segments, block_size=1))
    layout = plan_execution_layout(64, 64, 64, 1, 1, with_plan=False)
    page = open_page(context, page_of(tmp_path, [row], layout))
    assert "token by token" in page.locator(".is-execution").inner_text()
    assert page.locator(".is-plan").count() == 0 and page.locator("#edit").count() == 0
    page.keyboard.press("e")
    assert page.locator("#editor").count() == 0
    scrub(page, 3)
    assert page.evaluate(SEEN, "execution")[1:] == [1, 4]
    assert page.locator("#now").inner_text().startswith("execution, token 3 of")
    assert page.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_narrow_and_wide_and_its_text_has_contrast(browser, file, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = open_page(context, file)
    page.emulate_media(reduced_motion="reduce", color_scheme=scheme)
    edit(page, "Do nothing.")
    for frame in (10_000, 12):
        scrub(page, frame)
        page.evaluate("document.querySelectorAll('.masked').forEach((node) => node.hidden = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        worst = page.evaluate(BEHIND_SHADES + CONTRAST.removeprefix("() => {"))
        assert worst["ratio"] >= 4.5, worst
    assert page.locator("#player").bounding_box()["y"] < 800  # sticks to the lower edge
    assert page.evaluate(UNNAMED) == []
    context.close()


# A shade is drawn over the page: give each token the colour that results.
BEHIND_SHADES = """() => {
  for (const token of document.querySelectorAll(".tok")) {
    const paper = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number);
    const shade = getComputedStyle(token).backgroundColor.match(/[\\d.]+/g).map(Number);
    const alpha = shade[3] ?? 1;
    const mixed = [0, 1, 2].map((i) => shade[i] * alpha + paper[i] * (1 - alpha));
    token.style.background = `rgb(${mixed.join(" ")})`;
  }
"""


# -- hostile texts --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    rows = []
    for index, text in enumerate(QUESTIONS):
        segments = {"plan": text[:200], "execution": f"{text[:200]}\n#### 3"}
        record = record_of(f"{index} {text[:80]}", text, segments, "3")
        record |= {"plan": text, "gold_plan": text, "gold_execution": text}
        rows.append((record, trajectory_of(segments, index)))
    return page_of(tmp_path_factory.mktemp("hostile"), rows)


def harmless(text: str) -> str:
    text = re.sub(r"[\x00-\x08\x0b-\x1f]", lambda m: chr(0x2400 + ord(m[0])), text)
    return re.sub(r"[\x80-\x9f]", "\ufffd", text).replace("\x7f", "\u2421")


def test_hostile_texts_are_shown_and_never_run(context, hostile):
    page = open_page(context, hostile)
    for index, text in enumerate(QUESTIONS):
        page.locator(".row").nth(index).click()
        expected = harmless(text if len(text) <= 3000 else text[:3000])
        for selector in ("#question", ".is-plan .gold .text", ".is-execution .gold .text"):
            node = page.locator(selector)
            assert node.evaluate("node => node.textContent") == expected
            assert node.evaluate("node => node.children.length") == 0
            assert node.get_attribute("dir") == "auto"
        plan = page.evaluate(SEEN, "plan")[0]
        assert plan and harmless(text).startswith(plan.rstrip("\ufffd")[:20])
        kept = page.locator(".canvas *").evaluate_all(
            "nodes => [...new Set(nodes.map(n => n.tagName))]"
        )
        assert kept == ["SPAN"]
        scrub(page, 3)
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
    scripts = page.evaluate("[...document.scripts].map((script) => script.type)")
    assert scripts == ["application/json", ""]
    assert page.locator("iframe, svg, img").count() == 0
    assert page.problems == []


def test_commands_carry_hostile_texts_as_they_are_or_say_why_not(context, hostile):
    page = open_page(context, hostile)
    for index, text in enumerate(QUESTIONS):
        page.locator(".row").nth(index).click()
        plan = text[:500].strip() + " Then add 'all' \\"
        edit(page, plan)
        if "\0" in text or text == MEGABYTE:
            assert page.locator("#command").count() == 0
            assert page.get_by_text("save the plans instead").is_visible()
            continue
        cfg = settings_of(page.locator("#command").evaluate("node => node.textContent"))
        assert cfg.sampling.question == text
        # A text field of a browser keeps no carriage return.
        assert cfg.sampling.plan == plan.replace("\r\n", "\n").replace("\r", "\n")
    with page.expect_download() as download:
        page.click("#save")
    saved = json.loads(Path(download.value.path()).read_text())
    assert [row["question"] for row in saved] == list(QUESTIONS)


def test_even_an_injected_script_would_not_run(context, hostile):
    page = open_page(context, hostile)
    page.evaluate(
        """() => { const script = document.createElement("script");
        script.textContent = "window.__pwned = 9"; document.body.append(script);
        const div = document.createElement("div");
        div.innerHTML = "<img src=x onerror='window.__pwned = 10'>"; document.body.append(div); }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.__pwned") is None
