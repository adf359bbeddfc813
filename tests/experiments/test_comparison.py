"""The comparison: what is compared with what, what is claimed, and the whole of it in small."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hbd3lm.commands import experiment
from hbd3lm.commands.build import typed
from hbd3lm.errors import UserError
from hbd3lm.experiments import comparison, race
from hbd3lm.experiments.budget import find_budgets
from hbd3lm.experiments.comparison_arms import Arm, Contrast, Measured, SeedTest
from hbd3lm.experiments.comparison_report import (
    accuracy_finding,
    accuracy_table,
    likelihood_finding,
    likelihood_table,
    sweep_table,
)
from hbd3lm.experiments.race import Contestant
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.statistics import Estimate, McNemar, accuracy_estimate
from hbd3lm.experiments.study import Study
from hbd3lm.sample.strategies import SamplingConfig

TOKENS = {"plan": np.array([2, 2]), "execution": np.array([4, 6])}


def model(right=(True, False), exact=True, plan=None, execution=(4.0, 6.0), own=None) -> Measured:
    nats = {"execution": np.array(execution)}
    if plan is not None:
        nats = {"plan": np.array(plan), **nats}
    nats["all"] = sum(nats.values())
    tokens = {name: TOKENS[name] for name in nats if name != "all"}
    records = [
        {"id": str(i), "correct_strict": bool(r), "correct_flexible": True, "predicted_strict": "1",
         "answer_numerical": "1"}
        for i, r in enumerate(right)
    ]  # fmt: skip
    own = None if own is None else np.array(own)
    scores = {"speed": {"network_evaluations_per_token": 1.0}}
    return Measured({}, exact, nats, tokens, records, scores, own)


def arm(name: str, *models: Measured) -> Arm:
    return Arm(name, [], list(models))


FLAT_AR = arm("ar_flat", model())
FLAT = arm("flat", model(exact=False))
PLAN = arm("hierarchical", model(exact=False, plan=(1.0, 1.0), own=(5.0, 9.0)))


# -- likelihoods ---------------------------------------------------------------------------------


def test_the_nats_of_every_arm_stand_where_they_belong_and_bounds_are_marked():
    """10 tokens of executions, 4 of plans."""
    flat_ar, flat, plan = likelihood_table([FLAT_AR, FLAT, PLAN]).rows
    assert flat_ar[1:4] == [None] * 3 and flat_ar[5] is None
    assert (flat_ar[4].value, flat_ar[4].is_bound) == (1.0, False)
    assert (flat[4].value, flat[4].is_bound) == (1.0, True)
    assert [cell.value for cell in plan[1:]] == pytest.approx([0.5, 1.0, 12 / 14, 1.2, 1.4])
    assert all(cell.is_bound for cell in plan[1:])


def test_of_a_next_token_model_with_a_plan_only_the_sum_over_plans_is_unknown():
    exact = arm("ar_plan", model(plan=(1.0, 1.0), own=(5.0, 9.0)))
    (row,) = likelihood_table([exact]).rows
    assert [cell.is_bound for cell in row[1:]] == [False, False, False, True, True]
    assert not exact.exact_of_execution and FLAT_AR.exact_of_execution


def test_the_lower_of_two_bounds_is_compared():
    assert list(PLAN.bounds_of_execution()) == ["gold plan", "own plans"]
    lower = arm("h", model(exact=False, plan=(3.0, 3.0), own=(5.0, 9.0)))
    assert list(lower.bounds_of_execution()) == ["own plans", "gold plan"]
    assert lower.kind_of_execution == "bound by own plans"
    assert (FLAT.kind_of_execution, FLAT_AR.kind_of_execution) == ("NELBO", "exact")


def test_other_tokens_and_other_problems_are_not_compared():
    other = model()
    other.tokens = {"execution": np.array([4, 7])}
    with pytest.raises(UserError, match="b and a were scored on different tokens"):
        comparison._check_same_tokens({"a": model(), "b": other})
    renamed = model()
    renamed.records = [{**record, "id": "x"} for record in renamed.records]
    with pytest.raises(UserError, match="different problems"):
        comparison._check_same_tokens({"a": model(), "b": renamed})
    comparison._check_same_tokens({"a": model(), "b": model(plan=(1.0, 1.0))})


# -- what is claimed -----------------------------------------------------------------------------


def contrast(first: Arm, second: Arm, nats: Estimate, accuracy: Estimate | None = None):
    return Contrast(first, second, accuracy or EITHER, nats)


CLAIMS = ("does not show which", "no difference can be told", "more probability than")
LOWER, HIGHER, EITHER = Estimate(-1, -2, -0.5), Estimate(1, 0.5, 2), Estimate(0.1, -1, 1)


@pytest.mark.parametrize(
    ("first", "second", "nats", "claim"),
    [
        # A bound below an exact value: more probability, beyond doubt.
        (FLAT, FLAT_AR, LOWER, "flat gives them more probability than ar_flat"),
        (FLAT_AR, FLAT_AR, HIGHER, "ar_flat gives them more probability than ar_flat"),
        # A bound above: nothing is shown.
        (FLAT, FLAT_AR, HIGHER, "does not show which"),
        (FLAT_AR, FLAT, LOWER, "does not show which"),
        (PLAN, FLAT, LOWER, "does not show which"),
        (PLAN, FLAT_AR, EITHER, "no difference can be told"),
    ],
)
def test_a_likelihood_is_called_higher_only_where_the_bounds_allow(first, second, nats, claim):
    sentence = likelihood_finding(contrast(first, second, nats))
    assert claim in sentence
    assert sum(claim in sentence for claim in CLAIMS) == 1


@pytest.mark.parametrize(
    ("accuracy", "claim"),
    [
        (Estimate(0.1, 0.02, 0.2), "flat answers more problems rightly than ar_flat"),
        (Estimate(-0.1, -0.2, -0.02), "flat answers fewer problems rightly than ar_flat"),
        (Estimate(0.1, -0.02, 0.2), "no difference in right answers can be told"),
    ],
)
def test_an_accuracy_is_called_better_only_where_the_interval_is(accuracy, claim):
    tests = [SeedTest("flat - ar_flat", s, 3, 1, 0.01, p) for s, p in ((0, 0.04), (1, 0.06))]
    sentence = accuracy_finding(contrast(FLAT, FLAT_AR, EITHER, accuracy), tests)
    assert claim in sentence and "in 1 of 2 seed(s)" in sentence


def test_tests_are_adjusted_for_all_of_the_study():
    """8 against 0 discordant: p = 2 / 2^8; four tests, so four times that at most."""
    better = [model(right=[True] * 8), model(right=[True] * 8)]
    worse = [model(right=[False] * 8), model(right=[False] * 8)]
    runs = [type("Run", (), {"seed": s})() for s in (0, 1)]
    a, b = Arm("a", runs, better), Arm("b", runs, worse)
    tests = comparison._tests([contrast(a, b, EITHER), contrast(b, a, EITHER)])
    assert [(t.label, t.seed) for t in tests] == [
        ("a - b", 0), ("a - b", 1), ("b - a", 0), ("b - a", 1)
    ]  # fmt: skip
    assert McNemar(tests[0].only_first, tests[0].only_second, tests[0].p) == McNemar(8, 0, 2 / 256)
    assert [t.adjusted for t in tests] == [4 * 2 / 256] * 4


def test_votes_count_numbers_not_spellings():
    voter = model(right=[False])
    voter.votes = [
        [{"predicted_strict": answer, "answer_numerical": "1000", "correct_strict": right}]
        for answer, right in (("5", False), ("1,000", True), ("1000.0", True), (None, False))
    ]
    assert voter.voted().tolist() == [True]
    table = accuracy_table([arm("a", voter)], {"best": 0.1})
    row = dict(zip((column.title for column in table.columns), table.rows[0]))
    assert row["maj@4"] == accuracy_estimate([True])
    assert row["one sample"].value == 0.5 and row["greedy, strict"].value == 0.0


def test_a_sweep_is_compared_with_the_same_seeds_and_its_bounds_are_marked():
    """Seed 0 is right twice, seed 1 never: by their rows alone fewer steps cost nothing."""
    first, second = (model(r, exact=False, plan=(1.0, 1.0)) for r in ([True] * 2, [False] * 2))
    first.varied["steps 1"] = (first.scores, model([True, False]).records)
    runs = [type("Run", (), {"seed": s})() for s in (0, 1)]
    block = model([True, False], exact=False, plan=(2.0, 2.0))
    arms = {
        "a": Arm("a", runs, [first, second]),
        "ar": Arm("ar", runs, [model(), model()]),
        "a-block2": Arm("a-block2", runs[:1], [block]),
    }
    usual, exact, blocks, steps = points = comparison._points(arms, ["a", "ar"])
    assert (usual.accuracy.value, usual.seeds, usual.difference) == (0.5, 2, None)
    for varied in (blocks, steps):
        assert (varied.family, varied.seeds) == ("a", 1)
        assert varied.accuracy.value == 0.5 and varied.difference.value == -0.5
    assert usual.nats.is_bound and blocks.nats.is_bound and not exact.nats.is_bound
    table = sweep_table(points, {})
    titles = [column.title for column in table.columns]
    assert [row[titles.index("seeds")] for row in table.rows] == [2, 2, 1, 1]
    assert "≤" in table.markdown().splitlines()[4] and "≤" not in table.markdown().splitlines()[5]


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("users", ["sampling.threshold=0.9", "sampling.method=first_hitting"])
def test_what_the_user_says_of_sampling_does_not_win_over_a_label(users, tmp_path):
    data = ("data.train_path=a.json", "data.test_path=a.json")
    opened = Study.open("comparison", [users, f"experiment.output_dir={tmp_path}", *data])
    run = opened.run("hierarchical", [], 0)

    def sampling(settings):
        group = compose(run.settings_of("sample_eval", *settings)).sampling
        return typed(SamplingConfig, group, "sampling")  # refuses what does not fit

    found = {label: sampling(s) for label, s in comparison._variations(run).items()}
    assert found["steps 2"].steps == 2 and found["steps 2"].threshold is None
    assert found["threshold 0.5"].threshold == 0.5
    assert {config.method for config in found.values()} == {"confidence"}
    drawn = sampling(comparison._drawn(run))
    assert (drawn.method, drawn.temperature, drawn.threshold) == ("first_hitting", 1, None)


def test_without_further_seeds_there_are_no_further_blocks():
    opened = Study.open("comparison", ["experiment.extra_seeds=[]"])
    assert comparison._block_arms(opened, "hierarchical", []) == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.compared=[hierarchical,flatt]", "no arm 'flatt'; choose from hierarchical"),
        ("experiment.sweep_arms=[x]", "experiment.sweep_arms: there is no arm 'x'"),
        ("experiment.majority_arms=[y]", "experiment.majority_arms: there is no arm 'y'"),
        ("experiment.compared=[]", "at least one arm"),
        ("experiment.extra_seeds=[9]", r"9 is none of experiment.seeds=\[0, 1, 2\]"),
    ],
)
def test_an_arm_or_seed_that_does_not_exist_is_refused_before_anything_is_trained(
    override, message, monkeypatch
):
    monkeypatch.setattr("hbd3lm.experiments.run._dispatch", None)
    with pytest.raises(UserError, match=message):
        comparison.run(Study.open("comparison", [override]))


def test_a_contrast_is_a_pair():
    opened = Study.open("comparison", ["experiment.contrasts=[[flat]]"])
    with pytest.raises(UserError, match=r"\['flat'\] is no pair of arms"):
        comparison._contrasts(opened.settings, {})


# -- budgets and speeds --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    from hbd3lm.data.records import HierarchicalExample, write_examples
    from hbd3lm.data.synthetic.laboratory import laboratory_problems
    from hbd3lm.plans.planner import load_planner

    problems, _ = laboratory_problems(12, 1)
    plans = load_planner("rules").plan(problems)
    path = tmp_path_factory.mktemp("data") / "examples.json"
    write_examples(
        path,
        [
            HierarchicalExample(p.id, p.question, plan, p.solution, p.answer)
            for p, plan in zip(problems, plans)
        ],
    )
    return path


def test_budgets_are_equal_in_what_was_asked_for(examples):
    opened = Study.open("comparison", [f"data.train_path={examples}", f"data.test_path={examples}"])
    arms = {name: list(opened.settings.arms[name]) for name in opened.settings.compared}
    equal = find_budgets(opened, arms, "problems")
    assert {b.problems for b in equal.values()} == {300 * 16}
    costly = equal["mdlm"].operations / equal["ar_flat"].operations
    assert costly > 2
    matched = find_budgets(opened, arms, "operations")
    first = matched["hierarchical"]
    assert first == equal["hierarchical"]
    for budget in matched.values():
        assert budget.operations == pytest.approx(first.operations, rel=0.01)
        assert budget.problems == budget.steps * 16
        assert budget.steps == 3 * budget.valid_every  # so that each ends with a validation
        assert f"training.max_steps={budget.steps}" in budget.settings
    assert matched["ar_flat"].steps > first.steps > matched["mdlm"].steps
    with pytest.raises(UserError, match="choose problems or operations"):
        find_budgets(opened, arms, "hours")


def test_parameters_are_those_of_the_networks(examples):
    from hbd3lm.commands.build import build_model_config
    from hbd3lm.model.cost import optimizer_operations
    from hbd3lm.model.transformer import Transformer

    opened = Study.open("comparison", [f"data.train_path={examples}", f"data.test_path={examples}"])
    arms = {name: list(opened.settings.arms[name]) for name in ("hierarchical", "separate")}
    found = find_budgets(opened, arms, "problems")
    for name, overrides in arms.items():
        cfg = compose([*opened.base, *overrides])
        net = Transformer(build_model_config(cfg, 4096))
        assert found[name].parameters == net.count_parameters()
    assert found["separate"].parameters == 2 * found["hierarchical"].parameters
    shared, separate = found["hierarchical"], found["separate"]
    # A token costs the same; the optimiser has twice the matrices.
    model = build_model_config(compose(opened.base), 4096)
    more = separate.operations - shared.operations
    assert more == pytest.approx(shared.steps * optimizer_operations(model, "muon"))
    assert separate.sampling_operations == pytest.approx(shared.sampling_operations, rel=0.01)


def test_a_pretrained_models_budget_is_of_its_own_network(examples, tmp_path):
    """Its sizes lie in the checkpoint, not in the configuration, and its head is shifted."""
    from importlib import resources

    from hbd3lm.model.families.pretrained import read_pretrained
    from tests.model.families.test_llama import make_checkpoint

    llama = make_checkpoint(tmp_path, vocab_size=4096, eos_token_id=None, hidden_size=32,
                            num_hidden_layers=3)  # fmt: skip
    file = resources.files("hbd3lm.data") / "tokenizer_files" / "gsm.json"
    (tmp_path / "tokenizer.json").write_bytes(file.read_bytes())
    data = (f"data.train_path={examples}", f"data.test_path={examples}")
    pretrained = ("model=pretrained", f"model.path={tmp_path}", "training.optimizer=adamw")
    opened = Study.open("comparison", [*data, *pretrained])
    found = find_budgets(opened, {"diffusion": ["algo=hierarchical"]}, "problems")["diffusion"]
    # The tokenizer has 4091 ids of its own; 5 special ones, the mask without a row in the head.
    rows = llama.get_input_embeddings().weight.numel() + llama.lm_head.weight.numel()
    inner = sum(p.numel() for p in llama.parameters()) - rows
    assert read_pretrained(tmp_path).fields["n_layers"] == 3
    assert found.parameters == inner + 4096 * 32 + 4095 * 32
    # Clean tokens predict, too: more than the same network costs without a shifted head.
    plain = find_budgets(
        opened, {"x": ["algo=hierarchical", "model.shift=false"]}, "problems"
    )["x"]  # fmt: skip
    assert found.operations > plain.operations


class Sampled:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def speed(self) -> dict[str, float]:
        return {"tokens_per_second": 100 / self.seconds, "problems_per_second": 1 / self.seconds}


def test_speeds_are_compared_within_a_round_and_the_first_round_warms_up(monkeypatch, tmp_path):
    """The machine is twice as slow in the second round; the ratio does not notice."""
    seconds = iter([99, 99, 1, 2, 2, 4, 1, 1])
    monkeypatch.setattr(race, "_sample", lambda *_: Sampled(next(seconds)))
    monkeypatch.setattr(Study, "examples", lambda self, split: [])
    opened = Study.open("comparison", [f"experiment.output_dir={tmp_path / 'x'}"])

    class Run:
        name, weights = "run", "0"

        def settings_of(self, *words):
            return list(words)

        def load(self):
            return None

    contestants = [Contestant("a", Run()), Contestant("b", Run(), ("sampling.steps=1",))]
    speeds = race.race(opened, contestants, 1, 3)
    assert speeds["a"].tokens == Estimate(100.0, 50.0, 100.0)
    assert speeds["b"].relative == Estimate(0.5, 0.5, 1.0)
    assert race.race(opened, contestants, 1, 3) == speeds  # kept: no seconds are left to draw


# -- all of it -----------------------------------------------------------------------------------


def test_the_comparison_in_small_ends_in_its_tables_and_is_read_again(
    data_dir, monkeypatch, tmp_path, capsys
):
    """On real problems, from the command line to every file; the second time nothing is run."""
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(data_dir))
    command = [
        "comparison", "--smoke", f"experiment.output_dir={tmp_path / 'results' / 'small'}",
        "experiment.seeds=[0]", "experiment.compared=[hierarchical,ar_flat]",
        "experiment.contrasts=[[hierarchical,ar_flat]]", "experiment.majority=1",
        "experiment.sweep_blocks=[]", "experiment.speed_problems=2", "eval.num_examples=2",
        "data.num_train=20", "training.max_steps=2", "training.valid_every=2",
        "model.dim=32", "model.n_layers=1", "training.hierarchical.plan_len=16",
        "training.hierarchical.exec_len=16", "trainer.accelerator=cpu",
    ]  # fmt: skip
    assert experiment.main(command) == 0
    folder = tmp_path / "results" / "small"
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert set(metrics["tables"]) == {
        "accuracy", "differences", "mcnemar", "likelihood", "speed", "sweeps", "budget"
    }  # fmt: skip
    records = [
        json.loads(line)
        for line in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [r["model"] for r in records] == ["hierarchical-seed0"] * 2 + ["ar_flat-seed0"] * 2
    hierarchical, ar_flat = (
        sum(r["nats"]["all"] for r in part) for part in (records[:2], records[2:])
    )
    with (folder / "likelihood.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    tokens = json.loads(json.dumps(metrics["tables"]["likelihood"]))["note"]
    executions = int(tokens.split(" and ")[1].split(" of executions")[0].replace(",", ""))
    for row, nats in zip(rows, (hierarchical, ar_flat)):
        assert float(row["execution given question"]) == pytest.approx(nats / executions)
    bound, exact = metrics["tables"]["likelihood"]["rows"]
    assert bound["execution given question"]["is_bound"]
    assert "is_bound" not in exact["execution given question"]
    speeds = {row["model"]: row for row in metrics["tables"]["speed"]["rows"]}
    assert speeds["ar_flat"]["evaluations a token"] >= 1
    assert any("one seed a method says nothing about other seeds" in f for f in metrics["findings"])
    assert (folder / "figure.png").stat().st_size > 10_000
    page = (folder / "report.md").read_text(encoding="utf-8")
    monkeypatch.setattr("hbd3lm.experiments.run._dispatch", None)
    capsys.readouterr()
    assert experiment.main(command) == 0
    assert (folder / "report.md").read_text(encoding="utf-8") == page
