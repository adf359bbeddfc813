"""What every study leaves: tables, a figure, ``metrics.json``, records, and one page of Markdown.

``results/<name>/`` holds ``report.md`` (all that follows, to read), one ``<table>.md``, ``.csv``
and ``.tex`` a table, ``figure.png`` and ``figure.pdf``, ``metrics.json`` (numbers, settings, seeds,
versions, commands) and ``records.jsonl`` (one line a problem and model).
"""

from __future__ import annotations

import csv
import json
import math
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.overrides import override_value
from hbd3lm.experiments.settings import compose, plain
from hbd3lm.experiments.statistics import Estimate
from hbd3lm.files import atomic_write
from hbd3lm.json_values import json_ready

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hbd3lm.experiments.run import Run
    from hbd3lm.experiments.study import Study

PACKAGES = ("hbd3lm", "torch", "lightning", "transformers", "tokenizers", "numpy", "scipy")

Cell = str | int | float | Estimate | None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its head.
        kind: ``text``; ``share`` (0.123 is printed as 12.3 %); ``p`` (a p value); or the digits
            after the point.
    """

    title: str
    kind: str | int = "text"

    def text(self, cell: Cell) -> str:
        """A cell as printed; what is not known is a dash."""
        if isinstance(cell, Estimate):
            value = ("≤ " if cell.is_bound else "") + self.text(cell.value)
            if math.isnan(cell.low):
                return value
            low, high = (self.text(x).removesuffix(" %") for x in (cell.low, cell.high))
            return f"{value} [{low}, {high}]"
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return "-"
        if self.kind == "text" or isinstance(cell, str):
            return str(cell)
        if self.kind == "share":
            return f"{100 * cell:.1f} %"
        if self.kind == "p":
            return "< 0.001" if cell < 0.001 else f"{cell:.3f}"
        return f"{cell:,.{self.kind}f}"


@dataclass(frozen=True)
class Table:
    """A table with its raw values; written as Markdown, CSV and LaTeX.

    Attributes:
        name: of its files.
        note: what a reader must know to read it right.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""

    def _texts(self) -> list[list[str]]:
        return [[c.text(cell) for c, cell in zip(self.columns, row)] for row in self.rows]

    def markdown(self) -> str:
        """A GitHub table under its title."""
        rows = [[c.title for c in self.columns], *self._texts()]
        lines = ["| " + " | ".join(t.replace("|", "\\|") for t in row) + " |" for row in rows]
        align = [":--" if c.kind == "text" else "--:" for c in self.columns]
        lines.insert(1, "|" + "|".join(align) + "|")
        note = f"\n{self.note}\n" if self.note else ""
        return f"**{self.title}**\n\n" + "\n".join(lines) + "\n" + note

    def latex(self) -> str:
        """A ``tabular`` for the booktabs package, with its caption as a comment."""
        align = "".join("l" if c.kind == "text" else "r" for c in self.columns)
        lines = [f"% {self.title}", f"\\begin{{tabular}}{{{align}}}", "\\toprule"]
        lines.append(" & ".join(_latex(c.title) for c in self.columns) + " \\\\")
        lines.append("\\midrule")
        lines += [" & ".join(map(_latex, row)) + " \\\\" for row in self._texts()]
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"]) + "\n"

    def write(self, folder: Path) -> None:
        """The three files; the CSV has unrounded values, an estimate in three columns.

        Where one of a column's is a bound, a fourth tells which are.
        """
        for suffix, text in (("md", self.markdown()), ("tex", self.latex())):
            with atomic_write(folder / f"{self.name}.{suffix}") as file:
                file.write(text)
        cells = [[row[i] for row in self.rows] for i in range(len(self.columns))]
        wide = [any(isinstance(cell, Estimate) for cell in column) for column in cells]
        bounds = [any(getattr(cell, "is_bound", False) for cell in column) for column in cells]
        with atomic_write(folder / f"{self.name}.csv") as file:
            writer = csv.writer(file, lineterminator="\n")
            head: list[str] = []
            for column, three, bound in zip(self.columns, wide, bounds):
                more = [f"{column.title} low", f"{column.title} high"] if three else []
                head += [column.title, *more, *([f"{column.title} is bound"] if bound else [])]
            writer.writerow(head)
            for row in self.rows:
                line: list[Any] = []
                for cell, three, bound in zip(row, wide, bounds):
                    is_bound = None
                    if isinstance(cell, Estimate):
                        found = cell.to_dict()
                        line += [found["value"], found["low"], found["high"]]
                        is_bound = cell.is_bound
                    else:
                        line += [cell, None, None] if three else [cell]
                    line += [is_bound] if bound else []
                writer.writerow(line)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        rows = [
            {column.title: json_ready(cell) for column, cell in zip(self.columns, row)}
            for row in self.rows
        ]
        return {"title": self.title, "note": self.note, "rows": rows}


@dataclass
class Results:
    """What an experiment has found.

    Attributes:
        tables: in the order of reading.
        draw: draws the figure.
        figure_size: in inches.
        findings: sentences that the intervals carry, and those they do not.
        metrics: further numbers for ``metrics.json``.
        records: one dictionary a problem and model.
        runs: what was trained.
        modes: of ``main.py`` whose commands are to be printed, with their further settings.
    """

    tables: list[Table]
    draw: Callable[[Figure], None]
    findings: list[str]
    figure_size: tuple[float, float] = (10, 4.5)
    metrics: dict[str, Any] = field(default_factory=dict)
    records: list[dict[str, Any]] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    modes: tuple[str, ...] = ("train", "ppl_eval", "sample_eval")


def write_results(study: Study, results: Results) -> Path:
    """Write everything into the study's folder; the path of ``report.md``."""
    from hbd3lm.report.style import figure_file

    folder = study.folder
    for table in results.tables:
        table.write(folder)
    for kind in ("png", "pdf"):
        with figure_file(folder / f"figure.{kind}", results.figure_size, "figure") as figure:
            results.draw(figure)
    with atomic_write(folder / "records.jsonl") as file:
        for record in results.records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    metrics = {
        "experiment": study.name,
        "command": command_of(study),
        "settings": plain(study.settings),
        "config": plain(compose([*study.base, *study.data])),
        "seeds": study.seeds,
        "versions": versions(),
        "findings": results.findings,
        "tables": {table.name: table.to_dict() for table in results.tables},
        **results.metrics,
        "commands": {
            run.name: [run.command(mode) for mode in results.modes] for run in results.runs
        },
    }
    with atomic_write(folder / "metrics.json") as file:
        json.dump(json_ready(metrics), file, indent=2, ensure_ascii=False)
        file.write("\n")
    report = folder / "report.md"
    with atomic_write(report) as file:
        file.write(_report(study, results))
    return report


def command_of(study: Study) -> str:
    """The line that makes the study again, with all its settings."""
    import shlex

    usual = plain(compose([f"experiment={study.name}"]).experiment)
    if study.settings.smoke:
        usual |= usual["smoke_size"]
    given = {
        key: value
        for key, value in plain(study.settings).items()
        if key not in ("settings", "smoke_size") and value != usual.get(key)
    }
    for key, value in list(given.items()):
        if isinstance(value, dict):  # an entry that was added or changed is a setting of its own
            del given[key]
            for name, entry in value.items():
                if name not in usual[key]:
                    given[f"+{key}.{name}"] = entry
                elif entry != usual[key][name]:
                    given[f"{key}.{name}"] = entry
    mine = [
        f"{'+' * key.startswith('+')}experiment.{key.lstrip('+')}={override_value(value)}"
        for key, value in given.items()
    ]
    words = ["mode=experiment", f"experiment={study.name}", *mine, *study.given]
    return shlex.join(["python", "main.py", *words])


def versions() -> dict[str, str | None]:
    """Of Python, the packages that numbers depend on, and the working tree."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    here = Path(__file__).resolve().parent
    try:
        asked = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            check=False,
        )
        found["commit"] = asked.stdout.strip() or None
    except FileNotFoundError:  # no git: an installed package
        found["commit"] = None
    return found


def _report(study: Study, results: Results) -> str:
    parts = [f"# {study.name}", f"```bash\n{command_of(study)}\n```"]
    parts += ["\n".join(f"- {finding}" for finding in results.findings)] if results.findings else []
    parts += [table.markdown() for table in results.tables]
    parts.append("![figure](figure.png)")
    parts.append("Settings, seeds, versions and the commands of every run: `metrics.json`.")
    return "\n\n".join(parts) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
          "<": r"\textless{}", ">": r"\textgreater{}", "→": r"$\to$", "≤": r"$\le$",
          "±": r"$\pm$"}  # fmt: skip


def _latex(text: str) -> str:
    text = re.sub(r"[\\~^<>→≤±]|[&%$#_{}]", lambda m: _LATEX.get(m[0], "\\" + m[0]), text)
    return text
