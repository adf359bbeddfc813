"""Experiment 4 from end to end, tiny, and what its verdicts rest on."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from hbd3lm.commands.experiment import main
from hbd3lm.data.records import HierarchicalExample, read_examples
from hbd3lm.errors import UserError
from hbd3lm.evaluate.answers import wilson_interval
from hbd3lm.evaluate.attention_mass import GROUPS
from hbd3lm.experiments.mechanism import (
    OWN,
    PLANS,
    Material,
    Measured,
    _likelihoods,
    agreement,
    change_plans,
    compare_texts,
    holds_any,
    prepare,
)
from hbd3lm.experiments.mechanism_plans import PlanRow
from hbd3lm.experiments.statistics import paired_estimate
from hbd3lm.experiments.study import Study

TINY = [
    "model=nano", "model.dim=16", "model.n_layers=1", "model.n_heads=2", "training.batch_size=4",
    "training.hierarchical.question_len=64", "training.hierarchical.plan_len=32",
    "training.hierarchical.exec_len=16", "block_size=8", "trainer.accelerator=cpu",
    "trainer.progress_bar=false", "trainer.loggers=[csv]", "training.max_steps=3",
    "training.valid_every=3", "data=embedded", "data.num_train=30", "eval.num_examples=6",
    "sampling.steps=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished study and the command that made it."""
    folder = tmp_path_factory.mktemp("results") / "mechanism"
    command = ["mechanism", "--smoke", f"experiment.output_dir='{folder}'", *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("HBD3LM_DATA_DIR", raising=False)
        assert main(command) == 0
    return folder, command


def rows_of(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_plan_is_given_to_every_model_and_measured(finished):
    folder, _ = finished
    rows = rows_of(folder, "plans")
    assert [row["plan given"] for row in rows] == list(PLANS.values())
    for row in rows:
        # A fresh network: about the logarithm of the vocabulary, whatever the plan.
        assert 5 < float(row["gold execution, nats a token"]) < 9
    assert {row["changed"] for row in rows_of(folder, "invariance")} == {
        "nothing (other batches)", "names of people", "numbers", "the problem"
    }  # fmt: skip
    same = [r for r in rows_of(folder, "invariance") if r["changed"].startswith("nothing")]
    assert [float(row["plans identical"]) for row in same] == [1]


def test_the_plans_that_were_given_are_those_of_the_files(finished):
    folder, _ = finished
    records = [json.loads(line) for line in (folder / "records.jsonl").open(encoding="utf-8")]
    for name in PLANS:
        if name == OWN:
            continue
        path = folder / "data" / f"plans_{name}.json"
        plans = {example.id: example.plan for example in read_examples(path)}
        mine = [r for r in records if r["condition"] == name and r["model"] == "shared-seed0"]
        assert {record["id"]: record["plan"] for record in mine} == plans
    assert {record["plan"] for record in records if record["condition"] == "none"} == {""}


def test_attention_adds_up_and_the_figure_is_there(finished):
    folder, _ = finished
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    for found in metrics["attention"].values():
        mass = np.array(found["layers_steps_groups"])
        assert mass.shape == (1, 8, len(GROUPS))
        np.testing.assert_allclose(mass.sum(-1), 1, atol=1e-4)
    assert (folder / "figure.png").stat().st_size > 10_000
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert metrics["findings"] and "arXiv 2603.13243" in (folder / "plans.md").read_text()


def test_given_again_the_command_computes_nothing_anew(finished, monkeypatch):
    folder, command = finished
    before = (folder / "records.jsonl").read_bytes()
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setattr("hbd3lm.commands.run.dispatch", lambda cfg: pytest.fail("ran again"))
    monkeypatch.setattr("hbd3lm.commands.build.load_model", lambda cfg: pytest.fail("loaded"))
    assert main(command) == 0
    assert (folder / "records.jsonl").read_bytes() == before


def test_a_checkpoint_is_measured_as_it_is(finished, tmp_path, monkeypatch):
    folder, _ = finished
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    (checkpoint,) = (folder.parent / "models").glob("*/checkpoints/best.ckpt")
    other = tmp_path / "mechanism"
    command = ["mechanism", "--smoke", f"experiment.output_dir='{other}'",
               f"experiment.checkpoint='{checkpoint}'", *TINY]  # fmt: skip
    assert main(command) == 0
    theirs = [row for row in rows_of(folder, "plans") if row["model"] == "shared"]
    mine = rows_of(other, "plans")
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs):
        assert {**a, "model": "shared"} == b
    assert not list(tmp_path.rglob("*.ckpt"))


def test_likelihoods_are_measured_again_for_other_executions_under_the_same_plans():
    """As when the file of the test problems has been corrected."""
    asked = []

    class Run:
        study = Study.open("mechanism")

        def measure(self, label, about, make):
            asked.append(about)
            return {"nats": {}, "tokens": {}}

    for text in ("#### 3", "#### 4"):
        example = HierarchicalExample("a", "1 and 2?", "Add.", text, "3")
        material = Material([example], {"gold": [example]}, {}, {}, {}, {})
        _likelihoods(Run(), material, {"a": {"plan": "Add."}})
    assert asked[0] != asked[1]


def test_a_question_with_other_numbers_that_was_learned_is_left_out(tmp_path, monkeypatch):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    study = Study.open("mechanism", [f"experiment.output_dir='{tmp_path}/mechanism'", *TINY])
    before = prepare(study)
    learned, *rest = before.questions["numbers"]
    examples = Study.examples
    train = [*study.examples("train"), replace(learned, question=f" {learned.question.upper()}")]
    monkeypatch.setattr(
        Study, "examples", lambda self, split: train if split == "train" else examples(self, split)
    )
    after = prepare(study)
    assert after.questions["numbers"] == rest
    assert after.refused == {**before.refused, "a training problem with these numbers": 1}


def test_a_missing_checkpoint_and_a_misspelt_setting_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"experiment\.checkpoint: no such file"):
        main(["mechanism", f"experiment.output_dir='{tmp_path}'", "experiment.checkpoint=no.ckpt"])
    run = tmp_path / "run"  # which holds the file that is meant
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").touch()
    with pytest.raises(UserError, match=r"experiment\.checkpoint: .*; give .*run/checkpoints/best"):
        main(["mechanism", f"experiment.output_dir='{tmp_path}'", f"experiment.checkpoint='{run}'"])
    with pytest.raises(UserError, match=r"unknown key 'data\.max_stepss'"):
        Study.open("mechanism", ["data.max_stepss=2"])
    assert "data.max_steps=2" in Study.open("mechanism", ["data.max_steps=2"]).base


# --- verdicts -----------------------------------------------------------------------------------

SWAPPED = "Divide the boxes by the mugs. Then subtract the result from the gift."
GOLD = "Multiply the boxes by the mugs. Then add the gift and the result."
EXECUTION = "There are 12/3 = 4 mugs.\nThat leaves 9-4 = 5.\n#### 5"


def test_an_execution_follows_the_plan_whose_operations_it_carries_out():
    assert agreement(SWAPPED, EXECUTION) == 1
    assert agreement(GOLD, EXECUTION) == 0
    assert agreement(GOLD, "12*3 = 36\n36+9 = 45\n#### 45") == 1
    # One of two operations; in another order it is another calculation; none is no obedience.
    assert agreement(SWAPPED, "12/3 = 4\n4+9 = 13\n#### 13") == 0.5
    assert agreement(SWAPPED, "9-3 = 6\n12/6 = 2\n#### 2") < 1
    assert agreement(SWAPPED, "#### 5") == 0
    assert agreement("", EXECUTION) is None


def test_gold_operations_are_those_of_the_gold_plan_whatever_plan_was_given(finished):
    """A record's gold plan is the one given; taken for the real one, both shares were equal."""
    folder, _ = finished
    records = [json.loads(line) for line in (folder / "records.jsonl").open(encoding="utf-8")]
    given = {}
    for record in records:
        if record["changed"] == "plan":
            # An execution that does what its plan says, however it is written.
            obedient = {**record, "execution": EXECUTION, "plan": SWAPPED}
            given.setdefault(record["condition"], {})[record["id"]] = obedient
    nats = {name: dict.fromkeys(found, 1.0) for name, found in given.items()}
    model = Measured(given, {}, nats, dict.fromkeys(given["gold"], 10.0), True, {})
    row = PlanRow("swapped", [model], dict.fromkeys(given["gold"], GOLD))
    assert row.follows.mean() == 1
    assert row.follows_gold.mean() == row.agrees_gold.mean() == 0


def test_numbers_taken_over_are_found_as_numbers_not_as_digits():
    assert holds_any({"execution": EXECUTION}, [12.0])
    assert not holds_any({"execution": EXECUTION}, [1.0, 2.0, 45.0])


def test_plans_are_compared_word_by_word():
    same = compare_texts("Add the given pens.", "Add the given pens.")
    assert (same.identical, same.similarity, same.operations) == (True, 1.0, True)
    other = compare_texts("Add the given pens.", "Add the given cups.")
    assert (other.identical, other.similarity, other.operations) == (False, 0.75, True)
    assert not compare_texts("Add the pens.", "Divide the pens.").operations


def test_every_changed_plan_stands_beside_its_own_problem():
    examples = [
        HierarchicalExample("a", "Ann has 3 pens and 4 cups.", "Add the given pens and the given "
                            "cups.", "3+4 = 7\n#### 7", "7"),
        HierarchicalExample("b", "Bo has 8 hats for 2 cousins.", "Divide the given hats by the "
                            "given cousins.", "8/2 = 4\n#### 4", "4"),
        HierarchicalExample("c", "Half of 6 hats?", "Take a fraction of it.", "6/2 = 3\n#### 3",
                            "3"),
    ]  # fmt: skip
    plans, injected = change_plans(examples)
    assert set(plans) == set(PLANS) - {OWN}
    assert [e.plan for e in plans["swapped"]] == [
        "Subtract the given cups from the given pens.",
        "Multiply the given hats by the given cousins.",
    ]
    assert [e.id for e in plans["right_numbers"]] == ["a", "b"] == list(injected)
    assert plans["right_numbers"][1].plan == "Divide the given 8 hats by the given 2 cousins."
    assert not {3.0, 4.0, 7.0} & set(injected["a"])
    for name, found in plans.items():
        for example in found:
            original = next(e for e in examples if e.id == example.id)
            assert (example.question, example.execution) == (original.question, original.execution)
            assert name == "gold" or example.plan != original.plan


# --- statistics ---------------------------------------------------------------------------------


def test_a_difference_never_seen_is_no_proof_of_none():
    verdicts = np.ones((2, 16), dtype=bool)
    found = paired_estimate(verdicts, verdicts)
    assert (found.value, found.high) == (0, wilson_interval(0, 16)[1])
    assert found.low == -found.high < -0.1


def test_a_paired_difference_is_that_of_the_problems():
    """Both models of 100 problems lose the same 20: no spread but that of the problems."""
    first = np.ones((2, 100))
    second = np.tile(np.arange(100) >= 20, (2, 1))
    found = paired_estimate(second, first)
    assert found.value == pytest.approx(-0.2)
    # Of a share of 20 in 100: 1.96 * sqrt(0.2 * 0.8 / 100) = 0.078 to either side.
    assert found.low == pytest.approx(-0.278, abs=0.02)
    assert found.high == pytest.approx(-0.122, abs=0.02)
    with pytest.raises(ValueError, match="not of the same"):
        paired_estimate(first, second[:1])
