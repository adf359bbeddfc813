"""From a sampling with ``sampling.trajectory=true`` to the page, an edited plan, and back."""

from __future__ import annotations

import json
import shlex
import sys

import pytest

from hbd3lm import HBD3LM, cli
from hbd3lm.commands import run
from hbd3lm.commands.view import main as view
from hbd3lm.data.records import HierarchicalExample, write_examples
from hbd3lm.errors import UserError
from hbd3lm.evaluate.trajectories import read_trajectories
from tests.browser import launch, open_page
from tests.hub.exports import METHODS, export_method

QUESTIONS = ("How many apples?", "Tom has 3. And then?", "And 4?")


def main(*words: str) -> None:
    """``python main.py WORDS`` in this process."""
    before, sys.argv = sys.argv, ["main.py", *words]
    try:
        run.main()
    finally:
        sys.argv = before


def sample_eval(folder, method: str, *more: str) -> None:
    export_method(method, folder / "model")
    examples = [
        HierarchicalExample(f"q{i}", text, "Add.", "3+4=7\n#### 7", "7")
        for i, text in enumerate(QUESTIONS)
    ]
    write_examples(folder / "test.json", examples)
    main("mode=sample_eval", f"checkpoint={folder}/model", f"data.test_path={folder}/test.json",
         f"eval.output_dir={folder}/eval", "trainer=cpu", "sampling.trajectory=true",
         *more)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_method_writes_trajectories_that_end_in_its_records(method, tmp_path, capsys):
    sample_eval(tmp_path, method)
    printed = capsys.readouterr().out
    file = tmp_path / "eval" / "trajectories_full.jsonl"
    assert f"next: hbd3lm view {file}" in printed.replace("\n", "")
    content = read_trajectories(file)
    lines = (tmp_path / "eval" / "samples_full.jsonl").read_text().splitlines()
    assert [{**json.loads(line)} for line in lines] == [
        {key: value for key, value in record.items() if key != "trajectory"}
        for record in content.records
    ]
    for record in content.records:
        written: dict[str, dict[int, str]] = {"plan": {}, "execution": {}}
        for step in record["trajectory"]:
            for position, text, _, kind in step["tokens"]:
                written[step["segment"]][position] = text if kind == "text" else ""
        for name, texts in written.items():
            assert "".join(texts[i] for i in sorted(texts)) == record[name]
    assert cli.main(["view", str(file)]) == 0
    assert (tmp_path / "eval" / "trajectories_full.html").is_file()
    assert "page of 3 problems" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["plan_only", "exec_only"])
def test_plans_alone_and_executions_alone_have_a_page_too(mode, tmp_path):
    sample_eval(tmp_path, "hierarchical", f"sampling.mode={mode}")
    file = tmp_path / "eval" / f"trajectories_{mode}.jsonl"
    view([str(file), "--output_page", str(tmp_path / "page.html"), "--num_problems", "2"])
    with launch() as browser:
        page = open_page(browser, tmp_path / "page.html")
        card = page.locator("#problem").inner_text()
        assert page.locator("#place").inner_text() == "1 of 2"
        if mode == "plan_only":
            assert page.locator(".is-execution").count() == 0
            assert "Only the plan was sampled" in card
        else:
            assert "given to the model" in page.locator(".is-plan").inner_text()
            assert page.locator(".is-plan .canvas").count() == 0
        assert page.problems == []


def test_a_plan_edited_in_the_page_is_run_by_the_command_it_prints(tmp_path, monkeypatch):
    """Both ways: one problem with everything on the command line, and a saved file of plans."""
    sample_eval(tmp_path, "hierarchical", "sampling.threshold=0.3", "seed=4")
    view([str(tmp_path / "eval" / "trajectories_full.jsonl")])
    plan = "Take ${3} 'away'."
    with launch() as browser:
        page = open_page(browser, tmp_path / "eval" / "trajectories_full.html")
        page.keyboard.press("j")
        page.keyboard.press("e")
        page.locator("#editor").fill(plan)
        page.click("#keep")
        printed = page.locator("#command").inner_text()
        for_file = page.locator("#file-command").inner_text()
        with page.expect_download() as download:
            page.click("#save")
        download.value.save_as(tmp_path / "edited_plans.json")
    model = HBD3LM.from_pretrained(tmp_path / "model")
    # A number of its own gives the problem its random numbers; at temperature 0 there are none.
    expected = model.solve(QUESTIONS[1], plan=plan, threshold=0.3, trajectory=True)
    monkeypatch.chdir(tmp_path)
    for command, name in ((printed, "sample"), (for_file, "exec_only")):
        first, _, second = command.partition(" &&\n")
        main(*shlex.split(first)[2:], "trainer=cpu")
        assert cli.main(shlex.split(second)[1:]) == 0
        file = tmp_path / "eval" / "edited" / f"trajectories_{name}.jsonl"
        (record,) = read_trajectories(file).records
        assert (record["plan"], record["execution"]) == (plan, expected.execution)
        assert record["network_evaluations"] == expected.evaluations
        assert record["correct_strict"] is (None if name == "sample" else False)
        assert file.with_suffix(".html").is_file()


def test_without_being_asked_nothing_is_recorded(tmp_path):
    sample_eval(tmp_path, "hierarchical", "sampling.trajectory=false")
    assert not list((tmp_path / "eval").glob("trajectories*"))


def test_wrong_input_gets_one_clear_message(tmp_path, capsys):
    sample_eval(tmp_path, "flat")
    file = tmp_path / "eval" / "trajectories_full.jsonl"
    for words, message in (
        ([tmp_path / "none.jsonl"], "no such file"),
        ([tmp_path / "eval" / "samples_full.jsonl"], "is no file of trajectories; make one with"),
        ([file, "--output_page", file], "is the file of trajectories; name another"),
        ([file, "--output_page", tmp_path / "test.json" / "page.html"], "cannot write"),
    ):
        capsys.readouterr()
        assert cli.main(["view", *map(str, words)]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    for typed in ("0", "\uff12"):
        with pytest.raises(SystemExit):
            view([str(file), "--num_problems", typed])
        assert f"--num_problems: {typed!r} is no whole number of at least 1" in (
            capsys.readouterr().err
        )
    with pytest.raises(UserError):
        view([str(tmp_path)])
    assert read_trajectories(file).records  # untouched
