"""The four-panel figure of the plan analysis."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hbd3lm.errors import printable
from hbd3lm.report.style import COLORS, DENSITY, INK, MUTED, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hbd3lm.plans.quality import PlanMetrics, TextMetrics

# The two texts in the order and colour of all panels.
_PARTS = (("plan", "Plan"), ("execution", "Execution"))
# Bars of the histogram; the few texts with more numbers share the last one.
_MAX_BINS = 30
_TOO_CONCRETE = 5.5  # between 5 and 6 numbers
_TARGET_RATIO = 3
_COUNT_TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)


def draw_plan_figure(metrics: PlanMetrics, path: str | Path, source: str = "") -> None:
    """Draw how numbers, operations and lengths differ between plans and executions.

    Panels: histogram of numbers, operations by kind, boxplot of lengths, scatter of numbers in
    plan and execution. Blank texts are left out, as in the metrics.

    Args:
        metrics: of :func:`hbd3lm.plans.quality.analyze_examples`.
        path: written whole or not at all; ends in ``.png``, ``.pdf`` or ``.svg``.
        source: the file analysed, for the title.

    Raises:
        UserError: ``path`` has another suffix or cannot be written.
    """
    with figure_file(path, size=(12, 8.5)) as figure:
        title = "Plan abstraction" + (f" · {_plain(Path(source).name)}" if source else "")
        problems = "problem" if len(metrics) == 1 else "problems"
        title += f" · n = {len(metrics):,} {problems}"
        figure.suptitle(title, fontsize=14, fontweight="bold")
        (numbers, operations), (lengths, scatter) = figure.subplots(2, 2)
        _draw_numbers(numbers, metrics)
        _draw_operations(operations, metrics)
        _draw_lengths(lengths, metrics)
        _draw_scatter(scatter, metrics)


def _plain(text: str) -> str:
    """``text`` as matplotlib shows it: a dollar sign begins no formula."""
    return printable(text).replace("$", r"\$")


def _draw_numbers(ax: Axes, metrics: PlanMetrics) -> None:
    """Share of texts with 0, 1, 2, ... numbers; everything from the last bar on in one."""
    counts = {name: _filled(metrics, name, "numbers") for name, _ in _PARTS}
    top = min(max(values.max(initial=0) for values in counts.values()), _MAX_BINS)
    positions = np.arange(top + 1)
    for (name, label), shift in zip(_PARTS, (-0.21, 0.21)):
        values = counts[name]
        shares = np.bincount(np.minimum(values, top), minlength=top + 1) / max(len(values), 1)
        mean = f"mean {values.mean():.2f}" if len(values) else "none filled"
        ax.bar(positions + shift, 100 * shares, 0.42, color=COLORS[name], label=f"{label} ({mean})")
    if top > _TOO_CONCRETE:
        label = "further right: too concrete for a plan"
        ax.axvline(_TOO_CONCRETE, 0, 0.8, color=MUTED, linestyle=":", linewidth=1.4, label=label)
    step = max(1, -(-top // 10))
    ticks = positions[::step]
    clipped = any((values > top).any() for values in counts.values())
    if clipped and ticks[-1] != top:
        ticks = np.append(ticks, top)
    ax.set_xticks(ticks, [f"≥{tick}" if clipped and tick == top else f"{tick}" for tick in ticks])
    ax.set(
        title="Number distribution",
        xlabel="numbers in digits per text",
        ylabel="share of texts (%)",
    )
    _leave_room(ax)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right")


def _draw_operations(ax: Axes, metrics: PlanMetrics) -> None:
    """Mean count of each operation, words and signs together."""
    kinds = list(metrics.plan.operations)
    positions = np.arange(len(kinds))
    for (name, label), shift in zip(_PARTS, (-0.2, 0.2)):
        text: TextMetrics = getattr(metrics, name)
        means = np.nan_to_num([text.mean(text.operations[kind]) for kind in kinds])
        bars = ax.bar(positions + shift, means, 0.38, color=COLORS[name], label=label)
        ax.bar_label(bars, fmt="%.2f", padding=2, fontsize=9, color=INK)
    ax.set_xticks(positions, kinds)
    ax.set(
        title="Math operation distribution",
        xlabel="operation (words and signs)",
        ylabel="mean per text",
    )
    _leave_room(ax)
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper right")


def _draw_lengths(ax: Axes, metrics: PlanMetrics) -> None:
    """Box: middle half and median; whiskers: 5th to 95th percentile; dots: the rest."""
    values = [_filled(metrics, name, "words") for name, _ in _PARTS]
    boxes = ax.boxplot(
        values,
        whis=(5, 95),
        widths=0.45,
        patch_artist=True,
        medianprops={"color": INK, "linewidth": 2},
        whiskerprops={"color": MUTED},
        capprops={"color": MUTED},
        flierprops={
            "marker": "o",
            "markersize": 3,
            "markerfacecolor": MUTED,
            "markeredgecolor": "none",
            "alpha": 0.25,
            "rasterized": True,
        },
    )
    for position, (name, _) in enumerate(_PARTS):
        boxes["boxes"][position].set(facecolor=COLORS[name], edgecolor=COLORS[name])
        if len(values[position]):
            median = np.median(values[position])
            ax.annotate(
                f"median {median:g}",
                (position + 1.225, median),
                (6, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    ax.set_xticks([1, 2], [label for _, label in _PARTS])
    _leave_room(ax, 1.05)
    ax.set(
        title="Text length",
        xlabel="box: quartiles · whiskers: 5th and 95th percentile",
        ylabel="words",
    )
    ax.grid(axis="x", visible=False)


def _draw_scatter(ax: Axes, metrics: PlanMetrics) -> None:
    """One dot per problem, shaken within its cell and coloured by how many share the cell."""
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import MaxNLocator

    both = metrics.plan.filled & metrics.execution.filled
    pairs = np.stack([metrics.plan.numbers[both], metrics.execution.numbers[both]], axis=1)
    ax.set(
        title="Plan vs execution numbers",
        xlabel="numbers in plan (dots shaken by up to 0.35)",
        ylabel="numbers in execution",
    )
    if not len(pairs):
        ax.text(0.5, 0.5, "no problem with both texts", ha="center", transform=ax.transAxes)
        return
    _, cell, sizes = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    together = sizes[cell.reshape(-1)]
    shaken = pairs + np.random.default_rng(metrics.seed).uniform(-0.35, 0.35, pairs.shape)
    dots = ax.scatter(
        *shaken.T,
        c=together,
        s=9 if len(pairs) > 300 else 25,
        cmap=DENSITY,
        norm=LogNorm(1, max(together.max(), 2)),
        linewidths=0,
        rasterized=True,  # thousands of dots would swell a PDF or SVG
    )
    if together.max() > 1:
        ticks = [tick for tick in _COUNT_TICKS if tick <= together.max()]
        bar = ax.figure.colorbar(dots, ax=ax, pad=0.02, ticks=ticks, format="%d")
        bar.minorticks_off()
        bar.set_label("problems with the same two counts")
        bar.outline.set_visible(False)
    label = f"execution = {_TARGET_RATIO} × plan"
    ax.axline((0, 0), slope=_TARGET_RATIO, color=MUTED, linestyle="--", linewidth=1.4, label=label)
    right, top = max(pairs[:, 0].max(), 2) + 0.8, max(pairs[:, 1].max(), 6) * 1.05 + 0.5
    ax.set(xlim=(-0.8, right), ylim=(-0.8, top))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    # Problems below the line are few and the corner farthest from it holds fewest.
    ax.legend(loc="lower right")


def _leave_room(ax: Axes, factor: float = 1.25) -> None:
    """Start the y axis at 0 and end it above what is drawn, so that a legend fits."""
    top = ax.dataLim.y1
    ax.set_ylim(0, factor * top if top > 0 else 1)


def _filled(metrics: PlanMetrics, name: str, values: str) -> np.ndarray:
    text: TextMetrics = getattr(metrics, name)
    return getattr(text, values)[text.filled]
