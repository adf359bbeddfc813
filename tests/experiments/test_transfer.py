"""Transfer: what every arm starts from and keeps, the curve, and differences told fairly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hbd3lm.errors import UserError
from hbd3lm.experiments import transfer, transfer_report
from hbd3lm.experiments.results import write_results
from hbd3lm.experiments.study import Study

TOY = [
    "model.dim=16", "model.n_layers=1", "model.n_heads=2", "training.hierarchical.question_len=64",
    "training.hierarchical.plan_len=16", "training.hierarchical.exec_len=16",
    "training.batch_size=4", "training.max_steps=4", "training.valid_every=2",
    "data.num_train=40", "data.num_test=6", "eval.num_examples=5", "trainer.loggers=[]",
    "experiment.source=['data=laboratory','data.num_train=30','training.max_steps=4']",
    "data=laboratory", "model=nano", "block_size=4",
    "experiment.compared=[frozen,all,flat_scratch]", "experiment.sizes=[12,20]",
]  # fmt: skip


def open_study(folder, *overrides: str) -> Study:
    """The smoke size with a network that learns nothing and samples quickly."""
    place = f"experiment.output_dir={folder}"
    return Study.open("transfer", [*TOY, place, *overrides], smoke=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A study run to its end: itself, its results, what it printed to ``transfer/``."""
    folder = tmp_path_factory.mktemp("results") / "transfer"
    study = open_study(folder)
    results = transfer.run(study)
    write_results(study, results)
    return study, results


def settings_of(study: Study, results, name: str) -> dict:
    """How a model was trained, by the file its run has left."""
    from omegaconf import OmegaConf

    run = next(run for run in results.runs if run.name == name)
    return OmegaConf.load(run.model / "config.yaml")


def test_all_that_a_study_leaves_is_there(done):
    study, results = done
    assert [run.name for run in results.runs] == [
        "source-separate-seed0", "frozen-12-seed0", "frozen-20-seed0", "all-12-seed0",
        "all-20-seed0", "flat_scratch-12-seed0", "flat_scratch-20-seed0",
    ]  # fmt: skip
    for name in ("transfer.md", "differences.csv", "identity.tex", "figure.png", "figure.pdf",
                 "report.md", "records.jsonl"):  # fmt: skip
        assert (study.folder / name).stat().st_size > 0, name
    metrics = json.loads((study.folder / "metrics.json").read_text(encoding="utf-8"))
    assert len(metrics["tables"]["transfer"]["rows"]) == 1 + 3 * 2
    assert len(results.records) == 7 * 5
    # Every command can be given by hand: it names the model it starts from.
    assert "training.init_from=" in metrics["commands"]["frozen-12-seed0"][0]


def test_a_target_that_cannot_be_learned_is_refused_before_the_source_is_trained(tmp_path):
    study = open_study(tmp_path / "transfer", "training.max_steps=0")
    with pytest.raises(UserError, match=r"frozen-12-seed0: training\.max_steps"):
        transfer.run(study)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_frozen_models_keep_the_sources_plans_to_the_bit_and_the_study_says_so(done):
    _, results = done
    assert [row["model"] for row in results.metrics["identity"]] == [
        "frozen-12-seed0", "frozen-20-seed0",
    ]  # fmt: skip
    for row in results.metrics["identity"]:
        assert row["weights_equal"] and row["weights"] > 10
        assert row["bounds"] == row["bounds_equal"] == row["plans"] == row["plans_equal"] == 5
    assert results.findings[0].startswith("Freezing keeps its promise: in 2 frozen models")


def test_a_plan_module_that_changed_is_no_result_but_an_error(done):
    study, results = done
    runs = {run.name: run for run in results.runs}
    on_target = [o for o in (*study.base, *study.data) if transfer._is_data(o)]
    with pytest.raises(RuntimeError, match=r"a frozen plan module has changed: .*all-12-seed0"):
        transfer._compare_plans(runs["source-separate-seed0"], runs["all-12-seed0"], on_target)


def test_every_arm_learns_the_problems_it_should_from_the_start_it_should(done):
    study, results = done
    source = settings_of(study, results, "source-separate-seed0")
    frozen, everything, flat = (
        settings_of(study, results, f"{name}-12-seed0")
        for name in ("frozen", "all", "flat_scratch")
    )
    assert source.data.num_train == 30 and source.training.init_from is None
    assert frozen.training.init_from == everything.training.init_from
    assert frozen.training.init_from.endswith(str(results.runs[0].model))
    assert (frozen.training.freeze, everything.training.freeze) == ("plan", None)
    assert flat.training.init_from is None and not flat.hierarchical.enabled
    for cfg in (frozen, everything, flat):
        assert cfg.data.num_train == 12
        assert cfg.data.train_path == frozen.data.train_path != source.data.train_path
    summary = json.loads((results.runs[1].model / "train_summary.json").read_text("utf-8"))
    assert (summary["train_problems"], summary["valid_problems"]) == (11, 1)
    assert summary["frozen"] == "plan"


def test_all_models_answer_the_same_problems(done):
    study, results = done
    wanted = [example.id for example in study.examples("test")]
    for run in results.runs:
        assert [r["id"] for r in results.records if r["model"] == run.name] == wanted


def test_given_again_nothing_is_trained_or_sampled_anew(done, monkeypatch):
    study, results = done
    monkeypatch.setattr("hbd3lm.experiments.run._dispatch", lambda cfg: pytest.fail("anew"))
    again = transfer.run(replace(study))
    assert [t.to_dict() for t in again.tables] == [t.to_dict() for t in results.tables]


@pytest.mark.parametrize(
    "override, message",
    [
        ("experiment.compared=[frozen,thawed]", "experiment.compared: thawed: choose from frozen,"),
        ("experiment.sizes=[]", "experiment.compared and experiment.sizes need at least one"),
        ("experiment.sizes=[12,1000]", "experiment.sizes: 1000: the target has 40 problems"),
        ("experiment.sizes=[1]", "experiment.sizes: 1: the target has 40 problems to learn from"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_trained(
    done, override, message, monkeypatch
):
    monkeypatch.setattr("hbd3lm.experiments.run._dispatch", lambda cfg: pytest.fail("trained"))
    with pytest.raises(UserError) as error:
        transfer.run(open_study(done[0].folder, override))
    assert message in str(error.value)


def test_the_sources_settings_have_no_data_of_the_targets_but_the_folder():
    base = ("trainer.devices=1", "data=svamp", "data.dir=there", "data.train_path=a.json", "seed=1")
    assert transfer._without_data(base) == ("trainer.devices=1", "data.dir=there", "seed=1")


def test_a_source_of_laboratory_problems_is_evaluated_on_a_target_of_another_kind(tmp_path):
    """Which has no ``data.max_steps``: the settings of the source's data are no obstacle."""
    from hbd3lm.experiments.settings import compose

    study = open_study(tmp_path / "transfer")
    base = (*(o for o in study.base if not transfer._is_data(o)), "data=svamp", "data.dir=there")
    source = replace(study, base=(*transfer._without_data(base), "data=laboratory",
                                  "data.max_steps=1", "data.num_train=30"))  # fmt: skip
    run = source.run("source-flat", transfer.FLAT, 0)
    assert compose(run.settings_of("train")).data.max_steps == 1
    on_target = [o for o in base if transfer._is_data(o)]
    cfg = compose(run.settings_of("ppl_eval", *on_target, "data.test_path=svamp.json"))
    assert (cfg.data.name, cfg.data.dir, cfg.data.test_path) == ("svamp", "there", "svamp.json")


def test_test_problems_that_the_source_holds_are_left_out_and_told(tmp_path):
    """Both of one kind, so that some are the same: they flattered models that knew them."""
    study = open_study(
        tmp_path / "transfer", "data.num_test=40", "eval.num_examples=40", "data.largest_number=60"
    )
    source = replace(study, base=(*transfer._without_data(study.base), "data=laboratory",
                                  "data.max_steps=1", "data.num_train=3000"))  # fmt: skip
    study = replace(study, base=(*study.base, "data.max_steps=1"))
    unseen = transfer._unseen(source, study)
    known = {e.question for split in ("train", "valid") for e in source.examples(split)}
    assert [e.question not in known for e in study.examples("test")] == unseen.tolist()
    assert 0 < (~unseen).sum() < 20
    (sentence,) = transfer_report.seen_findings(unseen)
    assert sentence.startswith(f"{(~unseen).sum()} of 40 test problems are among the source's")
    assert transfer_report.seen_findings(np.ones(3, bool)) == []
    some = measured(1, 0, 1, 1).of(np.array([True, False, False, True]))
    assert some.correct().tolist() == [1.0, 1.0]
    assert some.nats["execution"].tolist() == [2.0, 8.0]


def measured(*correct: int) -> transfer.Measured:
    records = [{"correct_strict": bool(c), "correct_flexible": True} for c in correct]
    nats = {"execution": np.array([2.0, 4.0, 6.0, 8.0])}
    return transfer.Measured(records, nats, {"execution": np.array([2, 2, 2, 2])}, True)


def test_differences_are_paired_by_problem_and_by_seed():
    """By hand: seed 0 has the pairs 1-0, 1-0, 0-1, 0-0; seed 1 has 1-1, 1-0, 1-0, 1-0."""
    curves = {
        ("frozen", 8): [measured(1, 1, 0, 0), measured(1, 1, 1, 1)],
        ("all", 8): [measured(0, 0, 1, 0), measured(1, 0, 0, 0)],
        ("source-separate", 0): [measured(0, 0, 0, 0)] * 2,
    }
    (found,) = transfer_report.find_differences(curves, "frozen", [8])
    assert (found.arm, found.size, found.only_first, found.only_other) == ("all", 8, 5, 1)
    assert found.accuracy.value == pytest.approx((1 + 1) / 8 - (2 + 4) / 8)
    assert found.p == (pytest.approx(1.0), pytest.approx(0.25))  # exact, 2 to 1 and 3 to 0
    (sentence,) = transfer_report.difference_findings([found], "frozen")
    assert sentence.startswith("8 target problems: all is not measurably different than frozen")


def test_two_arms_that_no_problem_divides_have_no_interval_and_no_verdict():
    """Eight wrong answers each would be "+0.0 points, 95 % +0.0 to +0.0"."""
    curves = {("frozen", 8): [measured(0, 0, 0, 0)], ("flat", 8): [measured(0, 0, 0, 0)]}
    (found,) = transfer_report.find_differences(curves, "frozen", [8])
    assert np.isnan(found.accuracy.low) and np.isnan(found.accuracy.high)
    (sentence,) = transfer_report.difference_findings([found], "frozen")
    assert sentence == "8 target problems: none is right for only one of flat and frozen."


def test_a_rate_is_of_sums_and_a_model_without_plans_has_none():
    models = [measured(1, 1, 1, 1)] * 2
    rate = transfer_report._rate(models, "execution")
    assert rate.value == pytest.approx(20 / 8)
    assert rate.is_bound
    exact = [replace(model, is_bound=False) for model in models]
    assert not transfer_report._rate(exact, "execution").is_bound
    assert transfer_report._rate(models, "plan") is None
