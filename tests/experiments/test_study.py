"""A study does every step once: resumed, divided among processes, taken again when settings change.

Training and evaluation are stood in for where only their order counts; one study is real.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from hbd3lm.commands import experiment
from hbd3lm.errors import UserError
from hbd3lm.experiments.registry import EXPERIMENTS, load_experiment
from hbd3lm.experiments.settings import compose
from hbd3lm.experiments.study import BELONG, Study
from hbd3lm.lock import output_lock

EXAMPLES = [
    {
        "id": str(i),
        "question": f"{a} and {b}?",
        "plan": "Add.",
        "execution": f"{a}+{b}={a + b}\n#### {a + b}",
        "answer_numerical": str(a + b),
    }
    for i, (a, b) in enumerate([(1, 2), (3, 4), (5, 6), (7, 8), (2, 9), (4, 4), (6, 1), (3, 3)])
]
TINY = (
    "model.dim=16", "model.n_layers=1", "model.n_heads=2",
    "training.max_steps=2", "training.valid_every=2", "training.batch_size=2",
    "training.hierarchical.question_len=16", "training.hierarchical.plan_len=8",
    "training.hierarchical.exec_len=16", "eval.samples=1", "trainer.accelerator=cpu",
    "trainer.loggers=[csv]", "trainer.progress_bar=false",
)  # fmt: skip


@pytest.fixture
def open_study(tmp_path):
    path = tmp_path / "examples.json"
    path.write_text(json.dumps(EXAMPLES), encoding="utf-8")

    def make(*overrides: str, folder: str = "results/abstraction") -> Study:
        return Study.open(
            "abstraction",
            [
                f"experiment.output_dir={tmp_path / folder}",
                f"data.train_path={path}",
                f"data.test_path={path}",
                *TINY,
                *overrides,
            ],
        )

    return make


def write_gsm8k(folder, times: int) -> None:
    """``EXAMPLES``, so many times over, as GSM8K's two files."""
    rows = [{"question": e["question"], "answer": e["execution"]} for e in EXAMPLES] * times
    for split in ("train", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"gsm8k_{split}.jsonl").write_text(lines)


class Steps:
    """Stands in for ``main.py``: notes every step and leaves the files that it would leave."""

    def __init__(self, monkeypatch) -> None:
        self.done: list[str] = []
        self.fail_at: str | None = None
        monkeypatch.setattr("hbd3lm.experiments.run._dispatch", self)

    def __call__(self, cfg) -> None:
        self.done.append(cfg.mode)
        if cfg.mode == self.fail_at:
            raise KeyboardInterrupt
        if cfg.mode == "train":
            folder = Path(cfg.run_dir) / "checkpoints"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "last.ckpt").write_text(f"{cfg.seed} {cfg.training.max_steps}")
            self._write(Path(cfg.run_dir) / "train_summary.json", {"steps": cfg.training.max_steps})
            return
        names = {
            "ppl_eval": ("perplexity.json", "perplexity.jsonl"),
            "sample_eval": (
                f"sample_eval_{cfg.sampling.mode}.json",
                f"samples_{cfg.sampling.mode}.jsonl",
            ),
        }[cfg.mode]
        for name in names:
            content = {"number": len(self.done), "samples": cfg.eval.samples}
            self._write(Path(cfg.eval.output_dir) / name, content)

    @staticmethod
    def _write(path: Path, content: dict) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def steps(monkeypatch) -> Steps:
    return Steps(monkeypatch)


def work(run):
    run.train()
    return run.perplexity(), run.sample()


# -- once ----------------------------------------------------------------------------------------


def test_a_finished_study_is_read_not_made_again(open_study, steps):
    first = open_study()
    found = first.each([first.run("shared", [], seed) for seed in (0, 1)], work)
    assert steps.done == ["train", "ppl_eval", "sample_eval"] * 2
    again = open_study()
    assert again.each([again.run("shared", [], seed) for seed in (0, 1)], work) == found
    assert len(steps.done) == 6


def test_after_each_model_a_study_says_how_many_are_done_and_what_is_left(
    open_study, steps, monkeypatch, capsys
):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    study = open_study()
    runs = [study.run("shared", [], seed) for seed in (0, 1, 2)]
    seconds = dict(zip((run.name for run in runs), (0.5, 240.0, 120.0)))

    def slow(run):
        now[0] += seconds[run.name]

    study.each(runs, slow)
    said = [line for line in capsys.readouterr().out.splitlines() if " models" in line]
    # The first was there already, and does not count for the pace.
    assert said == [
        f"[{study.name}] 2 of 3 models, about 4 min left",
        f"[{study.name}] 3 of 3 models",
    ]


def test_where_another_process_helps_the_minutes_left_are_said_to_be_of_one_alone(
    open_study, steps, monkeypatch, capsys
):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    study = open_study()
    runs = [study.run("shared", [], seed) for seed in (0, 1, 2)]
    other = output_lock(runs[0].model)

    def slow(run):
        now[0] += 120.0
        if run is runs[2]:
            other.__exit__(None, None, None)  # it has finished

    other.__enter__()
    study.each(runs, slow)
    said = [line for line in capsys.readouterr().out.splitlines() if " models" in line]
    assert said == [
        f"[{study.name}] 1 of 3 models, about 4 min left for this process alone",
        f"[{study.name}] 2 of 3 models, about 2 min left for this process alone",
        f"[{study.name}] 3 of 3 models",
    ]


def test_a_study_killed_between_steps_goes_on_with_the_step_that_was_not_finished(
    open_study, steps
):
    steps.fail_at = "sample_eval"
    first = open_study()
    with pytest.raises(KeyboardInterrupt):
        first.each([first.run("shared", [], 0)], work)
    steps.fail_at = None
    again = open_study()
    again.each([again.run("shared", [], 0)], work)
    assert steps.done == ["train", "ppl_eval", "sample_eval", "sample_eval"]


def test_a_step_whose_result_came_without_its_stamp_is_made_again(open_study, steps):
    first = open_study()
    run = first.run("shared", [], 0)
    run.train()
    run.perplexity()
    (run.folder / "eval" / "perplexity.json.stamp").unlink()
    run.perplexity()
    assert steps.done == ["train", "ppl_eval", "ppl_eval"]


def test_a_stamp_never_outlives_the_result_it_speaks_of(open_study, steps):
    """Killed half-way through other settings, then those of before again: made anew, not mixed."""
    work(open_study().run("shared", [], 0))
    steps.fail_at = "sample_eval"
    other = open_study("sampling.temperature=0.5").run("shared", [], 0)
    with pytest.raises(KeyboardInterrupt):
        work(other)
    (other.folder / "eval" / "samples_full.jsonl").write_text('{"of": "the other settings"}')
    steps.fail_at = None
    steps.done.clear()
    _, (_, records) = work(open_study().run("shared", [], 0))
    assert steps.done == ["ppl_eval", "sample_eval"]
    assert records != [{"of": "the other settings"}]


def test_only_test_problems_are_limited_by_the_number_evaluated(open_study):
    one = open_study("eval.num_examples=1", "data.valid_size=3", "data.num_train=null")
    assert len(one.examples("test")) == 1
    valid = open_study("data.valid_path=" + compose(one.base).data.test_path, "eval.num_examples=1")
    assert len(valid.examples("valid")) == len(EXAMPLES)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["algo=ar", "algo.schedule=searched"], "ar-seed0: algo.schedule=searched: next-token"),
        (["training.batch_size=0"], "ar-seed0: training.batch_size"),
        (["sampling.top_p=2"], "ar-seed0: sampling.top_p"),
        (["eval.samples=0"], "ar-seed0: eval.samples"),
        (["modle=nano"], "ar-seed0: .*modle"),
    ],
)
def test_an_arm_that_cannot_start_is_refused_before_any_arm_is_trained(
    open_study, steps, settings, said
):
    opened = open_study()
    runs = [opened.run("shared", [], 0), opened.run("ar", settings, 0)]
    with pytest.raises(UserError, match=said):
        opened.each(runs, work)
    assert steps.done == []


def test_training_stopped_by_a_signal_ends_the_study_with_its_status(open_study, monkeypatch):
    monkeypatch.setattr("hbd3lm.commands.run.dispatch", lambda cfg: 75)
    run = open_study().run("shared", [], 0)
    with pytest.raises(SystemExit) as stopped:
        run.train()
    assert stopped.value.code == 75


def test_a_model_trained_too_briefly_is_trained_on(open_study, steps):
    open_study().run("shared", [], 0).train()
    run = open_study().run("shared", [], 0)
    summary = run.model / "train_summary.json"
    summary.write_text('{"steps": 1}')
    run.train()
    assert steps.done == ["train", "train"]


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ("eval.samples=2", ["ppl_eval", "sample_eval"]),
        ("sampling.temperature=0.5", ["ppl_eval", "sample_eval"]),
        ("training.max_steps=3", ["train", "ppl_eval", "sample_eval"]),
        ("training.learning_rate=1e-4", ["train", "ppl_eval", "sample_eval"]),
    ],
)
def test_what_a_changed_setting_touches_is_made_again_and_nothing_else(
    open_study, steps, change, again
):
    first = open_study()
    first.each([first.run("shared", [], 0)], work)
    steps.done.clear()
    other = open_study(change)
    other.each([other.run("shared", [], 0)], work)
    assert steps.done == again


def test_other_weights_or_problems_are_evaluated_again(open_study, steps, tmp_path):
    run = open_study().run("shared", [], 0)
    work(run)
    (run.model / "checkpoints" / "last.ckpt").write_text("trained further")
    steps.done.clear()
    work(open_study().run("shared", [], 0))
    assert steps.done == ["ppl_eval", "sample_eval"]
    test = tmp_path / "test.json"
    for examples in (EXAMPLES[:4], EXAMPLES[4:]):
        test.write_text(json.dumps(examples), encoding="utf-8")
        steps.done.clear()
        work(open_study(f"data.test_path={test}").run("shared", [], 0))
        assert steps.done == ["ppl_eval", "sample_eval"]


@pytest.mark.parametrize("key", ["data.train_path", "data.valid_path", "training.init_from"])
def test_a_model_is_trained_again_when_what_it_learns_from_is_another_file(
    open_study, steps, tmp_path, key
):
    """Plans made anew under the same name: the old model would pass for one of the new plans."""
    given = tmp_path / "given.json"
    for examples in (EXAMPLES[:4], EXAMPLES[4:], EXAMPLES[4:]):
        given.write_text(json.dumps(examples), encoding="utf-8")
        work(open_study(f"{key}={given}").run("shared", [], 0))
    assert steps.done == ["train", "ppl_eval", "sample_eval"] * 2


def test_a_start_from_the_store_is_named_by_its_settings_alone(open_study, steps):
    """Its weights are not there before it is trained, and a run's name may not change by that."""
    source = open_study().run("source", [], 0)
    settings = [f"training.init_from={source.model}"]
    before = open_study().run("tuned", settings, 0).model
    source.train()
    assert open_study().run("tuned", settings, 0).model == before


def test_how_a_step_is_computed_names_no_model(open_study):
    """The same weights come of it, and they are found again."""
    model = open_study().run("shared", [], 0).model
    assert open_study("trainer.activation_checkpoint=block").run("shared", [], 0).model == model
    assert open_study("trainer.precision=bf16-mixed").run("shared", [], 0).model != model


def test_studies_side_by_side_share_trained_models(open_study, steps):
    work(open_study(folder="results/one").run("shared", [], 0))
    work(open_study(folder="results/two").run("other name", [], 0))
    assert steps.done == ["train", "ppl_eval", "sample_eval", "ppl_eval", "sample_eval"]


def test_what_a_study_measures_itself_is_kept_until_it_depends_on_something_else(open_study):
    made = []

    def measure() -> dict:
        made.append(1)
        return {"number": len(made)}

    one = open_study()
    assert one.once("race", {"rounds": (1, 2)}, measure)["number"] == 1
    assert open_study().once("race", {"rounds": (1, 2)}, measure)["number"] == 1
    assert one.once("race", {"rounds": (1, 3)}, measure)["number"] == 2


# -- several processes ---------------------------------------------------------------------------


def test_problems_that_stand_in_are_named_and_kept_apart_from_the_real_ones(
    tmp_path, monkeypatch, capsys
):
    """Under the same name they would pass for GSM8K ever after, also when it is to be had."""
    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setattr("hbd3lm.data.hub_datasets.hub_reachable", lambda *a, **k: False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    place = f"experiment.output_dir={tmp_path / 'results' / 'abstraction'}"
    offline = Study.open("abstraction", [place], smoke=True)
    assert offline.examples("train")[0].id.startswith("embedded_")
    assert "NOT GSM8K" in capsys.readouterr().err
    assert offline.problems == "embedded problems, in place of gsm8k, which could not be had"
    model = offline.run("shared", [], 0).model

    write_gsm8k(tmp_path, 40)
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(tmp_path))
    later = Study.open("abstraction", [place], smoke=True)
    assert later.examples("train")[0].id.startswith("gsm8k_")
    assert later.problems == "gsm8k"
    assert later.run("shared", [], 0).model != model


def test_problems_changed_in_the_users_folder_are_noticed(tmp_path, monkeypatch):
    """Prepared data are found by their settings, which are the same for a folder's new content."""
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(tmp_path))
    place = f"experiment.output_dir={tmp_path / 'results' / 'abstraction'}"
    small = ["data.num_train=null", "eval.num_examples=null"]

    def prepare() -> tuple[tuple[str, ...], int]:
        found = Study.open("abstraction", [place, *small], smoke=True)
        return found.data, len(found.examples("test"))

    write_gsm8k(tmp_path, 20)
    first = prepare()
    assert first[1] == 20 * len(EXAMPLES)
    assert prepare() == first
    write_gsm8k(tmp_path, 40)
    other = prepare()
    assert other[1] == 40 * len(EXAMPLES)
    assert not set(other[0]) & set(first[0])
    assert prepare() == other
    write_gsm8k(tmp_path, 20)
    assert prepare() == first


def test_a_setting_under_its_short_name_overrides_the_studys_own(tmp_path):
    place = f"experiment.output_dir={tmp_path / 'comparison'}"
    cfg = compose(Study.open("comparison", [place, "hierarchical.plan_len=32"]).base)
    assert cfg.training.hierarchical.plan_len == cfg.hierarchical.plan_len == 32


def test_a_run_that_another_process_holds_is_left_for_last(open_study, steps):
    one = open_study()
    runs = [one.run("shared", [], seed) for seed in (0, 1)]
    order: list[str] = []

    def note(run):
        order.append(run.name)
        return run.name

    with output_lock(runs[0].model):
        worker = threading.Thread(target=lambda: order.append(str(one.each(runs, note))))
        worker.start()
        while not order:
            worker.join(0.01)
        assert order == ["shared-seed1"]
    worker.join(30)
    assert order == ["shared-seed1", "shared-seed0", "['shared-seed0', 'shared-seed1']"]


def test_two_processes_divide_the_runs(open_study, steps, monkeypatch):
    """Each step is made once, whichever of the two makes it; both have all results."""
    studies = [open_study(), open_study()]
    found: dict[int, list] = {}

    def take_part(number: int) -> None:
        mine = [studies[number].run("shared", [], seed) for seed in range(3)]
        found[number] = studies[number].each(mine, work)

    workers = [threading.Thread(target=take_part, args=(i,)) for i in range(2)]
    # Hydra's configuration store is one a process: two real processes have two.
    composing = threading.Lock()

    def one_at_a_time(overrides):
        with composing:
            return compose(overrides)

    for module in ("problems", "run", "settings", "study"):
        monkeypatch.setattr(f"hbd3lm.experiments.{module}.compose", one_at_a_time)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(steps.done) == ["ppl_eval"] * 3 + ["sample_eval"] * 3 + ["train"] * 3
    assert found[0] == found[1]


# -- a real one ----------------------------------------------------------------------------------


def test_a_real_run_is_what_the_printed_commands_make(open_study, tmp_path):
    """Train, likelihood, samples: every file where it is looked for, read again without a step."""
    one = open_study()
    run = one.run("shared", ["hierarchical.modules=shared"], 3)
    assert run.train()["steps"] == 2
    likelihood, rows = run.likelihoods()
    result, records = run.sample("drawn", "full", "sampling.temperature=1")
    assert len(rows) == len(records) == len(EXAMPLES) == result["problems"]
    total = sum(row["nats"]["all"] for row in rows) / sum(row["tokens"]["all"] for row in rows)
    assert likelihood["segments"]["all"]["nats_per_token"] == pytest.approx(total)
    assert [row["id"] for row in rows] == [example["id"] for example in EXAMPLES]
    config = (run.model / "config.yaml").read_text(encoding="utf-8")
    assert "seed: 3" in config
    again = open_study().run("shared", ["hierarchical.modules=shared"], 3)
    assert again.weights == run.weights and again.likelihoods() == (likelihood, rows)
    assert run.load().card.layout.max_len == 40


# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=1", "seed=1: an experiment sets seed for its runs itself; use experiment.seeds"),
        ("run_dir=x", "run_dir=x: an experiment sets run_dir"),
        ("checkpoint=x", "sets checkpoint for its runs itself"),
        ("experiment.seedz=[1]", "unknown key 'experiment.seedz'"),
        ("training.max_stepz=1", "did you mean training.max_steps"),
        ("experiment.seeds=[]", "at least one seed"),
        ("trainer.devices=2", "trains its runs in one process"),
        ("eval.split=valid", "compares models with the data's test problems"),
    ],
)
def test_settings_that_do_not_fit_are_refused(override, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        Study.open("abstraction", [override])


def test_data_or_a_model_of_the_users_leave_the_experiments_own_out():
    own = Study.open("comparison")
    for group, belong in BELONG.items():
        assert any(o.startswith(belong) for o in own.base)
        other = {"data": "data=svamp", "model": "model=tiny"}[group]
        users = Study.open("comparison", [other])
        assert [o for o in users.base if o.startswith(belong)] == [other]
    cfg = compose(Study.open("comparison", ["data=svamp", "model=tiny"]).base)
    assert cfg.data.name == "svamp" and cfg.hierarchical.question_len == 128
    assert cfg.model.n_layers == 8


def test_the_users_settings_win_over_the_experiments_and_the_smoke_size():
    small = Study.open("abstraction", ["experiment.seeds=[5]", "training.max_steps=7"], smoke=True)
    assert small.seeds == [5] and small.settings.smoke
    assert compose(small.base).training.max_steps == 7
    assert small.folder.name == "abstraction_smoke"


@pytest.mark.parametrize("name", ["abstraction", "comparison"])
def test_every_experiment_opens_in_both_sizes(name):
    assert callable(load_experiment(name))
    for smoke in (False, True):
        assert Study.open(name, smoke=smoke).name == name


# -- the command ---------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The studies that a command would run."""
    found: list[Study] = []

    def load(name):
        def run(study):
            found.append(study)
            raise UserError("enough")

        return run

    monkeypatch.setattr(experiment, "load_experiment", load)
    return found


def test_the_mode_and_the_verb_are_the_same_study(opened):
    with pytest.raises(UserError, match="enough"):
        experiment.main(["abstraction", "--smoke", "model=tiny", "experiment.seeds=[4]"])
    with pytest.raises(UserError, match="enough"):
        experiment.run_mode(
            [
                "mode=experiment",
                "experiment=abstraction",
                "experiment.smoke=true",
                "model=tiny",
                "experiment.seeds=[4]",
            ]
        )
    verb, mode = opened
    assert verb.settings == mode.settings and verb.base == mode.base
    assert verb.settings.smoke and verb.seeds == [4]


def test_the_mode_needs_one_experiment():
    with pytest.raises(UserError, match="choose from abstraction, comparison"):
        experiment.run_mode(["mode=experiment"])


def test_an_unknown_experiment_is_refused_by_the_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        experiment.main(["comparisn"])
    assert stopped.value.code == 2
    assert "comparisn" in capsys.readouterr().err


def test_help_names_every_experiment(capsys):
    with pytest.raises(SystemExit) as stopped:
        experiment.main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert all(name in text and what in text for name, what in EXPERIMENTS.items())
