"""The problems of a run: bad files, what is held out, and what training may never read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hbd3lm.commands.problems import load_examples, load_training_examples
from hbd3lm.data.records import read_examples, write_examples
from tests.commands.runs import STEPS, TINY, compose, main, make_examples

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_held_out_problems_are_never_trained_on_and_do_not_depend_on_the_seed(tmp_path):
    write_examples(tmp_path / "train.json", make_examples(60))
    path = f"data.train_path={tmp_path}/train.json"
    ids = {}
    for seed in (0, 1):
        for split in ("train", "valid"):
            examples = load_examples(compose(path, f"seed={seed}"), split)
            ids[seed, split] = [example.id for example in examples]
    assert ids[0, "valid"] == ids[1, "valid"] and ids[0, "train"] == ids[1, "train"]
    assert len(ids[0, "valid"]) == 6  # a tenth, since 256 would leave too few
    assert set(ids[0, "train"]).isdisjoint(ids[0, "valid"])
    everyone = {example.id for example in read_examples(tmp_path / "train.json")}
    assert set(ids[0, "train"]) | set(ids[0, "valid"]) == everyone
    other = load_examples(compose(path, "algo=ar", "model=small"), "valid")
    assert [example.id for example in other] == ids[0, "valid"]


def test_a_given_validation_file_leaves_the_training_file_whole(tmp_path):
    write_examples(tmp_path / "train.json", make_examples(10))
    write_examples(tmp_path / "valid.json", make_examples(3, start=10))
    cfg = compose(
        f"data.train_path={tmp_path}/train.json", f"data.valid_path={tmp_path}/valid.json"
    )
    assert len(load_examples(cfg, "train")) == 10
    assert len(load_examples(cfg, "valid")) == 3


def test_problems_without_a_plan_file_are_planned_once_for_training_and_validation(
    tmp_path, capsys
):
    cfg = compose("data=embedded", "data.num_train=12", f"run_dir={tmp_path}")
    train, valid = load_training_examples(cfg)
    assert capsys.readouterr().out.count("plans by rules") == 1
    assert [train, valid] == [load_examples(cfg, split) for split in ("train", "valid")]


def test_fewer_held_out_than_asked_for_is_told(tmp_path, capsys):
    write_examples(tmp_path / "train.json", make_examples(20))
    path = f"data.train_path={tmp_path}/train.json"
    load_training_examples(compose(path, "data.valid_size=3"))
    assert "2 of 20 training problems held out" in capsys.readouterr().out
    load_training_examples(compose(path, "data.valid_size=2"))
    assert capsys.readouterr().out == ""


def test_training_never_reads_the_test_set(tmp_path, monkeypatch, home):
    import hbd3lm.data.records
    import hbd3lm.data.sources

    original_read, original_load = read_examples, hbd3lm.data.sources.find_problems

    def guarded_read(path, what="--data_path"):
        assert "test" not in what and Path(path).name != "test.json"
        return original_read(path, what)

    def guarded_load(dataset, split, *args, **kwargs):
        assert split != "test"
        return original_load(dataset, split, *args, **kwargs)

    monkeypatch.setattr(hbd3lm.data.records, "read_examples", guarded_read)
    monkeypatch.setattr(hbd3lm.data.sources, "find_problems", guarded_load)
    quick = (*TINY, *STEPS, "training.max_steps=1", f"data.test_path={home}/test.json")
    file = f"data.train_path={home}/train.json"
    assert main("mode=train", *quick, file, f"run_dir={tmp_path}/file") == 0
    generated = ("data=embedded", "data.num_train=12")
    assert main("mode=train", *quick, *generated, f"run_dir={tmp_path}/embedded") == 0
