"""The look of every figure, and the one way to write one.

Figures are built on :class:`matplotlib.figure.Figure` and styled inside a context: pyplot, its
registry of open figures and the process-wide backend and settings stay untouched, so that a
figure can be drawn from a training loop, a notebook or a test alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe & Ito's palette: told apart with any colour vision. Each part of a problem keeps its
# colour in all figures.
COLORS: dict[str, str] = {
    "question": "#009E73",
    "plan": "#0072B2",
    "execution": "#D55E00",
}
CYCLE: tuple[str, ...] = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
INK, MUTED, GRID = "#222222", "#6b6b6b", "#e3e3e3"
DENSITY = "viridis"  # colour map for counts: even steps of lightness, dark to bright
FORMATS: tuple[str, ...] = ("png", "pdf", "svg")
DPI = 150

_SETTINGS = {
    "figure.facecolor": "white",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "hbd3lm",  # the same figure is the same file
    "pdf.fonttype": 42,
}


def figure_format(path: str | Path, what: str = "--output_plot") -> str:
    """The image format the suffix of ``path`` asks for; ``what`` names the flag in the error.

    Raises:
        UserError: the suffix is none of ``FORMATS``.
    """
    suffix = Path(path).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise UserError(
            f"{what}: cannot draw {str(path)!r}; the name must end in "
            + ", ".join(f".{name}" for name in FORMATS[:-1])
            + f" or .{FORMATS[-1]}"
        )
    return suffix


@contextlib.contextmanager
def figure_file(
    path: str | Path, size: tuple[float, float], what: str = "--output_plot"
) -> Iterator[Figure]:
    """Yield a styled, empty figure of ``size`` inches; write it to ``path`` on leaving.

    The file appears whole or not at all, at 150 dots an inch, in the format of its suffix. Its
    bytes depend on what was drawn only, not on the clock.

    Raises:
        UserError: an unknown suffix (before anything is drawn), or ``path`` cannot be written.
    """
    kind = figure_format(path, what)
    import matplotlib
    from cycler import cycler
    from matplotlib.figure import Figure

    dates = {"png": {}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}
    settings = {**_SETTINGS, "axes.prop_cycle": cycler(color=CYCLE)}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with atomic_write(path, "wb", what) as file:
            figure.savefig(file, format=kind, dpi=DPI, metadata=dates[kind])
