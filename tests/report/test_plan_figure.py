"""The figure is written whole, in the format asked for, and shows what was measured."""

from __future__ import annotations

import pytest

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.errors import UserError
from hbd3lm.plans.quality import PlanMetrics, analyze_examples
from hbd3lm.report.plan_figure import draw_plan_figure
from hbd3lm.report.style import figure_file


def metrics_of(*plans: str) -> PlanMetrics:
    return analyze_examples(
        HierarchicalExample(f"{index}", "", plan, "2 + 3 = 5.\n#### 5" if plan else "", "5")
        for index, plan in enumerate(plans)
    )


@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")]
)
def test_the_suffix_decides_the_format(tmp_path, suffix, magic):
    path = tmp_path / "new" / f"figure.{suffix}"
    draw_plan_figure(metrics_of("Add.", "Add 2."), path)
    assert path.read_bytes().startswith(magic)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_png_has_150_dots_an_inch(tmp_path):
    draw_plan_figure(metrics_of("Add."), tmp_path / "a.png")
    header = (tmp_path / "a.png").read_bytes()[16:24]
    size = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:], "big")
    assert size == (12 * 150, 8.5 * 150)


def test_four_panels_are_labelled_and_the_title_names_file_and_count(tmp_path):
    draw_plan_figure(metrics_of("Add.", "Add 2."), tmp_path / "a.svg", source="runs/plans.json")
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for words in (
        "Plan abstraction · plans.json · n = 2 problems",
        "Number distribution",
        "Math operation distribution",
        "Text length",
        "Plan vs execution numbers",
        "Plan (mean 0.50)",
        "Execution (mean 4.00)",
        "share of texts (%)",
        "mean per text",
        "words",
        "numbers in plan",
        "numbers in execution",
    ):
        assert words in text


@pytest.mark.parametrize(
    "plans",
    [("",), ("Add.",), ("", "Add."), ("7 " * 60, "Add.")],
    ids=lambda plans: f"{plans}"[:20],
)
@pytest.mark.filterwarnings("error")
def test_one_empty_or_extreme_example_still_makes_a_figure(tmp_path, plans):
    draw_plan_figure(metrics_of(*plans), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_the_same_metrics_make_the_same_file(tmp_path):
    metrics = metrics_of("Add.", "Add 2.")
    for suffix in ("pdf", "svg"):
        first, second = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
        draw_plan_figure(metrics, first)
        draw_plan_figure(metrics, second)
        assert first.read_bytes() == second.read_bytes()
        # Two drawings within a second would agree in spite of a date.
        assert b"CreationDate" not in first.read_bytes()
        assert b"<dc:date>" not in first.read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.json"])
def test_an_unknown_suffix_is_refused_with_those_that_work(tmp_path, name):
    with pytest.raises(UserError, match=r"--output_plot.*\.png, \.pdf or \.svg"):
        draw_plan_figure(metrics_of("Add."), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_drawing_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), figure_file(path, (4, 3)):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_plot: cannot write"):
        draw_plan_figure(metrics_of("Add."), tmp_path / "file" / "a.png")


def test_drawing_changes_no_settings_of_the_process(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 23.0, "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        draw_plan_figure(metrics_of("Add."), tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before
