"""A real headless browser for tests: Chromium as the system has it, or none and the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# Milliseconds until what should come counts as missing: enough for a loaded machine.
PATIENCE = 90_000
# As root (containers, CI) Chromium refuses its sandbox; the pages are local files of the tests.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def launch() -> Iterator:
    """A Playwright browser; skips the test where there is none, saying what is missing."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="no playwright: pip install -e '.[dev]'"
    )
    named = os.environ.get("HBD3LM_TEST_BROWSER")
    path = named or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: apt install chromium, or set HBD3LM_TEST_BROWSER to its path")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def open_page(context, path: Path):
    """The page, with its errors and everything it asked the network for."""
    page = context.new_page()
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("console", lambda message: page.problems.append(message.text))
    page.on("dialog", lambda dialog: (page.problems.append(dialog.message), dialog.dismiss()))
    page.on(
        "request",
        lambda r: r.url.startswith(("file:", "data:", "blob:")) or page.problems.append(r.url),
    )
    page.goto(path.as_uri())
    return page


# The lowest contrast (WCAG 2) of any enabled element with text of its own against what is behind.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data; };
  const luminance = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92
    : ((c + 0.055) / 1.055) ** 2.4).reduce((s, c, i) => s + c * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = {ratio: 99};
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || node.closest(":disabled, script, kbd, .hidden, .skip, noscript, dialog, [hidden]"))
      continue;
    let behind = node;
    while (behind && rgb(getComputedStyle(behind).backgroundColor)[3] === 0)
      behind = behind.parentElement;
    const [a, b] = [getComputedStyle(node).color,
      behind ? getComputedStyle(behind).backgroundColor : "white"].map((c) => luminance(rgb(c)));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst.ratio) worst = {ratio, text: node.textContent.slice(0, 60), tag: node.tagName,
      css: node.className};
  }
  return worst;
}"""

# Controls that say nothing to a screen reader.
UNNAMED = """() => [...document.querySelectorAll("button, input, select, textarea")]
  .filter((node) => !node.textContent.trim() && !node.getAttribute("aria-label"))
  .filter((node) => !node.labels?.length).map((node) => node.outerHTML)"""
