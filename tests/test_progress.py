"""A line now and then where there is no terminal, a bar where there is one."""

from __future__ import annotations

import pytest

from hbd3lm import progress
from hbd3lm.progress import Progress, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute_with_what_is_left(clock):
    lines = []
    with Progress("scoring", 10, "batches", done=2, bar=False, say=lines.append) as count:
        for _ in range(8):
            clock[0] += 45
            count.advance()
    # 45 s each, first heard of after 90 s: 6 are left, then 4, then 2; the end needs no line.
    assert lines == [
        "scoring: 4 of 10 batches, about 4 min left",
        "scoring: 6 of 10 batches, about 3 min left",
        "scoring: 8 of 10 batches, about 2 min left",
    ]


def test_time_that_passes_with_nothing_done_is_told_without_a_guess(clock):
    lines = []
    with Progress("planning", 3, "problems", bar=False, say=lines.append) as count:
        clock[0] += 61
        count.advance(0)
    assert lines == ["planning: 0 of 3 problems"]


def test_track_gives_every_item_and_quick_work_says_nothing(capsys):
    assert list(track(range(5), "scoring", "batches")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # for rich: as if it were one
    with Progress("scoring", 2, "batches", bar=True) as count:
        count.advance()
        count._bar.refresh()
    assert "scoring" in capsys.readouterr().err
