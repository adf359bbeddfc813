"""A real headless browser for tests: Chromium as the system has it, or none and the reason."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
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
