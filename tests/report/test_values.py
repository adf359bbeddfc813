"""Values as texts."""

from __future__ import annotations

import math

from hbd3lm.report.values import duration, number, percent


def test_figures_are_written_one_way():
    assert [percent(0.715), percent(None), percent(math.nan), percent(0.00123, 2)] == [
        "71.5%",
        "-",
        "-",
        "0.12%",
    ]
    assert [number(1234.5), number(None), number(math.nan), number(2, 0)] == [
        "1,234.50",
        "-",
        "-",
        "2",
    ]
    assert [duration(s) for s in (0.04, 59.94, 75, 3600)] == [
        "0.0 s",
        "59.9 s",
        "1 min 15 s",
        "60 min 0 s",
    ]
