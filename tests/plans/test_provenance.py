"""What a card says of a file's plans: who wrote them, how, and whether it is still that file."""

from __future__ import annotations

import json

import pytest

from hbd3lm import cli
from hbd3lm.data.records import read_examples
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError
from hbd3lm.plans.generate import generate_plans
from hbd3lm.plans.manifest import manifest_path, read_manifest, write_manifest
from hbd3lm.plans.planner import load_planner
from hbd3lm.plans.provenance import plan_provenance, source_dataset
from hbd3lm.plans.review import FORMAT, VERSION, fingerprint_examples


@pytest.fixture
def plans(tmp_path):
    """A file of rule plans with its manifest."""
    path = tmp_path / "train.json"
    settings = {"planner": "rules", "dataset": "embedded", "split": "train"}
    problems = load_problems("embedded", "train", limit=3).problems
    generate_plans(problems, load_planner("rules"), path, settings=settings)
    return path


def test_plans_of_rules_name_the_problems_and_the_planner(plans):
    rows = dict(plan_provenance(plans))
    assert rows["problems"] == "embedded (generated) problems, train: 3"
    assert rows["plans by"] == "`rules`, without a language model"
    assert "3" in rows["numbers in the plans"] and "since then" not in rows
    assert source_dataset(plans) == "embedded"


def test_plans_of_a_model_tell_how_it_was_asked_and_nothing_of_the_machine(plans):
    manifest = read_manifest(plans)
    manifest["settings"] |= {
        "planner": "vllm", "model": "/home/somebody/models/Llama-3-8B", "shows_solution": True,
        "prompt": "/home/somebody/prompt.yaml", "prompt_sha256": "0123456789abcdef99",
        "temperature": 0.7, "top_p": 0.9, "max_tokens": 120, "seed": 4,
    }  # fmt: skip
    manifest["engine"] = {
        "constrained": True, "revision": "abc", "versions": {"vllm": "0.32"},
        "model": "/home/somebody/models/Llama-3-8B",
    }  # fmt: skip
    manifest["report"] |= {"retries": 7, "repaired": 5, "failed": 1}
    manifest["sessions"] = [{"host": "secret-host"}]
    write_manifest(plans, manifest)
    rows = dict(plan_provenance(plans))
    assert rows["plans by"] == "`Llama-3-8B` through `vllm`; it saw the solution"
    assert rows["model revision"] == "abc" and rows["engine"] == "vllm 0.32"
    assert rows["prompt"] == "prompt.yaml (sha256 0123456789abcdef...)"
    assert rows["sampling"] == "temperature 0.7, top_p 0.9, max_tokens 120, seed 4"
    assert rows["constrained decoding"] == "yes"
    assert rows["asked again"] == "7 times; 5 mended"
    assert rows["plans with faults left"] == "1 of 3"
    assert not any("somebody" in value or "host" in value for value in rows.values())


def test_a_file_changed_since_is_said_to_be(plans):
    plans.write_text(plans.read_text().replace("First", "At first"))
    assert "was changed" in dict(plan_provenance(plans))["since then"]


def test_a_reviewed_file_goes_back_to_the_one_before(plans, tmp_path):
    examples = read_examples(plans)
    review = {
        "format": FORMAT,
        "version": VERSION,
        "fingerprint": fingerprint_examples(examples),
        "verdicts": [
            {"id": example.id, "verdict": verdict}
            for example, verdict in zip(examples, ("good", "bad"))
        ],
    }
    (tmp_path / "review.json").write_text(json.dumps(review))
    reviewed = tmp_path / "train_reviewed.json"
    arguments = ["--data_path", str(plans), "--review", str(tmp_path / "review.json")]
    assert cli.main(["plans", "apply-review", *arguments]) == 0
    rows = dict(plan_provenance(reviewed))
    assert rows["plans by"].startswith("`rules`")
    assert rows["judged by a reader"] == "1 good, 0 edited, 1 bad"
    assert source_dataset(reviewed) == "embedded"
    record = reviewed.with_name(reviewed.name + ".review.json")
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"data_path": "gone/train.json"}))  # moved together
    assert dict(plan_provenance(reviewed))["plans by"].startswith("`rules`")
    record.write_text("{}")
    with pytest.raises(UserError, match=r"review\.json is no record of a review"):
        plan_provenance(reviewed)


def test_without_a_manifest_nothing_is_known_and_a_damaged_one_is_refused(plans):
    manifest_path(plans).write_text("[")
    with pytest.raises(UserError, match="is not valid JSON"):
        plan_provenance(plans)
    manifest_path(plans).unlink()
    assert plan_provenance(plans) == [] and source_dataset(plans) is None
