"""``HBD3LM``: a model in three lines, from a folder, a checkpoint file or the hub."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

import hbd3lm
from hbd3lm import pretrained
from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import KEY, NET_PREFIX
from hbd3lm.pretrained import HBD3LM, upload_folder
from hbd3lm.sample.trajectory import Event
from tests.hub.exports import METHODS, TOKENIZER, export_method, make_model

QUESTIONS = ["How many apples?", "Tom has 3.", "And 4?"]


@pytest.fixture
def folder(tmp_path):
    export_method("hierarchical", tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("method", METHODS)
def test_many_questions_are_solved_as_each_alone(method, tmp_path):
    export_method(method, tmp_path / "model")
    model = hbd3lm.HBD3LM.from_pretrained(tmp_path / "model")
    together = model.solve(QUESTIONS)
    assert [model.solve(question) for question in QUESTIONS] == together
    assert len({solution.execution for solution in together}) > 1
    assert all((solution.plan is None) == (method == "flat") for solution in together)


def test_a_given_plan_is_followed_and_reported(folder):
    model = HBD3LM.from_pretrained(folder)
    plans = ["Add.", "Share it."]
    together = model.solve(QUESTIONS[:2], plan=plans)
    assert [solution.plan for solution in together] == plans
    alone = model.solve(QUESTIONS[0], plan=plans[0])
    assert alone == together[0]
    assert alone.execution != model.solve(QUESTIONS[0], plan="Take away.").execution
    own = model.solve(QUESTIONS[0])
    assert model.solve(QUESTIONS[0], plan=own.plan).plan == own.plan


def test_the_answer_is_the_number_of_the_answer_line(folder, monkeypatch):
    model = HBD3LM.from_pretrained(folder)
    texts = iter(["3+4=7\n#### 7", "no idea"])
    monkeypatch.setattr(TOKENIZER.__class__, "decode", lambda self, ids, skip=True: next(texts))
    assert model.solve("?", plan="Add.").answer == "7"
    assert model.solve("?", plan="Add.").answer is None


def test_sampling_settings_of_a_call_override_those_of_the_model(folder):
    model = HBD3LM.from_pretrained(folder)
    model.sampling["method"] = "first_hitting"
    hot = [model.solve(QUESTIONS[0], temperature=1.0, seed=seed).execution for seed in (1, 1, 2)]
    assert hot[0] == hot[1] != hot[2]
    with pytest.raises(UserError, match="solve: there is no heat; choose from method, steps"):
        model.solve(QUESTIONS[0], heat=1.0)
    with pytest.raises(UserError, match=r"sampling\.temperature must not be negative"):
        model.solve(QUESTIONS[0], temperature=-1.0)
    with pytest.raises(UserError, match="solve: 1 plans for 2 questions"):
        model.solve(QUESTIONS[:2], plan="Add.")


def test_a_plan_for_a_model_without_plans_is_refused(tmp_path):
    export_method("flat", tmp_path / "model")
    with pytest.raises(UserError, match="this model writes no plans"):
        HBD3LM.from_pretrained(tmp_path / "model").solve("How many?", plan="Add.")


@pytest.mark.parametrize("method", METHODS)
def test_a_trajectory_tells_how_the_same_solution_came_about(method, tmp_path):
    export_method(method, tmp_path / "model")
    model = HBD3LM.from_pretrained(tmp_path / "model")
    told = model.solve(QUESTIONS, trajectory=True)
    assert [replace(solution, trajectory=None) for solution in told] == model.solve(QUESTIONS)
    for solution in told:
        assert solution.trajectory.text("execution") == solution.execution
        assert solution.trajectory.text("plan") == (solution.plan or "")
        assert solution.trajectory.steps[-1].evaluations == solution.evaluations


def test_a_solution_can_be_watched_pass_by_pass(folder):
    model = HBD3LM.from_pretrained(folder)
    expected = model.solve(QUESTIONS[0], trajectory=True)
    *under_way, last = model.watch(QUESTIONS[0])
    assert last == expected
    assert [s.evaluations for s in under_way] == [
        step.evaluations for step in expected.trajectory.steps
    ]
    assert all(s.answer is None and len(s.plan) <= len(last.plan) for s in under_way)
    assert under_way[-1].execution == last.execution
    *under_way, last = model.watch(QUESTIONS[0], plan="Add.")
    assert last == model.solve(QUESTIONS[0], plan="Add.", trajectory=True)
    assert {s.plan for s in under_way} == {"Add."}


def test_a_spectator_who_leaves_ends_the_sampling(folder, monkeypatch):
    model, ended = HBD3LM.from_pretrained(folder), []

    def endless(*args, on_event, **more):
        try:
            for n in itertools.count():
                on_event(0, Event("plan", 0, 1, (n,), (1,), (0.5,), n, False))
                time.sleep(0.001)
        finally:
            ended.append(True)

    monkeypatch.setattr(pretrained, "generate", endless)
    watched = model.watch(QUESTIONS[0])
    next(watched)
    watched.close()
    assert ended


def test_what_is_wrong_is_told_to_a_spectator_too(folder):
    with pytest.raises(UserError, match="there is no heat"):
        next(HBD3LM.from_pretrained(folder).watch(QUESTIONS[0], heat=1.0))


def test_no_questions_no_solutions(folder):
    assert HBD3LM.from_pretrained(folder).solve([]) == []


def test_the_package_itself_stays_light():
    code = "import sys, hbd3lm; hbd3lm.__version__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'HBD4LM'"):
        hbd3lm.HBD4LM  # noqa: B018


# -- the hub, which no test reaches ---------------------------------------------------------


class Hub:
    """Stands in for ``HfApi``; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked = []

    def create_repo(self, repo_id, private, exist_ok, repo_type):
        assert repo_type == "model"
        self.asked.append(("create", repo_id, private, exist_ok))
        return f"hub/{repo_id}"

    def upload_folder(self, repo_id, folder_path, repo_type):
        assert repo_type == "model"
        self.asked.append(("upload", repo_id, sorted(p.name for p in folder_path.iterdir())))


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    monkeypatch.setattr(pretrained, "hub_reachable", lambda: True)
    return hub


def test_a_folder_is_uploaded_as_it_is(folder, hub):
    assert HBD3LM.from_pretrained(folder).push_to_hub("me/m", private=True) == "hub/me/m"
    files = sorted(path.name for path in folder.iterdir())
    assert hub.asked == [("create", "me/m", True, True), ("upload", "me/m", files)]


def test_a_model_fetched_from_the_hub_is_not_uploaded_without_the_code_it_was_left_without(
    folder, hub, tmp_path
):
    fetched = tmp_path / "snapshot"
    shutil.copytree(folder, fetched, ignore=shutil.ignore_patterns("*.py", "*.md", "LICENSE"))
    with pytest.raises(UserError, match=r"holds no modeling_hbd3lm\.py"):
        HBD3LM.from_pretrained(fetched).push_to_hub("me/copy")
    assert not hub.asked


def test_a_checkpoint_is_exported_before_it_is_uploaded(tmp_path, hub):
    net, card = make_model("flat")
    card.settings["run_name"] = "flat"
    (tmp_path / "checkpoints").mkdir()
    weights = {NET_PREFIX + name: value for name, value in net.state_dict().items()}
    path = tmp_path / "checkpoints" / "best.ckpt"
    torch.save({"state_dict": weights, KEY: card.to_dict()}, path)
    HBD3LM.from_pretrained(path).push_to_hub("me/flat")
    assert "model.safetensors" in hub.asked[1][2] and "README.md" in hub.asked[1][2]


def test_a_hub_out_of_reach_is_said_and_nothing_lost(folder, monkeypatch):
    monkeypatch.setattr(pretrained, "hub_reachable", lambda: False)
    with pytest.raises(UserError, match=r"push_to_hub: .* cannot be reached; .*model is complete"):
        upload_folder(folder, "me/m")
    with pytest.raises(UserError, match=r"no such file or folder: me/m, and as a model of the hub"):
        HBD3LM.from_pretrained("me/m")
    with pytest.raises(UserError, match=r"no such file or folder: \./a/b/c"):
        HBD3LM.from_pretrained("./a/b/c")


def test_a_model_of_the_hub_is_fetched_without_its_code(folder, monkeypatch):
    asked = []

    def download(repo_id, revision, allow_patterns, local_files_only):
        asked.append((repo_id, revision, allow_patterns, local_files_only))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("hbd3lm.data.hub.hub_reachable", lambda: True)
    assert HBD3LM.from_pretrained("me/m").path == folder
    assert HBD3LM.from_pretrained("me/m", revision="v1").path == folder
    patterns = asked[0][2]
    assert {"*.json", "*.safetensors"} <= set(patterns) and "*.py" not in patterns
    assert asked == [("me/m", None, patterns, False), ("me/m", "v1", patterns, False)]
