"""The analysis command: what it prints, writes and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hbd3lm.commands.analyze_plans import main
from hbd3lm.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "analysis" / "analyze_gsm8k_plans.py"
GOOD = ("Add the two amounts. Then divide the sum.", "2 + 4 = 6. 6/3 = 2.\n#### 2")
BAD = ("Compute 2 + 4 = 6, then 6/3 = 2.", "2 + 4 = 6. 6/3 = 2.\n#### 2")


def row(id_: str, texts: tuple[str, str], **extra: object) -> dict[str, object]:
    plan, execution = texts
    return {
        "id": id_,
        "question": f"What is {id_}?",
        "plan": plan,
        "execution": execution,
        "answer_numerical": "2",
        **extra,
    }


@pytest.fixture
def data(tmp_path) -> Path:
    """Three examples: two abstract plans and one with six numbers."""
    path = tmp_path / "data.json"
    path.write_text(json.dumps([row("a", GOOD), row("b", BAD), row("c", GOOD)]))
    return path


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_report_holds_every_table(data, tmp_path, capsys):
    assert run("--data_path", data, "--output_plot", tmp_path / "plot.png") == 0
    printed = capsys.readouterr().out
    for words in (
        "3 examples",
        "numbers in words",
        "Plan: 2.00 numbers",
        "Exec: 7.00 numbers",
        "Ratio: 3.50x",
        "Too concrete (>5 numbers)",
        "Perfect (0 numbers)",
        "45%-55%",
        "✓ PASS",
        "✗ FAIL",
        "final answer",
        "3 sample problems",
        "Worst offenders",
        f"written: {tmp_path / 'plot.png'}",
        f"written: {tmp_path / 'plot.json'}",
    ):
        assert words in printed
    assert "\x1b" not in printed  # no colour codes where there is no terminal


def test_counts_stand_beside_their_category(data, tmp_path, capsys):
    run("--data_path", data, "--output_plot", tmp_path / "plot.png")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Too", "concrete", "(>5", "numbers)", "1", "33.3%", "<5%"] in lines
    assert ["Perfect", "(0", "numbers)", "2", "66.7%", "45%-55%"] in lines


def test_the_json_holds_the_metrics_and_goes_where_asked(data, tmp_path):
    out = tmp_path / "metrics.json"
    run("--data_path", data, "--no_plot", "--output_json", out)
    report = json.loads(out.read_text())
    assert report["examples"] == 3
    assert report["exec_plan_ratio"] == 3.5
    assert report["thresholds"]["too_concrete"]["passed"] is False
    assert report["answer_leakage"]["ids_in_digits"] == ["b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "metrics.json"]


def test_strict_alone_turns_a_missed_threshold_into_status_1(data, tmp_path):
    arguments = ("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    assert run(*arguments) == 0
    assert run(*arguments, "--strict") == 1
    data.write_text(json.dumps([row("a", GOOD)]))
    assert run(*arguments, "--strict") == 0


def test_plans_without_numbers_have_no_finite_ratio(data, tmp_path, capsys):
    data.write_text(json.dumps([row("a", GOOD)]))
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    printed = capsys.readouterr().out
    assert "Ratio: inf (plans hold no numbers)\n" in printed
    assert "none: no plan holds a number in digits" in printed


def test_numbers_of_a_printed_plan_are_marked(data, tmp_path, capsys):
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    printed = capsys.readouterr().out
    assert "Compute «2» + «4» = «6», then «6»/«3» = «2»." in printed
    assert "Add the «two» amounts." in printed
    assert "b · Too concrete (>5 numbers)" in printed


def test_as_many_samples_as_asked_and_the_seed_chooses_them(data, tmp_path, capsys):
    data.write_text(json.dumps([row(f"id{index}", GOOD) for index in range(40)]))

    def printed(*arguments: object) -> str:
        run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json", *arguments)
        return capsys.readouterr().out

    assert printed("--num_samples", 3).count("Question:") == 3
    assert printed("--num_samples", 0).count("Question:") == 0
    assert printed("--num_samples", 99).count("Question:") == 40
    assert printed("--seed", 1) == printed("--seed", 1)
    assert printed("--seed", 1) != printed("--seed", 2)


def test_json_lines_and_evaluation_records_are_read(tmp_path, capsys):
    path = tmp_path / "records.jsonl"
    rows = [row("a", GOOD, correct=True, nfe=12), row("b", BAD, correct=False, nfe=9)]
    path.write_text("\n".join(json.dumps(record) for record in rows))
    assert run("--data_path", path, "--no_plot", "--output_json", tmp_path / "m.json") == 0
    assert "2 examples" in capsys.readouterr().out


def test_empty_plans_are_announced(data, tmp_path, capsys):
    data.write_text(json.dumps([row("a", GOOD), row("gone", ("", "1"))]))
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    printed = capsys.readouterr().out
    assert "warning: plans without text: 1 (gone)" in printed
    assert "Empty (no plan)" in printed


def test_empty_texts_are_warned_of_and_plans_without_any_text_refused(tmp_path, capsys):
    """They were measured in silence, to means of nothing."""
    path, flags = tmp_path / "data.json", ("--output_plot", tmp_path / "plot.png", "--no_page")
    path.write_text(json.dumps([row("a", GOOD), row("b", ("", " ")), row("c", ("\n", "#### 2"))]))
    assert run("--data_path", path, *flags) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"warning: --data_path {path}: empty {what} of 3 records, the first is 'b'; fill "
        "them in or leave them out"
        for what in ("plan in 2", "execution in 1")
    ]
    other = tmp_path / "other.json"
    other.write_text(json.dumps([row("a", ("", "#### 2")), row("b", (" ", "#### 2"))]))
    with pytest.raises(UserError, match=r"--data_path .*: the plan is empty in all 2 records"):
        run("--data_path", other, *flags)
    with pytest.raises(UserError, match=r"--compare .*: the plan is empty in all 2 records"):
        run("--data_path", path, "--compare", other, *flags)


def test_text_that_looks_like_markup_is_printed_as_it_is(data, tmp_path, capsys):
    data.write_text(json.dumps([row("[bold]x", ("Add [red]it[/red] [/]", "[/b] 1"))]))
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    printed = capsys.readouterr().out
    assert "[bold]x" in printed and "Add [red]it[/red] [/]" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data_path", "missing.json"), "--data_path: no such file"),
        (("--data_path", "data.json", "--output_plot", "a.jpg"), "--output_plot: cannot draw"),
        (("--data_path", "data.json", "--output_plot", "data.png"), "--output_json: data.json is"),
        (("--data_path", "data.json", "--output_json", "data.json/x"), "cannot write"),
    ],
)
def test_bad_input_is_named_and_the_data_survive(data, monkeypatch, arguments, message):
    monkeypatch.chdir(data.parent)
    before = data.read_text()
    with pytest.raises(UserError, match=message):
        run(*arguments)
    assert data.read_text() == before
    assert list(data.parent.iterdir()) == [data]


@pytest.mark.parametrize("count", ["-1", "x"])
def test_a_number_of_samples_that_is_none_is_refused(data, capsys, count):
    with pytest.raises(SystemExit):
        run("--data_path", data, "--num_samples", count)
    message = f"--num_samples: '{count}' is no whole number of 0 or more"
    assert message in capsys.readouterr().err


def test_the_script_reports_an_error_without_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--data_path", tmp_path / "none.json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: --data_path: no such file")
    assert len(done.stderr.splitlines()) == 1


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from hbd3lm.commands.analyze_plans import build_parser\n"
        "build_parser().format_help()\n"
        "print({'numpy', 'matplotlib', 'rich', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n"


def test_the_page_lies_beside_the_figure_unless_told_otherwise(data, tmp_path):
    def written(*arguments: object) -> list[str]:
        out = tmp_path / "out"
        out.mkdir()
        run("--data_path", data, "--output_plot", out / "plot.png", *arguments)
        names = sorted(path.name for path in out.iterdir())
        for path in out.iterdir():
            path.unlink()
        out.rmdir()
        return names

    assert written() == ["plot.html", "plot.json", "plot.png"]
    assert written("--no_page") == ["plot.json", "plot.png"]
    assert written("--no_plot") == ["plot.json"]
    page = tmp_path / "out" / "page.html"
    assert written("--no_plot", "--output_page", page) == ["page.html", "plot.json"]


def test_the_page_holds_its_figure_even_where_none_is_drawn(data, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "m.json"
    run("--data_path", data, "--no_plot", "--output_page", page, "--output_json", out)
    assert "data:image/png;base64,iVBOR" in page.read_text(encoding="utf-8")


def test_semantics_are_printed_and_written(data, tmp_path, capsys):
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json")
    semantics = json.loads((tmp_path / "m.json").read_text())["semantics"]
    assert semantics["diversity"]["plans"] == 3
    assert "operations as in the solution" in capsys.readouterr().out


def test_a_second_file_is_compared_in_table_and_json(data, tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text(json.dumps([row("a", BAD), row("b", BAD), row("x", GOOD)]))
    run("--data_path", data, "--no_plot", "--output_json", tmp_path / "m.json", "--compare", other)
    comparison = json.loads((tmp_path / "m.json").read_text())["comparison"]
    assert comparison["compare"] == str(other)
    assert (comparison["paired"], comparison["common"], comparison["only_other"]) == (True, 2, 1)
    # Of a and b: one of two plans here, both there have more than five numbers.
    assert comparison["measures"]["too_concrete"]["difference"] == -0.5
    assert comparison["other_thresholds"]["too_concrete"]["passed"] is False
    assert "paired bootstrap over the 2 problems of both files" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output_page", "data.json"), "--output_page: data.json is the data itself"),
        (("--output_page", "a.json", "--output_json", "a.json"), "is --output_json, too"),
        (("--output_page", "a.html", "--no_page"), "contradict each other"),
        (("--compare", "missing.json"), "--compare: no such file"),
        (("--compare", "b.json", "--output_json", "b.json"), "--output_json: b.json is the data"),
    ],
)
def test_pages_and_comparisons_that_cannot_be_are_refused(data, monkeypatch, arguments, message):
    monkeypatch.chdir(data.parent)
    with pytest.raises(UserError, match=message):
        run("--data_path", "data.json", "--no_plot", *arguments)
    assert list(data.parent.iterdir()) == [data]


def test_no_output_replaces_another_plan_file(tmp_path, data):
    """A figure named like a plan file would have put its metrics over the plans."""
    plans = tmp_path / "gsm8k_hierarchical_train.json"
    plans.write_text("plans")
    plans.with_name(plans.name + ".manifest.json").write_text("{}")
    for flags in (["--output_plot", str(plans.with_suffix(".png"))], ["--output_page", str(plans)]):
        with pytest.raises(UserError, match="holds plans; choose another name"):
            main(["--data_path", str(data), *flags])
    assert plans.read_text() == "plans"
