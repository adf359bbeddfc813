"""The demo in a real browser: a problem typed, watched, its plan changed; and what can go wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from hbd3lm import HBD3LM, cli
from hbd3lm.commands.demo import is_local, resolve_checkpoint
from hbd3lm.evaluate.trajectories import Token
from hbd3lm.report.tokens import segment_html
from tests.browser import PATIENCE, launch, open_page
from tests.hub.exports import export_method

QUESTION, PLAN = "How many apples?", "Share it."


@pytest.fixture(scope="module")
def browser():
    with launch() as browser:
        yield browser


def served(method: str, folder):
    """The model of a method, its app and the address it is served at."""
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from hbd3lm.commands.demo_app import build_app
    from hbd3lm.commands.demo_app import launch as serve

    export_method(method, folder / method)
    model = HBD3LM.from_pretrained(folder / method)
    app = build_app(model, folder)
    return model, app, serve(app, "127.0.0.1", None)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    model, app, address = served("hierarchical", tmp_path_factory.mktemp("demo"))
    yield model, address
    app.close(verbose=False)


def test_the_saved_page_says_how_its_solutions_were_sampled(tmp_path):
    """Not how the model samples by itself; where they differ each one's name says it."""
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    from hbd3lm.commands.demo_app import save_page

    export_method("hierarchical", tmp_path / "model")
    model = HBD3LM.from_pretrained(tmp_path / "model")
    runs = []
    for temperature in (0.5, 0.7):
        settings = {"method": "first_hitting", "temperature": temperature, "seed": 3}
        solved = model.solve(QUESTION, trajectory=True, **settings)
        runs.append((QUESTION, solved, False, settings))
    one, both = (Path(save_page(model, runs[:n], tmp_path)).read_text("utf-8") for n in (1, 2))
    assert "sampling: first_hitting, temperature 0.5</bdi>" in one
    assert "sampling.temperature=0.5" in one and "seed=3" in one and '"id":"solution 1"' in one
    assert "temperature 0.5</bdi>" not in both and "sampling.temperature=" not in both
    for name in ("solution 1, temperature 0.5", "solution 2, temperature 0.7"):
        assert f'"id":"{name}"' in both


def visit(browser, address: str):
    """The app in a fresh profile, with its errors and everything it asks of other machines."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on(
        "request",
        lambda r: r.url.startswith((address, "data:", "blob:")) or page.problems.append(r.url),
    )
    page.goto(address)
    page.locator("#solve").wait_for()
    page.locator("#own").wait_for(state="attached")  # drawn after the button, on a busy machine
    return page


def fill(page, name: str, text: str) -> None:
    page.locator(f"#{name} textarea").fill(text)


def open_sampling(page) -> None:
    page.get_by_role("button", name="Sampling").click()
    page.locator("#seed").wait_for()
    page.wait_for_timeout(500)  # what is typed while the fields are still being set up is lost


def set_number(page, name: str, value: str) -> None:
    field = page.locator(f"#{name} input[type=number]")
    field.fill(value)
    field.press("Tab")


def solution(page, place: str) -> dict[str, str]:
    """Answer, text of each segment and counts, once the last token is there."""
    page.locator(f"#{place} .answer span", has_text=re.compile("^(?!…)")).wait_for()
    return page.locator(f"#{place}").evaluate(
        """(node) => ({answer: node.querySelector(".answer span").textContent,
          counts: node.querySelector(".counts").textContent,
          ...Object.fromEntries([...node.querySelectorAll("h3")].map((h) => [h.className,
            [...h.nextElementSibling.querySelectorAll(".tok:not(.end, .fill, .dropped)")]
              .map((t) => t.textContent).join("")]))})"""
    )


def test_a_problem_is_watched_and_ends_as_solve_has_it(browser, demo):
    model, address = demo
    expected = model.solve(QUESTION, trajectory=True)
    page = visit(browser, address)
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
          const own = document.getElementById("own");
          window.seen.push([own.querySelectorAll(".masked").length,
            own.querySelectorAll(".tok:not(.masked)").length]); })
          .observe(document.getElementById("own"), {childList: true, subtree: true}); }"""
    )
    fill(page, "question", QUESTION)
    page.click("#solve")
    got = solution(page, "own")
    assert (got["plan"], got["execution"]) == (expected.plan, expected.execution)
    tokens = sum(len(step.tokens) for step in expected.trajectory.steps)
    assert got["counts"] == f"{expected.evaluations} network evaluations, {tokens} tokens"
    assert got["answer"] == (expected.answer or "none (no line with ####)")
    seen = page.evaluate("window.seen")
    decided = [count for _, count in seen if count]
    assert len(set(decided)) > 5 and decided == sorted(decided)  # it was written before our eyes
    assert any(masked for masked, _ in seen)
    assert page.locator("#plan textarea").input_value() == expected.plan
    assert page.problems == []


def test_a_changed_plan_changes_the_execution(browser, demo):
    model, address = demo
    page = visit(browser, address)
    fill(page, "question", QUESTION)
    page.click("#solve")
    own = solution(page, "own")
    fill(page, "plan", PLAN)
    page.click("#follow")
    yours = solution(page, "yours")
    assert yours["execution"] == model.solve(QUESTION, plan=PLAN).execution
    assert yours["execution"] != own["execution"]
    assert solution(page, "own") == own  # side by side
    assert page.locator("#plan textarea").input_value() == PLAN
    assert page.problems == []


def test_sampling_settings_are_those_of_the_solution(browser, demo):
    model, address = demo
    page = visit(browser, address)
    open_sampling(page)
    for name, value in (("steps", "1"), ("temperature", "1"), ("seed", "5"), ("pause", "0")):
        set_number(page, name, value)
    fill(page, "question", QUESTION)
    page.click("#solve")
    got = solution(page, "own")
    expected = model.solve(QUESTION, steps=1, temperature=1.0, seed=5)
    assert got["execution"] == expected.execution
    assert got["counts"].startswith(f"{expected.evaluations} network evaluations")
    assert expected.evaluations < model.solve(QUESTION).evaluations
    set_number(page, "threshold", "0.5")
    page.locator("#method input").click()
    page.get_by_role("option", name="ancestral").click()
    page.click("#solve")
    page.get_by_text("sampling.threshold belongs to sampling.method=confidence").wait_for()


def test_an_example_fills_the_problem_and_nothing_typed_is_told(browser, demo):
    page = visit(browser, demo[1])
    page.click("#solve")
    page.get_by_text("Type a problem first.").wait_for()
    page.get_by_text("Ann has 3 bags").click()
    page.wait_for_function(
        "document.querySelector('#question textarea').value.startsWith('Ann has 3 bags')"
    )
    page.click("#follow")
    page.get_by_text("Type a plan first.").wait_for()
    page.click("#solve")
    page.get_by_text(re.compile("the model reads the last 12 of them")).wait_for()


def test_stop_ends_the_sampling_and_another_can_follow(browser, demo):
    model, address = demo
    passes, page = [], visit(browser, address)

    def slow(*_):
        time.sleep(0.2)
        passes.append(1)

    hook = model.net.register_forward_pre_hook(slow)
    try:
        fill(page, "question", QUESTION)
        page.click("#solve")
        page.locator("#own .masked").first.wait_for()
        page.click("#stop")
        time.sleep(1)
        made = len(passes)
        time.sleep(1)
        assert len(passes) == made
    finally:
        hook.remove()
    assert made < model.solve(QUESTION).evaluations
    fill(page, "question", "Tom has 3.")
    page.click("#solve")
    assert solution(page, "own")["execution"] == model.solve("Tom has 3.").execution


def test_solutions_are_saved_as_a_page_of_the_viewer(browser, demo, tmp_path):
    page = visit(browser, demo[1])
    fill(page, "question", QUESTION)
    page.click("#solve")
    solution(page, "own")
    fill(page, "plan", PLAN)
    page.click("#follow")
    solution(page, "yours")
    button = page.locator("#page")
    with page.expect_download() as download:
        button.click()
    download.value.save_as(tmp_path / "solutions.html")
    viewer = open_page(browser, tmp_path / "solutions.html")
    assert viewer.locator(".row .name").all_text_contents() == [
        "solution 1",
        "solution 2, plan given",
    ]
    viewer.locator(".row").nth(1).click()
    assert PLAN in viewer.locator(".is-plan").inner_text()
    assert viewer.problems == []


def test_markup_in_a_problem_or_a_plan_stays_text(browser, demo):
    page = visit(browser, demo[1])
    for hostile in ("<img src=x onerror='window.__pwned=1'>", "${window.__pwned=2}", "{{x}}"):
        fill(page, "question", hostile)
        fill(page, "plan", hostile)
        page.click("#follow")
        solution(page, "yours")
    assert page.evaluate("window.__pwned") is None
    assert page.locator("#own img, #yours img").count() == 0


def test_tokens_become_harmless_html():
    token = Token(0, "<b onclick='x'>&${1}\x1b", 0.5)
    html = segment_html([(token.text, token.kind, token.confidence), None], {0}, 2)
    assert "<b" not in html and "&lt;b onclick=&#x27;x&#x27;&gt;&amp;${1}\\x1b" in html
    assert html.count('class="tok fresh"') == 1 and html.count('class="tok masked"') == 1


@pytest.mark.parametrize("method", ["flat", "ar"])
def test_models_without_plans_and_token_by_token_have_a_demo_too(browser, method, tmp_path):
    model, app, address = served(method, tmp_path)
    try:
        page = visit(browser, address)
        fill(page, "question", QUESTION)
        page.click("#solve")
        assert solution(page, "own")["execution"] == model.solve(QUESTION).execution
        assert page.locator("#follow").is_visible() == (method == "ar")
        open_sampling(page)
        assert page.locator("#method").is_visible() == (method == "flat")
        assert page.problems == []
    finally:
        app.close(verbose=False)


# -- the command ----------------------------------------------------------------------------


@contextmanager
def demo_command(folder: Path):
    """The command on a small model, temporary files in ``folder``/tmp: process and address."""
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    export_method("hierarchical", folder / "model")
    (folder / "tmp").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "hbd3lm.cli", "demo", "--checkpoint", folder / "model",
               "--port", str(port)]  # fmt: skip
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TMPDIR": str(folder / "tmp")},
        # A job in the background of a shell ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as p:
        try:
            line = p.stdout.readline()
            address = f"http://127.0.0.1:{port}/"
            assert f"{address} (Ctrl-C ends it)" in line, line + p.stdout.read()
            yield p, address
        finally:
            p.kill()


def test_the_command_serves_this_machine_alone_until_interrupted(tmp_path):
    with demo_command(tmp_path) as (p, address):
        urllib.request.urlopen(address, timeout=60).close()
        p.send_signal(signal.SIGINT)
        rest, _ = p.communicate(timeout=300)
    assert p.returncode == 0 and "Traceback" not in rest and "note:" not in rest


def test_what_was_offered_to_download_is_gone_when_the_command_ends(browser, tmp_path):
    with demo_command(tmp_path) as (p, address):
        page = visit(browser, address)
        fill(page, "question", QUESTION)
        page.click("#solve")
        solution(page, "own")
        with page.expect_download() as download:
            page.click("#page")
        assert QUESTION in download.value.path().read_text("utf-8")
        assert list((tmp_path / "tmp").rglob("solutions.html"))
        page.context.close()
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=300)
    assert [path for path in (tmp_path / "tmp").rglob("*") if path.is_file()] == []


def test_a_port_that_is_taken_is_told_in_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # the command sets it, for its own process
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    export_method("hierarchical", tmp_path / "model")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        words = ["demo", "--checkpoint", str(tmp_path / "model"), "--port", port]
        assert cli.main(words) == 1
    error = capsys.readouterr().err
    assert f"error: --port {port}: it is taken" in error and error.count("\n") == 1


def test_without_gradio_the_message_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert cli.main(["demo", "--checkpoint", "x"]) == 1
    assert "install it with: pip install 'hbd3lm[demo]'" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_there_is_told_in_one_message(capsys):
    pytest.importorskip("gradio", reason="no gradio: pip install -e '.[demo]'")
    assert cli.main(["demo", "--checkpoint", "./none"]) == 1
    error = capsys.readouterr().err
    assert "no such file or folder: ./none" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("port", "message"),
    [
        ("0", "--port: '0' is no whole number of at least 1"),
        ("65536", "--port: '65536' is more than 65535"),
        ("\uff18\uff10\uff18\uff10", "is no whole number of at least 1"),
    ],
)
def test_what_is_no_port_is_refused_before_anything_is_loaded(port, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["demo", "--checkpoint", "./none", "--port", port])
    assert message in capsys.readouterr().err


def test_a_run_stands_for_its_best_checkpoint(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert resolve_checkpoint(str(tmp_path)).endswith("checkpoints/last.ckpt")
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    assert resolve_checkpoint(str(tmp_path)).endswith("checkpoints/best.ckpt")
    assert resolve_checkpoint("USER/NAME") == "USER/NAME"


def test_which_addresses_are_this_machine_alone():
    assert all(map(is_local, ("127.0.0.1", "localhost", "::1", "127.8.9.1")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.2", "example.org")))
