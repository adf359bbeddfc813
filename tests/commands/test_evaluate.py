"""``ppl_eval``, ``sample_eval`` and ``sample``: results, records, and checkpoints that are none."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

from hbd3lm.commands import build
from hbd3lm.commands.evaluate import _load_for_evaluation
from hbd3lm.commands.problems import load_examples
from hbd3lm.data.records import HierarchicalExample, read_examples, write_examples
from hbd3lm.errors import UserError
from hbd3lm.experiments.settings import compose
from hbd3lm.hub.card import RunFacts, model_card
from hbd3lm.model.checkpoint import load_network
from hbd3lm.plans.provenance import source_dataset
from hbd3lm.report.page import perplexity_table
from tests.commands.runs import STEPS, TINY, evaluate, main
from tests.hub.exports import make_model

pytestmark = pytest.mark.usefixtures("one_thread")


def test_ppl_eval_writes_a_labelled_bound_for_each_segment(home, capsys):
    assert evaluate(home, "ppl_eval", "eval.samples=2") == 0
    result = json.loads((home / "run" / "eval" / "perplexity.json").read_text())
    assert result["kind"] == "upper bound (NELBO)"
    assert result["noise_draws"] == 2
    assert result["token_set"] == f"{home}/test.json, 4 problems"
    assert list(result["segments"]) == ["plan", "execution", "all"]
    assert result["segments"]["all"]["documents"] == 4
    assert result["checkpoint"].endswith("best.ckpt")
    printed = capsys.readouterr().out
    assert "Perplexity, upper bound (NELBO)" in printed and "draws ?: one turn" in printed


def test_ppl_eval_takes_turns_to_the_precision_asked_for_and_tells_both_errors(home, capsys):
    precise = ("eval.samples=4", "eval.precision=0.2", f"eval.output_dir={home}/precise")
    assert evaluate(home, "ppl_eval", *precise) == 0
    result = json.loads((home / "precise" / "perplexity.json").read_text())
    assert result["precision_reached"]
    assert result["noise_draws"] >= 4 * 9  # 30 degrees of freedom from 4 problems
    for part in result["segments"].values():
        assert part["perplexity_noise_high"] / part["perplexity"] <= 1.2
    printed = capsys.readouterr().out
    assert re.search(r"±\d+\.\d\d%", printed), "the error of the draws"
    assert "within eval.precision=0.2" in printed
    assert evaluate(home, "ppl_eval", *precise, "eval.precision=1e-6", "eval.max_samples=8") == 0
    assert "NOT yet within eval.precision=1e-06 (95 %); raise eval.max" in capsys.readouterr().out


def test_what_is_not_finite_is_null_in_what_is_written_and_a_dash_where_it_is_shown(
    home, tmp_path, monkeypatch
):
    """``NaN`` is no JSON: other programs refused the file."""

    def broken(net, objective, documents, *_):
        return np.full((len(documents), 2), np.nan), np.ones((len(documents), 2))

    monkeypatch.setattr("hbd3lm.evaluate.perplexity.score_documents", broken)
    assert evaluate(home, "ppl_eval", "eval.samples=1", f"eval.output_dir={tmp_path}") == 0
    text = (tmp_path / "perplexity.json").read_text()
    assert "NaN" not in text + (tmp_path / "perplexity.jsonl").read_text()
    result = json.loads(text)
    assert result["segments"]["all"]["nats_per_token"] is None
    assert perplexity_table(result).rows[0][1:3] == ("- ± -", "-")
    card = load_network(home / "run" / "checkpoints" / "best.ckpt")[1]
    assert "(NELBO)) | - |" in model_card(card, RunFacts("n", "c", {}, {"p": result}), 1)


@pytest.mark.parametrize("mode", ["full", "plan_only", "exec_only"])
def test_sample_eval_scores_and_keeps_a_record_of_every_problem(home, mode, capsys):
    assert evaluate(home, "sample_eval", f"sampling.mode={mode}") == 0
    records = [
        json.loads(line)
        for line in (home / "run" / "eval" / f"samples_{mode}.jsonl").read_text().splitlines()
    ]
    assert len(records) == 4
    assert len(read_examples(home / "run" / "eval" / f"samples_{mode}.jsonl")) == 4
    scores = json.loads((home / "run" / "eval" / f"sample_eval_{mode}.json").read_text())
    assert (scores["problems"], scores["problem_set"]) == (4, f"{home}/test.json, 4 problems")
    assert ("accuracy_strict" in scores) == (mode != "plan_only")
    assert ("plan_quality" in scores) == (mode != "exec_only")
    assert scores["speed"]["network_evaluations_per_problem"] > 0
    assert f"sample_eval, {mode}" in capsys.readouterr().out


def test_sample_solves_one_question_with_commas_and_quotes(home, capsys):
    question = "Tom's box holds 3 red, 4 blue (and no) balls. How many in all?"
    assert main("mode=sample", f"run_dir={home}/run", f"sampling.question={question}") == 0
    printed = capsys.readouterr().out
    assert f"question:\n{question}\n" in printed
    assert "execution:" in printed and "network evaluations" in printed
    plan = "Add the red, then the blue."
    status = main("mode=sample", f"run_dir={home}/run", f"sampling.question={question}",
                  "sampling.mode=exec_only", f"sampling.plan={plan}")  # fmt: skip
    assert status == 0
    assert f"plan:\n{plan}\n" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["ppl_eval", "sample_eval"])
def test_an_evaluation_that_runs_out_of_memory_tells_what_to_lower(home, mode, monkeypatch, capsys):
    def out_of_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("hbd3lm.evaluate.perplexity.likelihoods", out_of_memory)
    monkeypatch.setattr("hbd3lm.evaluate.answers.generate", out_of_memory)
    assert evaluate(home, mode, "training.batch_size=4") == 1
    key = "training.batch_size" if mode == "ppl_eval" else "sampling.batch_size"
    assert f"{key}=2" in capsys.readouterr().err


def test_validating_on_the_held_out_slice_needs_the_data_it_was_held_out_of(home, capsys):
    assert evaluate(home, "ppl_eval", "eval.split=valid", "eval.samples=1") == 0
    result = json.loads((home / "run" / "eval" / "perplexity.json").read_text())
    assert result["segments"]["all"]["documents"] == 2
    assert evaluate(home, "ppl_eval", "eval.split=valid", "data.num_train=10") == 1
    error = capsys.readouterr().err
    assert "chosen with data.num_train=None" in error and "eval.split=test" in error


def test_the_slice_check_is_left_out_for_a_validation_file(home):
    status = evaluate(
        home, "ppl_eval", "eval.split=valid", f"data.valid_path={home}/test.json", "eval.samples=1"
    )
    assert status == 0


def test_plans_of_a_flat_model_are_refused(home, tmp_path, capsys):
    status = main(
        "mode=train", "algo=flat", *TINY, *STEPS, "training.max_steps=1",
        f"data.train_path={home}/train.json", f"run_dir={tmp_path}/flat",
    )  # fmt: skip
    assert status == 0
    for mode in ("plan_only", "exec_only"):
        status = main("mode=sample_eval", f"run_dir={tmp_path}/flat", f"sampling.mode={mode}",
                      f"data.test_path={home}/test.json")  # fmt: skip
        assert status == 1
        assert "this model writes no plans; use sampling.mode=full" in capsys.readouterr().err


def test_gold_answers_that_cannot_be_scored_are_refused_before_sampling(home, tmp_path, capsys):
    bad = [HierarchicalExample("odd", "Q?", "P", "E", "many")]
    write_examples(tmp_path / "odd.json", bad)
    assert evaluate(home, "sample_eval", f"data.test_path={tmp_path}/odd.json") == 1
    assert "record 'odd': answer_numerical is 'many'" in capsys.readouterr().err


def test_a_missing_checkpoint_says_how_to_get_one(tmp_path, capsys):
    assert main("mode=ppl_eval", f"run_dir={tmp_path}/none") == 1
    error = capsys.readouterr().err
    assert "run_dir: no such file" in error and "train first" in error
    assert main("mode=ppl_eval", f"checkpoint={tmp_path}/none.ckpt") == 1
    assert "checkpoint: no such file" in capsys.readouterr().err


def test_a_truncated_checkpoint_is_refused(home, tmp_path, capsys):
    whole = (home / "run" / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    assert evaluate(home, "ppl_eval", f"checkpoint={tmp_path}/cut.ckpt") == 1
    assert "cut.ckpt is damaged or no checkpoint" in capsys.readouterr().err


def test_a_checkpoint_with_another_tokenizer_is_refused(home, tmp_path, capsys):
    shutil.copytree(home / "run", tmp_path / "run")
    file = tmp_path / "run" / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    # Two tokens change places: everything still works, and means something else.
    a, b = (next(k for k, v in vocabulary.items() if v == index) for index in (60, 61))
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    file.write_text(json.dumps(content))
    assert main("mode=ppl_eval", f"run_dir={tmp_path}/run") == 1
    error = capsys.readouterr().err
    assert "was trained with the tokenizer 'gsm'" in error and str(file.parent) in error


def test_settings_that_the_checkpoint_decides_are_named(home, capsys):
    words = ["eval.samples=1", "algo=ar", "model=nano", "block_size=16", "hierarchical.plan_len=64"]
    words += ["training.hierarchical.exec_len=256", "model.dim=64"]
    assert evaluate(home, "ppl_eval", *words) == 0
    (warning,) = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")
    ]
    assert warning.endswith(
        "best.ckpt is used as it was trained, with algo.name=hierarchical (not ar), "
        "hierarchical.plan_len=128 (not 64), model.dim=32 (not 64)"
    )


@pytest.mark.filterwarnings("error:GSM8K")
def test_problems_that_stand_in_for_gsm8k_are_not_called_so_in_what_is_written(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setattr("hbd3lm.data.hub_datasets.hub_reachable", lambda *a, **k: False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    net, card = make_model("hierarchical")
    loaded = build.LoadedModel(net, card, None, None, tmp_path)
    monkeypatch.setattr(build, "load_model", lambda *_: loaded)
    cfg = compose([f"run_dir={tmp_path}", "data.num_train=3", "eval.num_examples=2"])
    load_examples(cfg, "train")
    _, examples, name = _load_for_evaluation(cfg)
    error = capsys.readouterr().err
    assert error.count("WARNING: GSM8K main t") == 2 and "NOT GSM8K" in error
    assert source_dataset(tmp_path / "data" / "train.json") == "embedded"
    assert examples[0].id == "embedded_test_0"
    assert name == "embedded test (GSM8K could not be had), 2 problems"


def test_a_laboratory_that_would_test_on_training_problems_is_refused(tmp_path, monkeypatch):
    net, card = make_model("hierarchical")
    card.settings["data"] = {"name": "laboratory", "num_train": 30}
    loaded = build.LoadedModel(net, card, None, None, tmp_path)
    monkeypatch.setattr(build, "load_model", lambda *_: loaded)
    small = ["data=laboratory", f"run_dir={tmp_path}", "data.num_test=2"]
    with pytest.raises(UserError, match=r"data.num_train=20: .*; repeat data.num_train=30"):
        _load_for_evaluation(compose([*small, "data.num_train=20"]))
    _, examples, _ = _load_for_evaluation(compose([*small, "data.num_train=30"]))
    assert len(examples) == 2
