"""Abstraction: what is said of a ratio that may not exist, and the whole of it in small."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

from hbd3lm.commands import experiment
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.experiments.abstraction import _counts, _findings, _measure, _ratio_in_words
from hbd3lm.experiments.statistics import Estimate
from hbd3lm.plans.quality import analyze_examples

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (Estimate(5.0, 4.0, 7.0), "is 5.0 (from 4.0 to 7.0), above 3 beyond doubt"),
        (Estimate(5.0, 2.0, 7.0), "is 5.0 (from 2.0 to 7.0), not above 3 beyond doubt"),
        (Estimate(20.0, 9.0, INF), "is 20.0 (from 9.0 up), above 3 beyond doubt"),
        (Estimate(INF, INF, INF), "no plan holds a number, so that the exec/plan ratio has no"),
        (Estimate(NAN), "neither plans nor executions hold a number"),
        (Estimate(2.0), "is 2.0, of too few texts to say how sure that is"),
    ],
)  # fmt: skip
def test_a_ratio_is_told_with_what_is_known_of_it(ratio, words):
    sentence = _ratio_in_words(ratio)
    assert words in sentence
    assert "inf" not in sentence.replace("in these", "") and "nan" not in sentence


def texts(*plans: str, execution: str = "1+1=2\n#### 2") -> list[HierarchicalExample]:
    return [HierarchicalExample(str(i), "?", p, execution, "2") for i, p in enumerate(plans)]


def test_numbers_are_those_of_the_texts_over_all_seeds():
    """Two seeds of two plans: 0, 1, 0 and 3 numbers; 4 numbers in every execution."""
    groups = [texts("Add.", "Add 5."), texts("Add.", "Add 1 and 2 and 3.")]
    measured = [analyze_examples(group, resamples=2) for group in groups]
    counts = _counts(measured)
    assert counts["plan"].tolist() == [[0, 1], [0, 3]]
    row = _measure(measured)
    assert row["plan"].value == 1.0
    assert row["execution"].value == 4.0
    assert row["ratio"].value == 4.0
    assert row["free"].value == 0.5


@pytest.mark.parametrize(
    ("own", "gold", "verdict"),
    [
        (3, 0, "more numbers than the gold plans"),
        (0, 3, "fewer numbers than the gold plans"),
        (1, 1, "no measurable difference"),
    ],
)
def test_plans_are_called_more_concrete_only_where_the_interval_is(own, gold, verdict):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2, size=(2, 40))
    row = {"ratio": Estimate(4.0, 3.5, 5.0)}
    (sentence,) = _findings("own", row, {"plan": own + noise}, {"plan": gold + noise[:1]})
    assert verdict in sentence


def test_abstraction_in_small_counts_what_its_records_hold(data_dir, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(data_dir))
    command = [
        "mode=experiment", "experiment=abstraction", "experiment.smoke=true",
        f"experiment.output_dir={tmp_path / 'results' / 'small'}", "eval.num_examples=3",
        "data.num_train=20", "training.max_steps=2", "training.valid_every=2", "model.dim=32",
        "model.n_layers=1", "training.hierarchical.plan_len=16",
        "training.hierarchical.exec_len=16", "trainer.accelerator=cpu",
    ]  # fmt: skip
    experiment.run_mode(command)
    folder = tmp_path / "results" / "small"
    records = [
        json.loads(line)
        for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(records) == 3
    from hbd3lm.plans.numbers import count_numbers

    with (folder / "numbers.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["texts"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"data, training", "data, test", "own samples, shared"}
    mean = np.mean([count_numbers(record["execution"]) for record in records])
    assert float(rows["own samples, shared"]["numbers an execution"]) == pytest.approx(mean)
    gold = np.mean([count_numbers(record["gold_execution"]) for record in records])
    assert float(rows["data, test"]["numbers an execution"]) == pytest.approx(gold)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["tables"]) == {"numbers", "categories", "thresholds"}
    page = (folder / "report.md").read_text(encoding="utf-8")
    monkeypatch.setattr("hbd3lm.experiments.run._dispatch", None)
    capsys.readouterr()
    experiment.run_mode(command)
    assert (folder / "report.md").read_text(encoding="utf-8") == page
