"""Loss curves: what was logged, and the picture that comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbd3lm.errors import UserError
from hbd3lm.report.loss_figure import draw_loss_figure, read_metrics

PNG = b"\x89PNG\r\n\x1a\n"


def write_log(logs: Path, text: str) -> None:
    (logs / "metrics.csv").write_text(text)


@pytest.fixture
def logs(tmp_path):
    header = "epoch,step,train/plan_loss,train/execution_loss,valid/plan_nelbo\n"
    write_log(tmp_path, header + "0,0,9.0,8.0,\n0,10,7.0,6.5,6.0\n0,20,4.25,4.5,\n")
    return tmp_path


def test_metrics_are_read_column_by_column_and_gaps_left_out(logs):
    assert read_metrics(logs) == {
        "train/plan_loss": [(0, 9.0), (10, 7.0), (20, 4.25)],
        "train/execution_loss": [(0, 8.0), (10, 6.5), (20, 4.5)],
        "valid/plan_nelbo": [(10, 6.0)],
    }


def test_the_figure_is_drawn_from_what_was_logged(logs, tmp_path):
    draw_loss_figure(logs, tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    draw_loss_figure(logs, tmp_path / "loss.svg")
    picture = (tmp_path / "loss.svg").read_text()
    for label in ("plan, train", "plan, valid", "execution, train", "optimiser step"):
        assert label in picture
    assert "execution, valid" not in picture


def test_a_run_without_a_plan_draws_the_execution_alone(tmp_path):
    write_log(tmp_path, "epoch,step,train/execution_loss\n0,0,3.0\n0,1,2.0\n")
    draw_loss_figure(tmp_path, tmp_path / "loss.svg")
    picture = (tmp_path / "loss.svg").read_text()
    assert "execution, train" in picture and "plan, " not in picture


def test_logs_without_metrics_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no CSV logs of a run; train with trainer\.loggers"):
        draw_loss_figure(tmp_path, tmp_path / "loss.png")
