"""Values as texts, for tables, pages and printing; what was not measured is a dash."""

from __future__ import annotations

import math


def percent(share: float | None, decimals: int = 1) -> str:
    """``0.715`` -> ``71.5%``; None and NaN -> ``-``."""
    return "-" if share is None or math.isnan(share) else f"{share:.{decimals}%}"


def number(value: float | None, decimals: int = 2) -> str:
    """``1234.5`` -> ``1,234.50``; None and NaN -> ``-``."""
    return "-" if value is None or math.isnan(value) else f"{value:,.{decimals}f}"


def duration(seconds: float) -> str:
    """``75`` -> ``1 min 15 s``; below a minute with one decimal."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
