"""``hbd3lm.data.sources``: the problems asked for, from where they are said to come, or an error.

The hub is never asked for real: its library is replaced, or its address leads nowhere.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import warnings

import pytest

from hbd3lm.data import sources
from hbd3lm.data.annotations import check_annotation, find_annotations
from hbd3lm.data.answers import strict_answer
from hbd3lm.data.sources import DATASETS, load_problems
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.errors import UserError

MAIN = {
    "question": "How many clips?",
    "answer": "In May 48/2 = <<48/2=24>>24.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}
SOCRATIC = {
    "question": "How many clips?",
    "answer": "How many in May? ** In May 48/2 = <<48/2=24>>24.\n"
    "How many in all? ** In all 48+24 = <<48+24=72>>72.\n#### 72",
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars. There is a discount of 25 dollars",
    "Question": "How much is a pack?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Subtraction",
}
FROM_FILES = [(name, split) for name in DATASETS if name != "embedded" for split in DATASETS[name]]
MULTIARITH = {"input": "Debby had 32, ate 35 of 42 more. How many?", "target": 39}


@pytest.fixture(autouse=True)
def no_hub_and_no_folder(monkeypatch, tmp_path):
    """Nothing outside the test decides: no folder named, hub out of reach, cache empty."""
    for name in ("HBD3LM_DATA_DIR", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """A data folder with one-problem files of every data set (SVAMP must be whole)."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "test"):
        write_lines(folder / f"gsm8k_{split}.jsonl", MAIN)
        write_lines(folder / f"gsm8k_{split}_socratic.jsonl", SOCRATIC)
    write_svamp(folder)
    write_lines(folder / "multiarith.jsonl", MULTIARITH)
    return folder


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
    monkeypatch.setattr(sources, "hub_reachable", lambda: True)
    return contents


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_svamp(folder, row=SVAMP, index=0):
    rows = [dict(SVAMP) for _ in range(1000)]
    rows[index] = row
    (folder / "svamp.json").write_text(json.dumps(rows), encoding="utf-8")


def only_problem(*arguments, **options):
    (problem,) = load_problems(*arguments, **options).problems
    return problem


# --- Which data set, which split --------------------------------------------------------------


def test_the_data_sets_and_their_splits():
    both = ("train", "test")
    three = dict.fromkeys(["gsm8k", "gsm8k_socratic", "svamp"], both)
    assert dict(DATASETS) == {**three, "multiarith": ("test",), "embedded": both}


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    names = "gsm8k, gsm8k_socratic, svamp, multiarith, embedded"
    with pytest.raises(UserError, match=f"unknown data set 'gsm9k'; choose one of {names}"):
        load_problems("gsm9k", "train")


@pytest.mark.parametrize(
    ("dataset", "split", "valid"),
    [("gsm8k", "validation", "train, test"), ("multiarith", "train", "test")],
)
def test_an_unknown_split_is_answered_with_the_known_ones(dataset, split, valid):
    with pytest.raises(
        UserError, match=f"'{dataset}' has no split '{split}'; choose one of {valid}$"
    ):
        load_problems(dataset, split)


@pytest.mark.parametrize("limit", [0, -1])
def test_asking_for_no_problems_is_refused(limit):
    with pytest.raises(UserError, match="at least 1"):
        load_problems("embedded", "train", limit=limit)


# --- Local files ------------------------------------------------------------------------------


def test_gsm8k_is_read_as_published(folder):
    loaded = load_problems("gsm8k", "train", folder)
    (problem,) = loaded.problems
    assert problem.id == "gsm8k_train_0"
    assert (problem.question, problem.solution) == (MAIN["question"], MAIN["answer"])
    assert (problem.answer, problem.subquestions) == ("72", ())
    assert loaded.origin == f"GSM8K main, train: 1 problems from {folder / 'gsm8k_train.jsonl'}"
    assert loaded.fallback is None


def test_the_socratic_version_is_the_same_problem_with_subquestions(folder):
    plain = only_problem("gsm8k", "test", folder)
    socratic = only_problem("gsm8k_socratic", "test", folder)
    assert socratic.subquestions == ("How many in May?", "How many in all?")
    assert (socratic.id, socratic.solution) == (plain.id, plain.solution)


def test_a_blank_step_of_the_socratic_version_has_no_subquestion(folder):
    """Published rows 480, 2617, 2815 and 5402 ask ahead of a blank line and then once more."""
    answer = "How? ** a\nWhat? ** \nWhat? ** b\n#### 1"
    write_lines(folder / "gsm8k_train_socratic.jsonl", {"question": "Q?", "answer": answer})
    problem = only_problem("gsm8k_socratic", "train", folder)
    assert problem.solution == "a\n\nb\n#### 1"
    assert problem.subquestions == ("How?", "What?")


def test_the_plain_file_under_the_socratic_name_is_noticed(folder):
    shutil.copy(folder / "gsm8k_train.jsonl", folder / "gsm8k_train_socratic.jsonl")
    with pytest.raises(UserError, match=r"socratic\.jsonl, line 1: step .* has no sub-question"):
        load_problems("gsm8k_socratic", "train", folder)


def test_svamp_gets_a_question_and_an_annotated_solution(folder):
    loaded = load_problems("svamp", "train", folder)
    problem = loaded.problems[0]
    assert problem.id == "svamp_train_0"
    assert problem.question == (
        "Each pack costs 76 dollars. There is a discount of 25 dollars. How much is a pack?"
    )
    assert problem.solution == "76 - 25 = <<76-25=51>>51\n#### 51"
    assert problem.answer == "51"


def test_svamp_is_split_by_position_and_says_so(folder):
    train, test = (load_problems("svamp", split, folder) for split in ("train", "test"))
    assert (len(train.problems), len(test.problems)) == (700, 300)
    assert (train.problems[-1].id, test.problems[0].id) == ("svamp_train_699", "svamp_test_700")
    assert "the first 700 rows are train, the last 300 test" in test.origin


def test_a_part_of_svamp_is_refused_since_its_split_would_move(folder):
    (folder / "svamp.json").write_text(json.dumps([SVAMP] * 999))
    with pytest.raises(UserError, match=r"svamp\.json holds 999 problems, SVAMP has 1000"):
        load_problems("svamp", "test", folder)


@pytest.mark.parametrize(
    ("equation", "answer", "solution"),
    [
        ("( ( 4.0 + 2.0 ) * 3.0 )", 18.0, "(4 + 2) * 3 = <<(4+2)*3=18>>18\n#### 18"),
        ("( 9.0 - ( 4.0 + 2.0 ) )", 3.0, "9 - (4 + 2) = <<9-(4+2)=3>>3\n#### 3"),
        ("( 9.0 / 2.0 )", "4.5", "9 / 2 = <<9/2=4.5>>4.5\n#### 4.5"),
        ("8.0", 8.0, "#### 8"),  # no calculation
        ("( ( 4.0 - 2.0 ) + 3.0 )", 1.0, "#### 1"),  # row 679 of the published file: wrong
    ],
)
def test_svamp_solutions_follow_the_equation_if_it_is_right(folder, equation, answer, solution):
    write_svamp(folder, {**SVAMP, "Equation": equation, "Answer": answer})
    assert load_problems("svamp", "train", folder, limit=1).problems[0].solution == solution


def test_a_body_that_ends_in_a_full_stop_gets_no_second(folder):
    write_svamp(folder, {**SVAMP, "Body": "It costs 76. "})
    problem = load_problems("svamp", "train", folder, limit=1).problems[0]
    assert problem.question == "It costs 76. How much is a pack?"


def test_multiarith_is_read(folder):
    problem = only_problem("multiarith", "test", folder)
    assert problem.id == "multiarith_test_0"
    assert (problem.question, problem.answer) == (MULTIARITH["input"], "39")
    assert problem.solution == "#### 39"


def test_the_environment_names_the_folder_and_the_argument_overrules_it(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("HBD3LM_DATA_DIR", str(folder))
    assert load_problems("gsm8k", "train").origin.endswith(str(folder / "gsm8k_train.jsonl"))
    with pytest.raises(UserError, match=r"no file gsm8k_train\.jsonl"):
        load_problems("gsm8k", "train", str(tmp_path))


@pytest.mark.parametrize("by_environment", [True, False])
@pytest.mark.parametrize(("dataset", "split"), FROM_FILES)
def test_a_named_folder_without_the_file_is_an_error_not_a_fallback(
    tmp_path, monkeypatch, dataset, split, by_environment
):
    if by_environment:
        monkeypatch.setenv("HBD3LM_DATA_DIR", str(tmp_path))
    named_by = "HBD3LM_DATA_DIR" if by_environment else "the data folder"
    file = {"svamp": "svamp.json", "multiarith": "multiarith.jsonl"}.get(
        dataset, f"gsm8k_{split}{dataset.removeprefix('gsm8k')}.jsonl"
    )
    with pytest.raises(UserError, match=rf"^{named_by} .* has no file {re.escape(file)}"):
        load_problems(dataset, split, None if by_environment else tmp_path)


def test_a_folder_that_is_none_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"the data folder .*nowhere is not a folder; .*--data_dir"):
        load_problems("gsm8k", "train", tmp_path / "nowhere")


def test_limit_takes_the_first_rows_and_origin_says_so(folder):
    write_lines(folder / "gsm8k_train.jsonl", *({**MAIN, "question": f"{i}?"} for i in range(5)))
    loaded = load_problems("gsm8k", "train", folder, limit=2)
    assert [problem.question for problem in loaded.problems] == ["0?", "1?"]
    assert "first 2 of 5 problems" in loaded.origin
    assert len(load_problems("gsm8k", "train", folder, limit=99).problems) == 5


def test_ids_count_problems_and_errors_count_lines(folder):
    """Blank lines are no problems; U+2028 ends no line; a byte order mark is no text."""
    text = f"\ufeff{json.dumps(MAIN)}\r\n\n"
    text += json.dumps({**MAIN, "question": "a\u2028b"}, ensure_ascii=False) + "\n{}\n"
    path = folder / "gsm8k_test.jsonl"
    path.write_bytes(text.encode())
    problems = load_problems("gsm8k", "test", folder, limit=2).problems
    assert [problem.id for problem in problems] == ["gsm8k_test_0", "gsm8k_test_1"]
    assert problems[1].question == "a\u2028b"
    with pytest.raises(UserError, match=r"gsm8k_test\.jsonl, line 4 has no field 'question'"):
        load_problems("gsm8k", "test", folder)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"answer": "#### 1"}, "has no field 'question'"),
        ({"question": "Q?"}, "has no field 'answer'"),
        ({"question": " ", "answer": "#### 1"}, "field 'question' is empty"),
        ({"question": "Q?", "answer": ""}, "field 'answer' is empty"),
        ({"question": None, "answer": "#### 1"}, "field 'question' is NoneType"),
        ({"question": "Q?", "answer": 1}, "field 'answer' is int"),
        (
            {"question": "Q?", "answer": "It is 1."},
            "the last line of 'answer' is not '#### NUMBER'",
        ),
        (
            {"question": "Q?", "answer": "#### one"},
            "the last line of 'answer' is not '#### NUMBER'",
        ),
        ({"question": "Q?", "answer": "#### 1\nbye"}, "the last line of 'answer' is not"),
        (["Q?"], "is a list, not a record"),
    ],
)
def test_a_bad_gsm8k_row_is_named_by_file_and_line(folder, row, reason):
    path = folder / "gsm8k_train.jsonl"
    write_lines(path, MAIN, row)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}, line 2:? {reason}"):
        load_problems("gsm8k", "train", folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Body": ""}, "field 'Body' is empty"),
        ({"Question": 3}, "field 'Question' is int"),
        ({"Answer": "many"}, "field 'Answer' is 'many', not a number"),
        ({"Answer": None}, "field 'Answer' is None, not a number"),
        ({"Equation": "( 1.0 +"}, "field 'Equation': not an arithmetic expression"),
        ({"Equation": "exit()"}, "field 'Equation': not arithmetic"),
    ],
)
def test_a_bad_svamp_row_is_named(folder, change, reason):
    write_svamp(folder, {**SVAMP, **change}, index=712)
    with pytest.raises(UserError, match=rf"svamp\.json, row 712: {reason}"):
        load_problems("svamp", "test", folder)


def test_a_bad_multiarith_row_is_named(folder):
    write_lines(folder / "multiarith.jsonl", MULTIARITH, {"input": "Q?"})
    with pytest.raises(UserError, match=r"multiarith\.jsonl, line 2 has no field 'target'"):
        load_problems("multiarith", "test", folder)


def test_broken_json_is_named_by_file_and_line(folder):
    line = json.dumps(MAIN)
    (folder / "gsm8k_train.jsonl").write_text(f"{line}\n{line[:30]}\n")
    with pytest.raises(UserError, match=r"gsm8k_train\.jsonl, line 2 is not valid JSON"):
        load_problems("gsm8k", "train", folder)
    text = (folder / "svamp.json").read_text()
    (folder / "svamp.json").write_text("[\n" + text[1:-50])
    with pytest.raises(UserError, match=r"svamp\.json, line 2 is not valid JSON"):
        load_problems("svamp", "train", folder)
    (folder / "svamp.json").write_text("{}")
    with pytest.raises(UserError, match=r"svamp\.json, line 1: expected a JSON array"):
        load_problems("svamp", "train", folder)


def test_an_empty_file_is_refused(folder):
    (folder / "gsm8k_train.jsonl").write_text("\n")
    with pytest.raises(UserError, match=r"gsm8k_train\.jsonl holds no train problems"):
        load_problems("gsm8k", "train", folder)


# --- The hub ----------------------------------------------------------------------------------


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


def test_a_folder_spares_the_hub(hub, folder):
    assert only_problem("gsm8k", "train", folder)  # the hub holds nothing and would raise


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


# --- The hub out of reach ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "title"), [("gsm8k", "GSM8K main"), ("gsm8k_socratic", "GSM8K socratic")]
)
def test_gsm8k_gives_way_to_embedded_problems_and_says_so(dataset, title):
    with pytest.warns(UserWarning) as caught:
        loaded = load_problems(dataset, "test", limit=4, seed=7)
    assert loaded.problems == generate_problems("test", 4, 7)
    assert loaded.origin == "embedded problems, test: 4 generated with seed 7"
    assert [str(warning.message) for warning in caught] == [loaded.fallback]
    assert loaded.fallback.startswith(
        f"{title} test was asked for, but the hub (http://127.0.0.1:9)"
    )
    for part in ("NOT GSM8K", "--data_dir DIR", "data.dir=DIR", "HBD3LM_DATA_DIR=DIR", "_test"):
        assert part in loaded.fallback


def test_the_replacement_has_as_many_problems_as_gsm8k():
    with pytest.warns(UserWarning):
        assert len(load_problems("gsm8k", "test").problems) == 1319


@pytest.mark.parametrize("dataset", ["svamp", "multiarith"])
def test_other_data_sets_are_not_replaced(dataset):
    with pytest.raises(UserError, match=r"cannot be reached.*--data_dir DIR.*HBD3LM_DATA_DIR"):
        load_problems(dataset, "test")


def test_a_hub_that_never_answers_is_given_up_within_seconds(monkeypatch):
    """A firewall that drops packets looks like this: connections open, nothing comes back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.warns(UserWarning, match="cannot be reached"):
            load_problems("gsm8k", "train", limit=1)


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_a_hub_that_is_switched_off_is_not_asked(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(sources, "hub_reachable", lambda: pytest.fail("the hub was asked"))
    with pytest.warns(UserWarning, match="is switched off"):
        load_problems("gsm8k", "train", limit=1)


def test_finding_the_hub_out_of_reach_imports_no_heavy_library(folder):
    """``datasets`` takes seconds to import; neither a folder nor the fallback needs it."""
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from hbd3lm.data.sources import load_problems\n"
        f"load_problems('gsm8k', 'train', {str(folder)!r})\n"
        "load_problems('gsm8k', 'train', limit=1)\n"
        "sys.exit(bool({'datasets', 'torch', 'pandas'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0


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


# --- Embedded ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "count"), [("train", 7473), ("test", 1319)])
def test_embedded_problems_need_no_files_and_number_as_many_as_gsm8k(tmp_path, split, count):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_problems("embedded", split, tmp_path)
    assert len(loaded.problems) == count
    assert loaded.origin == f"embedded problems, {split}: {count} generated with seed 0"
    assert loaded.fallback is None


# --- The published data -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "split", "count"),
    [
        ("gsm8k", "train", 7473),
        ("gsm8k", "test", 1319),
        ("gsm8k_socratic", "train", 7473),
        ("gsm8k_socratic", "test", 1319),
        ("svamp", "train", 700),
        ("svamp", "test", 300),
        ("multiarith", "test", 600),
    ],
)
def test_every_published_problem_is_read(data_dir, dataset, split, count):
    problems = load_problems(dataset, split, data_dir).problems
    assert len({problem.id for problem in problems}) == len(problems) == count
    for problem in problems:
        assert strict_answer(problem.solution) == problem.answer
        assert problem.solution.rpartition("\n")[2].startswith("#### ")


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_published_socratic_version_has_the_solutions_of_main(data_dir, split):
    plain = load_problems("gsm8k", split, data_dir).problems
    socratic = load_problems("gsm8k_socratic", split, data_dir).problems
    for left, right in zip(plain, socratic, strict=True):
        assert (left.id, left.question, left.solution) == (right.id, right.question, right.solution)
        steps = [line for line in right.solution.split("\n")[:-1] if line.strip()]
        assert len(right.subquestions) == len(steps)
        assert all(right.subquestions)


def test_the_published_svamp_equations_become_checked_steps(data_dir):
    problems = [p for s in ("train", "test") for p in load_problems("svamp", s, data_dir).problems]
    without_step = [p.id for p in problems if "<<" not in p.solution]
    assert without_step == ["svamp_train_554", "svamp_train_679"]
    for problem in problems:
        assert all(map(check_annotation, find_annotations(problem.solution)))
        assert ".0" not in problem.solution


def test_data_sets_have_a_title_and_a_name_on_the_hub():
    assert sources.published_as("gsm8k") == ("GSM8K main", "openai/gsm8k")
    assert sources.published_as("embedded") == ("embedded (generated) problems", None)
    assert sources.published_as("of my own") == ("of my own", None)
