"""``hbd3lm export data``: plans and generations as a folder that ``datasets`` loads as it is."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import datasets
import pytest
import yaml

from hbd3lm import cli, pretrained
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.evaluate.answers import Generation, GenerationRun, make_records, score_records
from hbd3lm.plans.manifest import manifest_path

PLANS = [
    HierarchicalExample(
        f"gsm8k_train_{i}", f"Über {i} | €\u2028?", f"Add {i}.", f"#### {i}", str(i)
    )
    for i in range(3)
]
MANIFEST = {
    "sha256": "x", "finished": "2026-01-01", "hbd3lm": "0.1.0", "report": {"plans": 3},
    "settings": {"planner": "openai", "dataset": "gsm8k", "split": "train", "model": "big",
                 "shows_solution": True},
}  # fmt: skip


def export(*arguments) -> int:
    return cli.main(["export", "data", *map(str, arguments)])


@pytest.fixture
def plans(tmp_path):
    """A plan file with a manifest."""
    path = tmp_path / "any_name.json"
    write_examples(path, PLANS)
    manifest_path(path).write_text(json.dumps(MANIFEST))
    return path


@pytest.fixture
def generations(tmp_path):
    """What sample_eval leaves in a run's ``eval`` folder."""
    folder = tmp_path / "run" / "eval"
    folder.mkdir(parents=True)
    texts = ["#### 0", "no idea", "It is 7."]
    run = GenerationRun(
        [Generation(f"Own {i}.", text, 5, {"plan": True, "execution": i > 0})
         for i, text in enumerate(texts)],
        1.0, 1, 1, 1,
    )  # fmt: skip
    records = make_records(PLANS, run, "full")
    (folder / "samples_full.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    result = {
        "checkpoint": "/home/me/outputs/run/checkpoints/best.ckpt", "mode": "full",
        "problem_set": "/data/of/me/test.json, 3 problems", "sampling": {"method": "confidence"},
        **score_records(records, "full"),
    }  # fmt: skip
    (folder / "sample_eval_full.json").write_text(json.dumps(result))
    return folder / "samples_full.jsonl"


@pytest.fixture
def load(tmp_path, monkeypatch):
    """``load_dataset`` with a cache of its own, off the net."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return lambda *given: datasets.load_dataset(*given, cache_dir=str(tmp_path / "cache"))


def front_matter(folder) -> dict:
    _, matter, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(matter)


def test_datasets_loads_plans_and_generations_as_they_were(
    plans, generations, load, tmp_path, caplog
):
    folder = tmp_path / "data"
    assert export("--plans", plans, "--generations", generations, "--output_dir", folder) == 0
    train = load(str(folder))["train"]  # plans are the default
    assert [HierarchicalExample(**row) for row in train] == PLANS
    full = load(str(folder), "generations")["full"]
    originals = [json.loads(line) for line in generations.read_text().split("\n") if line]
    for row, original in zip(full, originals, strict=True):
        ended = original.pop("ended")
        assert row.pop("plan_ended") == ended["plan"]
        assert row.pop("execution_ended") == ended["execution"]
        assert row == original
    # The card says itself what is in the files, and datasets believes it.
    assert not [r for r in caplog.records if "malformed" in r.message or "Ignoring" in r.message]
    for info in front_matter(folder)["dataset_info"]:
        loaded = load(str(folder), info["config_name"])
        for split in info["splits"]:
            assert loaded[split["name"]].num_rows == split["num_examples"]
            features = loaded[split["name"]].features
            assert {f["name"]: f["dtype"] for f in info["features"]} == {
                name: value.dtype for name, value in features.items()
            }


def test_the_card_tells_licence_sources_and_where_plans_and_scores_come_from(
    plans, generations, tmp_path
):
    folder = tmp_path / "data"
    assert export("--plans", plans, "--generations", generations, "--output_dir", folder) == 0
    matter = front_matter(folder)
    assert matter["license"] == "mit" and matter["source_datasets"] == ["openai/gsm8k"]
    assert matter["configs"][0]["default"] is True
    text = (folder / "README.md").read_text()
    assert "| plans by | `big` through `openai`; it saw the solution |" in text
    assert "the file was changed" in text  # its hash is not the manifest's
    assert "can leak it" in text
    assert "| model | run/checkpoints/best.ckpt |" in text
    assert "| problems | test.json, 3 problems |" in text
    assert "exact match, strict | 33.3% [" in text
    assert "/home/me" not in text and "/data/of" not in text


def test_splits_are_told_by_manifest_name_or_the_user(plans, tmp_path):
    for name in ("a_test.json", "a_valid.json", "other.json"):
        write_examples(tmp_path / name, PLANS)
    folder = tmp_path / "data"
    files = [plans, tmp_path / "a_test.json", tmp_path / "a_valid.json"]
    extra = f"extra={tmp_path / 'other.json'}"
    assert export("--plans", *files, extra, "--output_dir", folder, "--license", "mit") == 0
    found = {f["split"] for f in front_matter(folder)["configs"][0]["data_files"]}
    assert found == {"train", "test", "validation", "extra"}


def test_empty_texts_are_warned_of_and_a_file_of_nothing_else_refused(tmp_path, plans, capsys):
    bare = [replace(PLANS[0], plan=" "), PLANS[1]]
    write_examples(tmp_path / "test.json", bare)
    flags = ["--plans", tmp_path / "test.json", "--license", "mit", "--output_dir"]
    assert export(*flags, tmp_path / "out") == 0
    assert capsys.readouterr().err.endswith(
        "test.json: empty plan in 1 of 2 records, the first is 'gsm8k_train_0'; fill them in or "
        "leave them out\n"
    )
    write_examples(tmp_path / "test.json", bare[:1])
    assert export(*flags, tmp_path / "none") == 1
    assert "test.json: the plan is empty in all 1 records" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_same_files_give_the_same_bytes(plans, generations, tmp_path):
    for name in ("one", "two"):
        given = ("--plans", plans, "--generations", generations, "--title", "T")
        assert export(*given, "--output_dir", tmp_path / name) == 0
    for path in (tmp_path / "one").rglob("*.*"):
        again = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == again.read_bytes()


def test_an_unknown_licence_is_not_made_up(tmp_path, capsys):
    write_examples(tmp_path / "train.json", PLANS)
    assert export("--plans", tmp_path / "train.json", "--output_dir", tmp_path / "data") == 0
    assert "licence of the problems is not known" in capsys.readouterr().out
    assert "license" not in front_matter(tmp_path / "data")
    assert "Not stated" in (tmp_path / "data" / "README.md").read_text()


# -- refusals -------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_one_message_and_nothing_is_written(
    plans, generations, tmp_path, capsys
):
    write_examples(tmp_path / "other.json", PLANS)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep")
    odd = tmp_path / "samples_odd.jsonl"
    rows = [json.loads(line) for line in generations.read_text().split("\n") if line]
    odd.write_text("".join(json.dumps(row | {"correct_strict": 1}) + "\n" for row in rows))
    for arguments, message in (
        ((), "nothing to export"),
        (("--plans", tmp_path / "none.json"), "no such file"),
        (("--plans", tmp_path / "other.json"), "which split is .*other.json"),
        (("--plans", plans, f"train={tmp_path / 'other.json'}"), "two files for the split train"),
        (("--generations", plans), "holds plans, no generations"),
        (("--generations", odd), "record 0: 'correct_strict' is 1, expected a bool"),
    ):
        assert export(*arguments, "--output_dir", tmp_path / "data") == 1
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error), error
        assert not (tmp_path / "data").exists()
    assert export("--plans", plans, "--output_dir", tmp_path / "taken", "--overwrite") == 1
    assert "is no data set written by hbd3lm" in capsys.readouterr().err
    assert (tmp_path / "taken" / "mine.txt").read_text() == "keep"


def test_a_data_set_of_ours_is_replaced_when_asked(plans, tmp_path, capsys):
    folder = tmp_path / "data"
    assert export("--plans", plans, "--output_dir", folder) == 0
    assert export("--plans", plans, "--output_dir", folder) == 1
    assert "is not empty" in capsys.readouterr().err
    (folder / "old.parquet").write_text("")
    assert export("--plans", plans, "--output_dir", folder, "--overwrite") == 0
    assert not (folder / "old.parquet").exists()


def test_it_is_uploaded_as_a_data_set(plans, tmp_path, monkeypatch, capsys):
    asked = []

    def upload(folder, repo_id, private=False, kind="model"):
        asked.append((sorted(p.name for p in folder.iterdir()), repo_id, kind))
        return "hub/me/d"

    monkeypatch.setattr(pretrained, "upload_folder", upload)
    folder = tmp_path / "data"
    assert export("--plans", plans, "--output_dir", folder, "--push_to_hub", "me/d") == 0
    assert asked == [(["README.md", "plans"], "me/d", "dataset")]
    assert "uploaded: hub/me/d" in capsys.readouterr().out
