"""``hbd3lm.data.hub_datasets``: data sets of the hub, and of its cache where it is out of reach.

The hub is never asked for real: its library is replaced, or its address leads nowhere.
"""

from __future__ import annotations

import json
import shutil
import socket
import warnings

import pytest

from hbd3lm.data import hub_datasets
from hbd3lm.data.sources import load_problems
from hbd3lm.errors import UserError
from tests.data.published import (
    MAIN,
    SOCRATIC,
    SVAMP,
    only_problem,
    write_lines,
)

pytestmark = pytest.mark.usefixtures("no_hub_and_no_folder")


@pytest.fixture
def hub(monkeypatch):
    """A hub that answers; returns its data sets: (repo, config, split) -> rows or an error."""
    import datasets

    contents = {}

    def load_dataset(repo, config=None, *, split, cache_dir):
        rows = contents[repo, config, split]
        if isinstance(rows, Exception):
            raise rows
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub_datasets, "hub_reachable", lambda: True)
    return contents


@pytest.mark.parametrize("config", ["main", "socratic"])
def test_gsm8k_comes_from_the_hub_without_a_folder(hub, config):
    hub["openai/gsm8k", config, "test"] = [MAIN if config == "main" else SOCRATIC]
    loaded = load_problems("gsm8k" if config == "main" else "gsm8k_socratic", "test")
    assert [problem.id for problem in loaded.problems] == ["gsm8k_test_0"]
    assert loaded.problems[0].solution == MAIN["answer"]
    assert loaded.origin == (
        f"GSM8K {config}, test: 1 problems from the hub: openai/gsm8k {config}"
    )
    assert loaded.fallback is None


def test_the_fields_of_the_hubs_svamp_are_mapped(hub):
    hub["ChilleD/SVAMP", None, "test"] = [
        {**SVAMP, "Answer": "51.0", "question_concat": "Each pack costs ... How much is a pack?"}
    ]
    problem = only_problem("svamp", "test")
    assert problem.id == "svamp_test_0"
    assert problem.solution == "76 - 25 = <<76-25=51>>51\n#### 51"


def test_all_of_the_hubs_multiarith_is_test(hub):
    hub["ChilleD/MultiArith", None, "train"] = [{"question": " A? ", "final_ans": "1"}]
    hub["ChilleD/MultiArith", None, "test"] = [{"question": "B?", "final_ans": "2"}]
    problems = load_problems("multiarith", "test").problems
    assert [(p.id, p.question, p.answer) for p in problems] == [
        ("multiarith_test_0", "A?", "1"),
        ("multiarith_test_1", "B?", "2"),
    ]


def test_a_bad_row_of_the_hub_is_named(hub):
    hub["openai/gsm8k", "main", "train"] = [MAIN, {"question": "Q?", "answer": ""}]
    with pytest.raises(UserError, match="openai/gsm8k main, row 1: field 'answer' is empty"):
        load_problems("gsm8k", "train")


def test_a_hub_that_breaks_off_counts_as_out_of_reach(hub):
    hub["openai/gsm8k", "main", "train"] = ConnectionError("reset by peer")
    with pytest.warns(UserWarning, match="reset by peer"):
        loaded = load_problems("gsm8k", "train", limit=3)
    assert "failed: reset by peer" in loaded.fallback


@pytest.mark.parametrize("error", [ValueError("bad parquet"), OSError(28, "No space left")])
def test_a_failure_that_is_not_the_networks_is_never_a_fallback(hub, error):
    hub["openai/gsm8k", "main", "train"] = error
    with pytest.raises(
        UserError, match=r"openai/gsm8k cannot be loaded from the hub: .*--data_dir"
    ):
        load_problems("gsm8k", "train")


def test_a_folder_spares_the_hub(hub, folder):
    assert only_problem("gsm8k", "train", folder)  # the hub holds nothing and would raise


def test_a_hub_that_never_answers_is_given_up_within_seconds(monkeypatch):
    """A firewall that drops packets looks like this: connections open, nothing comes back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.warns(UserWarning, match="cannot be reached"):
            load_problems("gsm8k", "train", limit=1)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hub_datasets, "hub_reachable", lambda: pytest.fail("the hub was asked"))
    with pytest.warns(UserWarning, match="is switched off"):
        load_problems("gsm8k", "train", limit=1)


@pytest.fixture
def cached_gsm8k(tmp_path):
    """The cache as ``datasets`` leaves it after ``openai/gsm8k main`` was loaded once."""
    import datasets

    source, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    write_lines(source, MAIN)
    builder = datasets.load_dataset_builder(
        "json", data_files={"train": str(source)}, cache_dir=str(tmp_path / "work")
    )
    builder.download_and_prepare()
    prepared = next((tmp_path / "work").rglob("json-train.arrow")).parent
    target = cache / "openai___gsm8k" / "main" / "0.0.0" / "0123abcd"
    shutil.copytree(prepared, target)
    (target / "json-train.arrow").rename(target / "gsm8k-train.arrow")
    info = json.loads((target / "dataset_info.json").read_text())
    info.update(builder_name="parquet", dataset_name="gsm8k", config_name="main")
    info["splits"]["train"]["dataset_name"] = "gsm8k"
    (target / "dataset_info.json").write_text(json.dumps(info))


def test_a_cached_data_set_loads_without_the_hub(cached_gsm8k):
    import datasets.config
    import huggingface_hub.constants

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        loaded = load_problems("gsm8k", "train")
    assert [problem.solution for problem in loaded.problems] == [MAIN["answer"]]
    assert "the hub's cache: openai/gsm8k main" in loaded.origin
    assert loaded.fallback is None
    # Offline mode was borrowed and given back.
    assert not datasets.config.HF_HUB_OFFLINE
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_cache_without_the_configuration_is_as_good_as_none(cached_gsm8k):
    with pytest.warns(UserWarning, match="its cache .* is of no use"):
        assert load_problems("gsm8k_socratic", "train", limit=2).fallback
