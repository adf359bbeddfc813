"""Loss curves of a training run, from its CSV logs."""

from __future__ import annotations

import csv
from pathlib import Path

from hbd3lm.errors import UserError
from hbd3lm.report.style import COLORS, figure_file

SEGMENTS = ("plan", "execution")


def read_metrics(logs: str | Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) pairs of every logged metric, from ``metrics.csv`` in a run's ``logs``."""
    series: dict[str, list[tuple[int, float]]] = {}
    path = Path(logs) / "metrics.csv"
    if path.exists():
        with path.open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        series.setdefault(name, []).append((int(row["step"]), float(value)))
    return series


def draw_loss_figure(logs: str | Path, path: str | Path) -> None:
    """Training and validation loss of plan and execution over steps, in nats per token.

    Raises:
        UserError: ``logs`` holds no metrics of a run.
    """
    metrics = read_metrics(logs)
    if not metrics:
        raise UserError(
            f"run_dir: {logs} holds no CSV logs of a run; train with trainer.loggers=[csv]"
        )
    with figure_file(path, (7, 4.5), "run_dir") as figure:
        axes = figure.add_subplot()
        for segment in SEGMENTS:
            for name, style in (
                (f"train/{segment}_loss", {"alpha": 0.35, "linewidth": 1}),
                (f"valid/{segment}_nelbo", {"marker": "o", "markersize": 3}),
            ):
                if name in metrics:
                    steps, values = zip(*metrics[name])
                    label = f"{segment}, {name.split('/')[0]}"
                    axes.plot(steps, values, color=COLORS[segment], label=label, **style)
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("NELBO (nats per token)")
        axes.set_ylim(bottom=0)
        axes.set_title("Training")
        axes.legend()
