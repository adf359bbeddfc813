"""Scoring of generated texts: hand-written generations, records others can read, intervals."""

from __future__ import annotations

import json

import pytest
import torch

from hbd3lm.commands import analyze_plans
from hbd3lm.data.records import HierarchicalExample, read_examples
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.evaluate.answers import (
    Generation,
    GenerationRun,
    check_gold_answers,
    generate,
    make_records,
    score_records,
    wilson_interval,
)
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.strategies import SamplingConfig

BOTH = {"plan": True, "execution": True}

# What was written, the gold answer, right by strict extraction, by flexible extraction.
CASES = [
    ("4 + 3 = 7\n#### 7", "7", True, True),
    ("4 + 3 = 7\n#### 8", "7", False, False),
    ("The answer is 7.", "7", False, True),
    ("#### 1,234", "1234", True, True),
    ("#### 7.00", "7", True, True),
    ("#### 5\n#### 7", "7", True, True),
    ("#### 7\nso 8 in all", "7", True, False),
    ("", "7", False, False),
    ("no number", "7", False, False),
]


def run_of(texts, plan="Add the amounts.", ended=BOTH) -> GenerationRun:
    generations = [Generation(plan, text, 5, ended) for text in texts]
    return GenerationRun(generations, 2.0, 100, 10, 5 * len(texts))


def examples_for(golds) -> list[HierarchicalExample]:
    return [
        HierarchicalExample(f"p{i}", "How many?", "Gold plan.", f"1+1\n#### {gold}", gold)
        for i, gold in enumerate(golds)
    ]


def test_strict_and_flexible_extraction_side_by_side():
    texts, golds, strict, flexible = zip(*CASES)
    records = make_records(examples_for(golds), run_of(texts), "full")
    assert tuple(record["correct_strict"] for record in records) == strict
    assert tuple(record["correct_flexible"] for record in records) == flexible
    scores = score_records(records, "full")
    assert scores["problems"] == 9
    assert scores["accuracy_strict"]["correct"] == 5
    assert scores["accuracy_strict"]["value"] == pytest.approx(5 / 9)
    assert scores["accuracy_flexible"]["correct"] == 5
    assert scores["no_answer_line"] == 3


def test_records_are_examples_that_the_readers_and_the_plan_analysis_take(tmp_path, capsys):
    records = make_records(examples_for(["7", "8"]), run_of(["#### 7", "#### 7"]), "full")
    path = tmp_path / "records.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    examples = read_examples(path)
    assert [example.plan for example in examples] == ["Add the amounts."] * 2
    assert [example.execution for example in examples] == ["#### 7"] * 2
    assert [example.answer_numerical for example in examples] == ["7", "8"]
    assert records[0]["gold_plan"] == "Gold plan."
    assert analyze_plans.main(["--data_path", str(path), "--no_plot",
                               "--output_json", str(tmp_path / "out.json")]) == 0  # fmt: skip
    analysed = json.loads((tmp_path / "out.json").read_text())
    own = score_records(records, "full")["plan_quality"]
    assert analysed["plan"] == own["plan"]  # the same code, the same numbers
    capsys.readouterr()


def test_plan_only_scores_plans_and_no_answers():
    """The execution is the gold one, and must not count as a right answer."""
    run = run_of([None, None], ended={"plan": True})
    records = make_records(examples_for(["7", "8"]), run, "plan_only")
    assert [record["execution"] for record in records] == ["1+1\n#### 7", "1+1\n#### 8"]
    assert [record["correct_strict"] for record in records] == [None, None]
    assert [record["predicted_flexible"] for record in records] == [None, None]
    scores = score_records(records, "plan_only")
    assert "accuracy_strict" not in scores
    assert scores["plan_quality"]["plan"]["numbers"]["mean"] == 0


def test_exec_only_scores_answers_and_no_plans():
    run = run_of(["#### 7", "#### 9"], plan=None, ended={"execution": True})
    records = make_records(examples_for(["7", "8"]), run, "exec_only")
    assert [record["plan"] for record in records] == ["Gold plan."] * 2
    scores = score_records(records, "exec_only")
    assert scores["accuracy_strict"]["correct"] == 1
    assert "plan_quality" not in scores


@pytest.mark.parametrize(
    "successes, n, low, high",
    [
        (0, 10, 0.0, 0.2775),  # Brown, Cai & DasGupta (2001), and R's prop.test without correction
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 2, 0.0945, 0.9055),
        (81, 263, 0.2553, 0.3662),  # Newcombe (1998), table I
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilson_intervals_equal_published_values(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


def test_speed_counts_what_was_run():
    speed = run_of(["a", "b", "c", "d"]).speed()
    assert speed["problems_per_second"] == 2.0
    assert speed["tokens_per_second"] == 50.0
    assert speed["tokens_per_problem"] == 25.0
    assert speed["network_evaluations_per_problem"] == 5.0
    assert speed["network_evaluations_per_token"] == pytest.approx(0.2)


def test_a_gold_answer_that_is_no_number_is_refused_before_sampling():
    check_gold_answers(examples_for(["7", "1,234.5", "-3"]))
    with pytest.raises(UserError, match="record 'p1': answer_numerical is 'seven', not a number"):
        check_gold_answers(examples_for(["7", "seven"]))


# -- with a network -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("gsm")


def small_net(tokenizer, **changes) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig(tokenizer.vocab_size, 16, 1, 2, **changes)).eval()


@pytest.mark.parametrize("mode, segments", [
    ("full", {"plan", "execution"}), ("plan_only", {"plan"}), ("exec_only", {"execution"}),
])  # fmt: skip
def test_each_mode_writes_its_segments_for_every_problem(tokenizer, mode, segments):
    layout = plan_execution_layout(16, 8, 8, 4, 4)
    done = []
    run = generate(
        small_net(tokenizer), layout, tokenizer, examples_for(["1", "2", "3"]),
        SamplingConfig(batch_size=2), mode, on_done=done.append,
    )  # fmt: skip
    assert len(run.generations) == len(done) == 3
    for generation in run.generations:
        written = {"plan": generation.plan, "execution": generation.execution}
        assert {name for name, text in written.items() if text is not None} == segments
        assert set(generation.ended) == segments
        assert generation.evaluations > 0


@pytest.mark.parametrize("mode", ["plan_only", "exec_only"])
def test_modes_that_need_a_plan_are_refused_for_a_flat_model(tokenizer, mode):
    layout = plan_execution_layout(16, 8, 8, 4, 4, with_plan=False)
    with pytest.raises(UserError, match=f"sampling.mode={mode}: this model writes no plans; use"):
        generate(
            small_net(tokenizer), layout, tokenizer, examples_for(["1"]), SamplingConfig(), mode
        )


def test_an_unknown_mode_is_refused(tokenizer):
    layout = plan_execution_layout(16, 8, 8, 4, 4)
    with pytest.raises(UserError, match=r"sampling\.mode=all: choose one of full, plan_only"):
        generate(
            small_net(tokenizer), layout, tokenizer, examples_for(["1"]), SamplingConfig(), "all"
        )


def test_what_the_model_reads_is_never_cut_silently(tokenizer, capsys):
    """Question and given plan; a gold execution over the cap is not read, so not reported."""
    layout = plan_execution_layout(16, 8, 8, 4, 4)
    example = HierarchicalExample("long", "why " * 40, "add it " * 40, "1+1 " * 40, "2")
    for mode, reported in (("full", ["questions"]), ("exec_only", ["questions", "plans"])):
        generate(small_net(tokenizer), layout, tokenizer, [example], SamplingConfig(), mode)
        printed = capsys.readouterr().out
        assert [
            word for word in ("questions", "plans", "executions") if word in printed
        ] == reported
        assert "1 of 1 questions are longer than 16 tokens" in printed
        assert "raise hierarchical.question_len" in printed
