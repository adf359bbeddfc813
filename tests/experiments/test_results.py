"""What a study leaves: tables in three spellings, JSON without NaN, one page."""

from __future__ import annotations

import csv
import json
import math
import shlex

import pytest

from hbd3lm.experiments.results import Column, Results, Table, command_of, write_results
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.statistics import Estimate
from hbd3lm.experiments.study import Study

TABLE = Table(
    "scores",
    "Scores & more",
    [Column("model"), Column("right", "share"), Column("p", "p"), Column("nats", 2)],
    [
        ["a_b | 50%", Estimate(0.5, 0.25, 0.75), 0.0004, Estimate(1.234, is_bound=True)],
        ["c → d", 1.0, 0.25, Estimate(2.0, 1.5, math.inf)],
        ["nothing", None, math.nan, None],
    ],
    "All of it.",
)


def test_a_table_in_markdown():
    assert TABLE.markdown() == (
        "**Scores & more**\n\n"
        "| model | right | p | nats |\n"
        "|:--|--:|--:|--:|\n"
        "| a_b \\| 50% | 50.0 % [25.0, 75.0] | < 0.001 | ≤ 1.23 |\n"
        "| c → d | 100.0 % | 0.250 | 2.00 [1.50, inf] |\n"
        "| nothing | - | - | - |\n"
        "\nAll of it.\n"
    )


def test_a_table_in_latex_escapes_what_latex_reads_as_commands():
    assert TABLE.latex() == (
        "% Scores & more\n"
        "\\begin{tabular}{lrrr}\n"
        "\\toprule\n"
        "model & right & p & nats \\\\\n"
        "\\midrule\n"
        "a\\_b | 50\\% & 50.0 \\% [25.0, 75.0] & \\textless{} 0.001 & $\\le$ 1.23 \\\\\n"
        "c $\\to$ d & 100.0 \\% & 0.250 & 2.00 [1.50, inf] \\\\\n"
        "nothing & - & - & - \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("a_b", r"a\_b"),
        ("#1 & 2", r"\#1 \& 2"),
        ("{x}", r"\{x\}"),
        ("$5", r"\$5"),
        ("x\\y", r"x\textbackslash{}y"),
        ("2^3 ~ 8", r"2\textasciicircum{}3 \textasciitilde{} 8"),
        ("±1 ≤ 2", r"$\pm$1 $\le$ 2"),
    ],
)
def test_every_sign_of_latex_is_escaped_once(plain, escaped):
    latex = Table("t", "", [Column("m")], [[plain]]).latex()
    assert latex.splitlines()[5] == f"{escaped} \\\\"


def test_a_table_in_csv_has_unrounded_values_an_estimate_in_three_columns_and_marks_bounds(
    tmp_path,
):
    TABLE.write(tmp_path)
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == [
        "model", "right", "right low", "right high", "p", "nats", "nats low", "nats high",
        "nats is bound",
    ]  # fmt: skip
    assert rows == [
        ["a_b | 50%", "0.5", "0.25", "0.75", "0.0004", "1.234", "", "", "True"],
        ["c → d", "1.0", "", "", "0.25", "2.0", "1.5", "inf", "False"],
        ["nothing", "", "", "", "nan", "", "", "", ""],
    ]
    assert (tmp_path / "scores.md").read_text(encoding="utf-8") == TABLE.markdown()
    assert (tmp_path / "scores.tex").read_text(encoding="utf-8") == TABLE.latex()


def test_a_table_in_json_has_no_nan_and_no_infinity_and_knows_its_bounds():
    rows = TABLE.to_dict()["rows"]
    assert json.loads(json.dumps(rows, allow_nan=False))[2] == {
        "model": "nothing", "right": None, "p": None, "nats": None
    }  # fmt: skip
    assert rows[0]["nats"] == {"value": 1.234, "low": None, "high": None, "is_bound": True}
    assert rows[1]["nats"] == {"value": 2.0, "low": 1.5, "high": None}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "train file.json"
    path.write_text(
        '[{"id": "1", "question": "One and one?", "plan": "Add.", "execution": "1+1=2\\n#### 2", '
        '"answer_numerical": "2"}]',
        encoding="utf-8",
    )
    overrides = [
        f"experiment.output_dir='{tmp_path / 'results' / 'x y'}'",
        "experiment.seeds=[7,8]",
        "experiment.arms=[shared]",
        f"data.train_path='{path}'",
        f"data.test_path='{path}'",
        "model=nano",
    ]
    study = Study.open("abstraction", overrides)
    results = Results(
        tables=[TABLE],
        draw=lambda figure: figure.subplots().plot([1, 2]),
        findings=["Nothing was found."],
        metrics={"extra": math.nan},
        records=[{"model": "a", "id": "1"}, {"model": "a", "id": "2"}],
        runs=[study.run("shared", ["hierarchical.modules=shared"], 7)],
        modes=("train",),
    )
    return study, write_results(study, results)


def test_a_study_leaves_tables_figures_numbers_records_and_a_page(written):
    study, report = written
    names = {path.name for path in study.folder.iterdir()}
    assert names == {
        "report.md", "scores.md", "scores.csv", "scores.tex", "figure.png", "figure.pdf",
        "metrics.json", "records.jsonl",
    }  # fmt: skip
    assert (study.folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (study.folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    text = report.read_text(encoding="utf-8")
    assert TABLE.markdown() in text and "- Nothing was found." in text
    records = (study.folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in records] == ["1", "2"]


def test_metrics_hold_settings_seeds_versions_and_the_commands_of_every_run(written):
    study, _ = written
    metrics = json.loads((study.folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["seeds"] == [7, 8]
    assert metrics["config"]["model"]["name"] == "nano"
    assert metrics["settings"]["arms"] == ["shared"]
    assert metrics["extra"] is None
    assert metrics["tables"]["scores"]["rows"][0]["right"]["low"] == 0.25
    assert {"python", "torch", "numpy", "hbd3lm", "commit"} <= set(metrics["versions"])
    (command,) = metrics["commands"]["shared-seed7"]
    assert command.startswith("python main.py mode=train ")
    assert "seed=7" in command and "hierarchical.modules=shared" in command


@pytest.mark.parametrize(
    ("name", "overrides", "smoke"),
    [
        ("abstraction", ["experiment.seeds=[7,8]", "model=tiny", "eval.samples=3"], False),
        ("abstraction", ["experiment.output_dir='a b/c'", "experiment.arms=[shared]"], True),
        # The user's settings that happen to be the experiment's own were once left out.
        ("transfer", ["data=laboratory", "data.max_steps=3", "data.largest_number=60"], False),
        (
            "comparison",
            [
                '+experiment.arms.mine=["algo=flat","block_size=2"]',
                'experiment.arms.flat=["algo=flat"]',
                "experiment.contrasts=[[flat,mine]]",
                "data=svamp",
            ],
            False,
        ),
    ],
)
def test_the_printed_command_makes_the_same_study_again(name, overrides, smoke):
    study = Study.open(name, overrides, smoke)
    words = shlex.split(command_of(study))
    assert words[:4] == ["python", "main.py", "mode=experiment", f"experiment={name}"]
    again = Study.open(name, words[4:])
    assert again.settings == study.settings
    assert compose(again.base) == compose(study.base)
