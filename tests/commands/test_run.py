"""``main.py``: the overrides of the spec, one tiny run from training to a sample, bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import OmegaConf

from hbd3lm.commands import build, run
from hbd3lm.data.records import HierarchicalExample, read_examples, write_examples
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.train.config import TrainingConfig

REPOSITORY = Path(__file__).parents[2]
TINY = ("model=nano", "model.dim=32", "model.n_heads=2", "model.n_layers=2")
STEPS = (
    "training.max_steps=5",
    "training.batch_size=4",
    "training.valid_every=5",
    "training.checkpoint_every=2",
    "training.valid_samples=1",
    "trainer=cpu",
    "trainer.precision=32-true",
    "trainer.loggers=[csv]",
)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compose(*overrides: str):
    run.check_overrides(list(overrides))
    with hydra.initialize_config_dir(run.CONFIGS, version_base=None):
        return hydra.compose("config", overrides=list(overrides))


def main(*overrides: str) -> int:
    """The exit status of ``python main.py OVERRIDES``, in this process."""
    before = sys.argv
    sys.argv = [str(REPOSITORY / "main.py"), *overrides]
    try:
        run.main()
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = before
    return 0


def make_examples(count: int, start: int = 0) -> list[HierarchicalExample]:
    return [
        HierarchicalExample(
            problem.id, problem.question, "Add, then share.", problem.solution, problem.answer
        )
        for problem in generate_problems("train", start + count, 0, 1, 1)[start:]
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A data file and a run trained on it through the command line."""
    folder = tmp_path_factory.mktemp("home")
    write_examples(folder / "train.json", make_examples(20))
    write_examples(folder / "test.json", make_examples(4, start=20))
    status = main(
        "mode=train", *TINY, *STEPS, "training.hierarchical.enabled=true",
        f"data.train_path={folder}/train.json", f"run_dir={folder}/run",
    )  # fmt: skip
    assert status == 0
    return folder


def evaluate(home: Path, mode: str, *overrides: str) -> int:
    return main(
        f"mode={mode}", f"run_dir={home}/run", "trainer=cpu", "sampling.batch_size=4",
        f"data.test_path={home}/test.json", f"data.train_path={home}/train.json", *overrides,
    )  # fmt: skip


# -- overrides ------------------------------------------------------------------------------


def test_the_specs_quick_test_parses_as_printed():
    cfg = compose(
        "mode=train",
        "model=tiny",
        "training.max_steps=1000",
        "training.hierarchical.enabled=true",
        "data.train_path=data/gsm8k/gsm8k_hierarchical_train.json",
    )
    assert (cfg.mode, cfg.model.dim, cfg.model.n_layers) == ("train", 256, 8)
    assert cfg.training.max_steps == 1000
    assert cfg.data.train_path == "data/gsm8k/gsm8k_hierarchical_train.json"
    layout = build.build_layout(cfg)
    assert (layout.question_len, [s.max_len for s in layout.segments]) == (128, [128, 256])


def test_the_specs_training_settings_are_the_defaults():
    cfg = compose()
    config = build.typed(TrainingConfig, cfg.training, "training")
    assert (config.max_steps, config.batch_size, config.learning_rate) == (50_000, 32, 3e-4)
    assert {s.block_size for s in build.build_layout(cfg).segments} == {16}


def test_the_specs_training_overrides_reach_the_settings():
    cfg = compose(
        "training.batch_size=16", "training.learning_rate=3e-4", "training.warmup_steps=10000",
        "training.hierarchical.question_len=64",
    )  # fmt: skip
    config = build.typed(TrainingConfig, cfg.training, "training")
    assert (config.batch_size, config.learning_rate) == (16, 3e-4)
    assert config.resolved_warmup_steps == 10_000
    assert build.build_layout(cfg).question_len == 64


@pytest.mark.parametrize(
    "overrides, blocks",
    [
        (["block_size=8"], [8, 8]),
        (["training.block_size=8"], [8, 8]),
        (["hierarchical.plan_block_size=4"], [4, 16]),
        (["training.hierarchical.exec_block_size=32"], [16, 32]),
        (["block_size=8", "hierarchical.exec_block_size=4"], [8, 4]),
        (["algo=mdlm"], [128, 256]),
        (["algo=mdlm", "hierarchical.plan_len=64"], [64, 256]),
        (["algo=ar"], [1, 1]),
        (["algo=flat"], [16]),
        (["algo=flat", "block_size=4"], [4]),
    ],
)
def test_block_sizes_follow_the_algorithm_and_both_spellings(overrides, blocks):
    layout = build.build_layout(compose(*overrides))
    assert [segment.block_size for segment in layout.segments] == blocks


@pytest.mark.parametrize("model", ["nano", "tiny", "small", "medium"])
def test_every_model_size_is_a_valid_network(model):
    assert build.build_model_config(compose(f"model={model}"), 1000).n_layers > 0


def test_separate_modules_are_matched_as_the_setting_says_and_training_tells():
    separate = ["model=nano", "hierarchical.modules=separate"]
    like, matched = compose(*separate), compose(*separate, "hierarchical.match=parameters")
    assert build.build_model_config(like, 4096).dim == 128
    assert build.build_model_config(matched, 4096).dim < 128
    assert run._name_model(like) == "nano with separate modules (as many operations as shared)"
    assert run._name_model(matched) == "nano with separate modules (as many parameters as shared)"
    frozen = compose(*separate, "training.freeze=plan")
    assert run._name_model(frozen).endswith(" as shared), plan frozen")


@pytest.mark.parametrize(
    "overrides, lengths",
    [
        (["training.hierarchical.total_len=384"], (96, 96, 192)),
        (["hierarchical.total_len=384"], (96, 96, 192)),
        (["hierarchical.total_len=600"], (128, 128, 256)),
        (["hierarchical.total_len=500"], (125, 112, 240)),
        (["hierarchical.total_len=384", "algo=mdlm"], (96, 96, 192)),
        (["hierarchical.total_len=192", "algo=flat"], (64, 128)),
        (["hierarchical.total_len=384", "algo=ar"], (96, 96, 192)),
    ],
)
def test_total_len_shrinks_the_caps_in_proportion_to_whole_blocks(overrides, lengths):
    layout = build.build_layout(compose(*overrides))
    assert (layout.question_len, *(s.max_len for s in layout.segments)) == lengths
    assert layout.max_len <= 600


def test_the_gpt2_tokenizer_is_found_in_the_data_folder(data_dir):
    cfg = compose("tokenizer=gpt2", f"data.dir={data_dir}")
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    card = build.build_card(cfg, tokenizer)
    assert card.model.vocab_size == 50_257 + 5
    assert card.tokenizer["name"] == "gpt2"


@pytest.mark.parametrize(
    "text",
    [
        "Tom has 3 apples, and eats (1). How many?",
        "It's [5]: {x} = $3.50, 'no' or \"yes\"? 100% + a=b",
        'back\\slash \\" end\\',
        "${seed} and \\n",
        "Zwei Zeilen\nÄpfel",
        "3",
    ],
)
def test_any_question_reaches_the_sampler_as_typed(text):
    quoted = run.quote_text(f"sampling.question={text}")
    assert str(compose(quoted).sampling.question) == text
    assert run.quote_text(quoted) == quoted  # a process started anew is given it again


# -- bad overrides --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override, message",
    [
        ("training.max_step=5", "did you mean training.max_steps?"),
        ("trainng.max_steps=5", "did you mean training.max_steps?"),
        ("max_steps=5", "did you mean training.max_steps?"),
        ("blocksize=8", "did you mean block_size?"),
        ("mdoel=tiny", "did you mean model?"),
        ("modle=nano", "did you mean model?"),  # not mode, which is as near
        ("moel=nano", "did you mean model?"),
        ("mdoe=sample", "did you mean mode?"),
        (
            "model=huge",
            "model=huge: there is no such model; choose from medium, nano, pretrained, small, tiny",
        ),
        ("algo=gan", "choose from ar, flat, hierarchical, mdlm"),
        ("training.max_steps", "write KEY=VALUE"),
    ],
)
def test_what_is_not_in_the_configuration_is_refused_with_a_suggestion(override, message, capsys):
    assert main(override) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "pair",
    [
        ["hierarchical.plan_len=64", "training.hierarchical.plan_len=32"],
        ["training.hierarchical.modules=separate", "hierarchical.modules=shared"],
        ["hierarchical.enabled=true", "training.hierarchical.enabled=false"],
        ["block_size=8", "training.block_size=4"],
    ],
)
def test_two_names_of_one_setting_with_two_values_are_refused_by_both(pair, capsys):
    """The short name used to win in silence."""
    assert main(*pair, "mode=sample") == 1
    error = capsys.readouterr().err
    assert all(override in error for override in pair) and "is the short name of" in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_flags_of_hydra_do_not_lead_around_that_check(tmp_path):
    pair = ["hierarchical.plan_len=64", "training.hierarchical.plan_len=32"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), "--multirun", "mode=sample", *pair],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {pair[0]} contradicts {pair[1]}")


def test_two_names_of_one_setting_with_one_value_are_no_contradiction():
    cfg = compose("hierarchical.plan_len=64", "training.hierarchical.plan_len=64")
    assert build.build_layout(cfg).segments[0].max_len == 64
    # One name each for two settings: what the specification's commands do.
    compose("training.hierarchical.enabled=true", "hierarchical.total_len=384", "block_size=4")


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["training.max_steps=abc"], "training.max_steps: Value 'abc'"),
        (["training.max_steps=0"], "training.max_steps must be at least 1, got 0"),
        (["training.learning_rate=fast"], "training.learning_rate: Value 'fast'"),
        (["training.learning_rate=nan"], "training.learning_rate=nan: a finite number"),
        (["training.weight_decay=inf"], "training.weight_decay=inf: a finite number"),
        (["mode=ppl_eval", "eval.precision=nan"], "eval.precision=nan: a finite number"),
        (["mode=trian"], "mode=trian: choose one of train, ppl_eval, sample_eval, sample"),
        (["seed=abc"], "seed=abc: a whole number from 0 up is needed"),
        (["seed=-1"], "seed=-1: a whole number from 0 up is needed"),
        (["hierarchical.plan_len=100"], "hierarchical.plan_len=100 is no positive multiple"),
        (["block_size=24"], "set hierarchical.plan_len=120 or 144"),
        (["block_size=big"], "hierarchical.plan_block_size: Value 'big'"),
        (["hierarchical.enabled=perhaps"], "hierarchical.enabled: Value 'perhaps'"),
        (["hierarchical.total_len=20"], "hierarchical.total_len=20 leaves no whole block"),
        (["algo=ar", "block_size=4"], "algo=ar predicts token by token: block_size must be 1"),
        (["algo=flat", "hierarchical.modules=separate"], "modules=separate needs a plan"),
        (["model.dim=30"], "model.dim=30 is no multiple of model.n_heads=8"),
        (["algo.t_min=1"], "algo.t_min=1"),
        (["algo.schedule=cubic"], "algo.schedule=cubic: choose loglinear or searched"),
        (
            ["algo=ar", "algo.schedule=searched"],
            "algo.schedule=searched: next-token prediction has",
        ),
        (["training.optimizer=sgd"], "training.optimizer=sgd: choose one of adamw, muon"),
        (["hierarchical.match=size"], "hierarchical.match=size: choose one of operations, param"),
        (["hierarchical.match=parameters"], "hierarchical.match=parameters is for"),
        (["training.freeze=all"], "training.freeze=all: choose one of null, plan, execution"),
        (["training.freeze=plan"], "training.freeze=plan: with hierarchical.modules=shared"),
        (["training.freeze=plan", "algo=flat"], "without a plan there is one module only"),
        (["training.freeze=plan", "algo=ar"], "training.freeze=plan: algo=ar has one causal"),
        (
            ["training.freeze=execution", "hierarchical.modules=separate"],
            "give training.init_from=RUN",
        ),
        (["trainer.num_workers=-1"], "trainer.num_workers must not be negative, got -1"),
        (["trainer.num_nodes=0"], "trainer.num_nodes must be at least 1, got 0"),
        (["trainer.devices=0"], "trainer.devices must be at least 1, or auto; got 0"),
        (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: choose one of auto"),
        (["data.valid_size=0"], "data.valid_size must be at least 1, got 0"),
        (["data.num_train=few"], "data.num_train: Value 'few'"),
        (["tokenizer.name=./nowhere"], "tokenizer: no such folder: nowhere"),
        (["mode=sample"], "mode=sample needs sampling.question='...'"),
        (["mode=sample_eval", "sampling.method=guess"], "sampling.method=guess: choose one of"),
        (["mode=ppl_eval", "eval.split=train"], "eval.split=train: choose test or valid"),
        (["mode=ppl_eval", "eval.samples=0"], "eval.samples must be at least 1"),
        (["mode=ppl_eval", "eval.precision=2"], "eval.precision must lie between 0 and 1"),
        (
            ["mode=ppl_eval", "eval.precision=0.1", "eval.max_samples=20"],
            "eval.max_samples must be at least 32, got 20",
        ),
        (["mode=ppl_eval", "eval.num_examples=none"], "eval.num_examples: Value 'none'"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_values_that_do_not_fit_are_refused_by_name(overrides, message, tmp_path, capsys):
    assert main(*overrides, f"run_dir={tmp_path}/run") == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


# -- bad data -------------------------------------------------------------------------------

ROW = {"id": "a", "question": "Q", "plan": "P", "execution": "E", "answer_numerical": "1"}


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "no such file"),
        ("", "is empty"),
        ("[]", "holds no examples"),
        (json.dumps([ROW])[:-10], "is not valid JSON"),
        (json.dumps([{k: v for k, v in ROW.items() if k != "plan"}]), "has no field 'plan'"),
        (json.dumps([ROW | {"plan": 3}]), "field 'plan' is int, expected a string"),
    ],
    ids=["missing", "empty", "no-records", "truncated", "without-plan", "non-string"],
)
@pytest.mark.parametrize("key", ["train", "valid"])
def test_a_bad_data_file_stops_with_one_message_naming_the_key(
    key, content, message, tmp_path, capsys
):
    write_examples(tmp_path / "good.json", make_examples(3))
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    files = {"train": tmp_path / "good.json", key: path}
    overrides = [f"data.{name}_path={file}" for name, file in files.items()]
    assert main("mode=train", *TINY, *STEPS, f"run_dir={tmp_path}/run", *overrides) == 1
    error = capsys.readouterr().err
    assert f"data.{key}_path: {path}" in error or f"no such file: {path}" in error
    assert message in error


def test_a_data_set_without_the_split_is_refused(tmp_path, capsys):
    status = main("mode=train", *TINY, *STEPS, "data.name=multiarith", f"run_dir={tmp_path}/run")
    assert status == 1
    assert "'multiarith' has no split 'train'" in capsys.readouterr().err


def test_lengths_over_the_caps_are_reported(tmp_path, capsys):
    write_examples(tmp_path / "train.json", make_examples(6))
    status = main(
        "mode=train", *TINY, *STEPS, "training.max_steps=1", f"run_dir={tmp_path}/run",
        f"data.train_path={tmp_path}/train.json",
        "hierarchical.question_len=8", "hierarchical.exec_len=16",
    )  # fmt: skip
    assert status == 0
    printed = capsys.readouterr().out
    assert "5 of 5 questions are longer than 8 tokens and lose their start" in printed
    assert "executions are longer than 16 tokens and lose their end" in printed


# -- held-out problems ----------------------------------------------------------------------


def test_held_out_problems_are_never_trained_on_and_do_not_depend_on_the_seed(tmp_path):
    write_examples(tmp_path / "train.json", make_examples(60))
    path = f"data.train_path={tmp_path}/train.json"
    ids = {}
    for seed in (0, 1):
        for split in ("train", "valid"):
            examples = build.load_examples(compose(path, f"seed={seed}"), split)
            ids[seed, split] = [example.id for example in examples]
    assert ids[0, "valid"] == ids[1, "valid"] and ids[0, "train"] == ids[1, "train"]
    assert len(ids[0, "valid"]) == 6  # a tenth, since 256 would leave too few
    assert set(ids[0, "train"]).isdisjoint(ids[0, "valid"])
    everyone = {example.id for example in read_examples(tmp_path / "train.json")}
    assert set(ids[0, "train"]) | set(ids[0, "valid"]) == everyone
    other = build.load_examples(compose(path, "algo=ar", "model=small"), "valid")
    assert [example.id for example in other] == ids[0, "valid"]


def test_a_given_validation_file_leaves_the_training_file_whole(tmp_path):
    write_examples(tmp_path / "train.json", make_examples(10))
    write_examples(tmp_path / "valid.json", make_examples(3, start=10))
    cfg = compose(
        f"data.train_path={tmp_path}/train.json", f"data.valid_path={tmp_path}/valid.json"
    )
    assert len(build.load_examples(cfg, "train")) == 10
    assert len(build.load_examples(cfg, "valid")) == 3


def test_problems_without_a_plan_file_are_planned_once_for_training_and_validation(
    tmp_path, capsys
):
    cfg = compose("data=embedded", "data.num_train=12", f"run_dir={tmp_path}")
    train, valid = build.load_training_examples(cfg)
    assert capsys.readouterr().out.count("plans by rules") == 1
    assert [train, valid] == [build.load_examples(cfg, split) for split in ("train", "valid")]


def test_training_never_reads_the_test_set(tmp_path, monkeypatch, home):
    import hbd3lm.data.records
    import hbd3lm.data.sources

    original_read, original_load = read_examples, hbd3lm.data.sources.load_problems

    def guarded_read(path, what="--data_path"):
        assert "test" not in what and Path(path).name != "test.json"
        return original_read(path, what)

    def guarded_load(dataset, split, *args, **kwargs):
        assert split != "test"
        return original_load(dataset, split, *args, **kwargs)

    monkeypatch.setattr(hbd3lm.data.records, "read_examples", guarded_read)
    monkeypatch.setattr(hbd3lm.data.sources, "load_problems", guarded_load)
    quick = (*TINY, *STEPS, "training.max_steps=1", f"data.test_path={home}/test.json")
    file = f"data.train_path={home}/train.json"
    assert main("mode=train", *quick, file, f"run_dir={tmp_path}/file") == 0
    generated = ("data=embedded", "data.num_train=12")
    assert main("mode=train", *quick, *generated, f"run_dir={tmp_path}/embedded") == 0


# -- one run, end to end --------------------------------------------------------------------


def test_training_leaves_everything_a_later_reader_needs(home):
    folder = home / "run"
    for name in ("checkpoints/last.ckpt", "checkpoints/best.ckpt", "tokenizer/tokenizer.json",
                 "config.yaml", "loss.png", "logs/metrics.csv"):  # fmt: skip
        assert (folder / name).stat().st_size > 0, name
    summary = json.loads((folder / "train_summary.json").read_text())
    assert summary["steps"] == 5
    assert (summary["train_problems"], summary["valid_problems"]) == (18, 2)
    assert summary["best_valid_nelbo"] > 0


def test_the_command_it_says_comes_next_can_be_pasted_and_finds_the_same_data():
    places = {"run_dir": "out, [1]/it's", "data.dir": "my data", "data.test_path": "t=1.json"}
    cfg = compose("data=svamp")
    for key, value in places.items():
        OmegaConf.update(cfg, key, value)
    again = compose(*run._same_place(cfg))
    assert {key: OmegaConf.select(again, key) for key in places} == places
    assert again.data.name == "svamp"
    assert run._same_place(compose()) == ["run_dir=outputs/hierarchical_tiny"]


def test_ppl_eval_writes_a_labelled_bound_for_each_segment(home, capsys):
    assert evaluate(home, "ppl_eval", "eval.samples=2") == 0
    result = json.loads((home / "run" / "eval" / "perplexity.json").read_text())
    assert result["kind"] == "upper bound (NELBO)"
    assert result["noise_draws"] == 2
    assert result["token_set"] == f"{home}/test.json, 4 problems"
    assert list(result["segments"]) == ["plan", "execution", "all"]
    assert result["segments"]["all"]["documents"] == 4
    assert result["checkpoint"].endswith("best.ckpt")
    assert "Perplexity, upper bound (NELBO)" in capsys.readouterr().out


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


def test_a_searched_schedule_is_logged_in_the_run_folder(home, tmp_path):
    status = main(
        "mode=train", *TINY, *STEPS, "algo.schedule=searched", "training.optimizer=muon",
        f"data.train_path={home}/train.json", f"run_dir={tmp_path}/run",
    )  # fmt: skip
    assert status == 0
    lines = (tmp_path / "run" / "schedule_search.jsonl").read_text().splitlines()
    assert [json.loads(line)["segment"] for line in lines] == ["plan", "execution"]
    assert json.loads(lines[0])["block_size"] == 16


def test_a_training_that_runs_out_of_memory_tells_what_to_lower(
    home, tmp_path, monkeypatch, capsys
):
    from hbd3lm.train import module

    def out_of_memory(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(module, "negative_log_likelihood", out_of_memory)
    status = main(
        "mode=train", *TINY, *STEPS, f"data.train_path={home}/train.json", f"run_dir={tmp_path}/run"
    )
    error = capsys.readouterr().err
    assert status == 1 and error.count("error:") == 1 and "Traceback" not in error
    assert "out of memory while training (CUDA out of memory. Tried to allocate 2.00 GiB)" in error
    assert "BATCH_SIZE=2, which is training.batch_size=2; training.accumulate=2 keeps" in error


@pytest.mark.parametrize("mode", ["ppl_eval", "sample_eval"])
def test_an_evaluation_that_runs_out_of_memory_tells_what_to_lower(home, mode, monkeypatch, capsys):
    def out_of_memory(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr("hbd3lm.evaluate.perplexity.likelihoods", out_of_memory)
    monkeypatch.setattr("hbd3lm.evaluate.answers.generate", out_of_memory)
    assert evaluate(home, mode, "training.batch_size=4") == 1
    key = "training.batch_size" if mode == "ppl_eval" else "sampling.batch_size"
    assert f"{key}=2" in capsys.readouterr().err


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


def test_validating_on_the_held_out_slice_needs_the_data_it_was_held_out_of(home, capsys):
    assert evaluate(home, "ppl_eval", "eval.split=valid", "eval.samples=1") == 0
    result = json.loads((home / "run" / "eval" / "perplexity.json").read_text())
    assert result["segments"]["all"]["documents"] == 2
    assert evaluate(home, "ppl_eval", "eval.split=valid", "data.num_train=10") == 1
    error = capsys.readouterr().err
    assert "chosen with data.num_train=None" in error and "eval.split=test" in error


def test_rerunning_with_another_shape_is_refused_and_spoils_nothing(home, capsys):
    """Once the configuration and tokenizer of the old run were overwritten before the refusal."""
    kept = {
        path: path.read_bytes()
        for path in (home / "run" / "config.yaml", home / "run" / "checkpoints" / "last.ckpt")
    }
    status = main(
        "mode=train", "model=tiny", *STEPS, f"data.train_path={home}/train.json",
        f"run_dir={home}/run",
    )  # fmt: skip
    assert status == 1
    error = capsys.readouterr().err
    assert "model.dim: 32 != 256" in error and "choose another run_dir" in error
    assert all(path.read_bytes() == content for path, content in kept.items())


# -- bad checkpoints ------------------------------------------------------------------------


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


def test_the_slice_check_is_left_out_for_a_validation_file(home):
    status = evaluate(
        home, "ppl_eval", "eval.split=valid", f"data.valid_path={home}/test.json", "eval.samples=1"
    )
    assert status == 0


def test_an_empty_override_of_a_typed_group_names_the_group():
    with pytest.raises(UserError, match=r"data\.valid_size: Value 'x'"):
        build.load_examples(compose("data.valid_size=x"), "train")


# -- as a program ---------------------------------------------------------------------------


def start(*arguments: str) -> tuple[subprocess.CompletedProcess, float]:
    started = time.perf_counter()
    result = subprocess.run(
        [sys.executable, str(REPOSITORY / "main.py"), *arguments],
        capture_output=True, text=True, timeout=120, cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return result, time.perf_counter() - started


WITHOUT_TORCH = """
import sys
sys.argv = ["main.py", {argument!r}]
from hbd3lm.commands.run import main
status = 0
try:
    main()
except SystemExit as stop:
    status = stop.code
heavy = {{"torch", "lightning", "transformers", "matplotlib", "datasets"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(status)
"""


@pytest.mark.parametrize("argument, status", [("--help", 0), ("training.max_step=5", 1)])
def test_help_and_refusals_load_no_heavy_library(argument, status):
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH.format(argument=argument)],
        capture_output=True, text=True, timeout=60, cwd=REPOSITORY,
    )  # fmt: skip
    assert result.returncode in (status, None), result.stderr
    expected = "model: medium, nano, pretrained, small, tiny" if status == 0 else "did you mean"
    assert expected in result.stdout + result.stderr


def test_help_names_every_key_and_its_default():
    text = run.usage()
    cfg = compose()
    for key in [*cfg, *cfg.training, *cfg.data, *cfg.model, *cfg.algo, *cfg.trainer, *cfg.eval]:
        assert key in ("hydra",) or re.search(rf"^ *{key}:", text, re.M), key
    assert re.search(r"^  max_steps: 50000 +# raise it", text, re.M)


@pytest.mark.parametrize("arguments", [["--help"], ["mode=train", "-h"]])
def test_help_is_ours_and_hydras_flags_stay(arguments, capsys, monkeypatch):
    monkeypatch.setattr(run, "_hydra_main", lambda: print("hydra"))
    assert main(*arguments) == 0
    assert "usage: python main.py KEY=VALUE" in capsys.readouterr().out
    assert main("--hydra-help") == 0
    assert capsys.readouterr().out == "hydra\n"


def test_help_is_quick_and_shows_the_groups():
    result, seconds = start("--help")
    assert result.returncode == 0
    assert "algo: ar, flat, hierarchical, mdlm" in result.stdout
    assert seconds < 10  # about one on an idle machine; no torch, see above


@pytest.mark.slow
def test_two_processes_started_by_main_train_one_run(home, tmp_path):
    result, _ = start(
        "mode=train", *TINY, *STEPS, "trainer.devices=2", "trainer.strategy=ddp",
        "training.batch_size=2", "training.max_steps=2",
        f"data.train_path={home}/train.json", f"run_dir={tmp_path}/two",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "two" / "train_summary.json").read_text())["steps"] == 2
    assert result.stdout.count("next: python main.py") == 1


def test_a_run_dir_that_cannot_be_made_is_refused_by_its_name(home, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    run_dir = tmp_path / "file" / "run"
    assert (
        main("mode=train", *TINY, f"data.train_path={home}/train.json", f"run_dir={run_dir}") == 1
    )
    assert f"error: run_dir: cannot make {run_dir}: Not a directory" in capsys.readouterr().err


def test_problems_that_stand_in_for_gsm8k_are_not_called_so_in_what_is_written(
    tmp_path, monkeypatch
):
    from hbd3lm.plans.provenance import source_dataset
    from tests.hub.exports import make_model

    monkeypatch.delenv("HBD3LM_DATA_DIR", raising=False)
    monkeypatch.setattr("hbd3lm.data.sources.hub_reachable", lambda *a, **k: False)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    net, card = make_model("hierarchical")
    loaded = build.LoadedModel(net, card, None, None, tmp_path)
    monkeypatch.setattr(build, "load_model", lambda cfg: loaded)
    cfg = compose(f"run_dir={tmp_path}", "data.num_train=3", "eval.num_examples=2")
    with pytest.warns(UserWarning, match="NOT GSM8K"):
        build.load_examples(cfg, "train")
        _, examples, name = run._load_for_evaluation(cfg)
    assert source_dataset(tmp_path / "data" / "train.json") == "embedded"
    assert examples[0].id == "embedded_test_0"
    assert name == "embedded test (GSM8K could not be had), 2 problems"
