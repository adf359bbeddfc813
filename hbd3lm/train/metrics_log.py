"""One CSV file of metrics for the whole of a run, however often it was interrupted."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from hbd3lm.files import atomic_write


class MetricsLog(Logger):
    """``metrics.csv``: one row for each logged step, replaced as a whole by a longer one.

    Lightning's own logger starts a new file for every sitting. Here a resumed run goes on in the
    file it finds: the rows after its checkpoint are dropped, and what it computes again takes the
    place of what was there.

    Args:
        folder: where the file lies.
        step: the optimiser step the run goes on from; 0 for a new one.
        seconds: unsaved rows wait at most so long.
    """

    def __init__(self, folder: Path, step: int = 0, seconds: float = 30.0) -> None:
        super().__init__()
        self.path, self.seconds = folder / "metrics.csv", seconds
        self._rows: dict[int, dict[str, Any]] = {}
        self._saved, self._unsaved = time.monotonic(), False
        self._read(step)

    @property
    def name(self) -> str:
        return self.path.parent.name

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsLog:
        return self

    @rank_zero_only
    def _read(self, step: int) -> None:
        if not step or not self.path.exists():
            return
        with self.path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if int(row["step"]) <= step:
                    self._rows[int(row["step"])] = {n: v for n, v in row.items() if v}

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in the run's ``config.yaml``."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if step is None:
            raise ValueError("metrics are logged with their step")
        self._rows.setdefault(step, {"step": step}).update(metrics)
        self._unsaved = True

    def save(self) -> None:
        """Lightning calls this after every row; the file is written now and then."""
        if time.monotonic() - self._saved >= self.seconds:
            self.flush()

    @rank_zero_only
    def flush(self) -> None:
        """Write what is not on disk yet."""
        if not self._unsaved:
            return
        names = {name for row in self._rows.values() for name in row}
        columns = ["step", *sorted(names - {"step"})]
        with atomic_write(self.path) as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(row for _, row in sorted(self._rows.items()))
        self._saved, self._unsaved = time.monotonic(), False

    @rank_zero_only
    def finalize(self, status: str) -> None:
        self.flush()
