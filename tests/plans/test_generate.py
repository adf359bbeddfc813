import json
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import HierarchicalExample, Problem, read_examples
from hbd3lm.errors import UserError
from hbd3lm.plans.generate import generate_plans, journal_path
from hbd3lm.plans.planner import load_planner
from hbd3lm.plans.prompt import PLAN_EXTRACTION_PROMPT, clean_plan, plan_messages


class Echo:
    """Plans with the problem's id; remembers its batches and may fail at one of them."""

    name = "echo"

    def __init__(self, fail_at=None):
        self.batches = []
        self.fail_at = fail_at

    def plan(self, problems):
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append([problem.id for problem in problems])
        return [f"plan of {problem.id}" for problem in problems]


def problems(count):
    return [
        Problem(f"p{i}", f"Question {i}?", f"1+{i}=<<1+{i}={n}>>{n}\n#### {n}", str(n))
        for i, n in enumerate(range(1, count + 1))
    ]


def run(output, planner, count=7, **options):
    return generate_plans(problems(count), planner, output, progress=False, **options)


def test_records_are_written_in_order_with_stripped_executions(tmp_path):
    output = tmp_path / "new" / "plans.json"
    examples = run(output, Echo(), count=3, batch_size=2)
    assert read_examples(output) == examples
    assert examples[1] == HierarchicalExample(
        "p1", "Question 1?", "plan of p1", "1+1=2\n#### 2", "2"
    )
    assert [e.id for e in examples] == ["p0", "p1", "p2"]
    assert not journal_path(output).exists()


def test_annotations_are_kept_on_request(tmp_path):
    [example] = run(tmp_path / "x.json", Echo(), count=1, keep_annotations=True)
    assert "<<1+0=1>>" in example.execution


@given(count=st.integers(1, 9), batch_size=st.integers(1, 10))
def test_batches_cover_every_problem_once_and_in_order(tmp_path_factory, count, batch_size):
    planner = Echo()
    run(tmp_path_factory.mktemp("run") / "x.json", planner, count=count, batch_size=batch_size)
    assert [name for batch in planner.batches for name in batch] == [f"p{i}" for i in range(count)]
    assert all(len(batch) <= batch_size for batch in planner.batches)


def test_an_interrupted_run_continues_and_ends_like_an_uninterrupted_one(tmp_path):
    output, whole = tmp_path / "x.json", tmp_path / "whole.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=2), batch_size=2)
    assert not output.exists()
    second = Echo()
    run(output, second, batch_size=2)
    assert second.batches == [["p4", "p5"], ["p6"]]
    run(whole, Echo(), batch_size=3)
    assert output.read_bytes() == whole.read_bytes()


def test_a_journal_line_cut_off_by_a_crash_is_planned_again(tmp_path):
    output = tmp_path / "x.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=2), batch_size=2)
    journal = journal_path(output)
    journal.write_bytes(journal.read_bytes()[:-9])
    second = Echo()
    assert len(run(output, second, batch_size=4)) == 7
    assert second.batches[0][0] == "p3"


@pytest.mark.parametrize(
    "change", [{"settings": {"temperature": 1}}, {"keep_annotations": True}, {"count": 6}]
)
def test_a_journal_of_another_run_is_refused_unless_overwritten(tmp_path, change):
    output = tmp_path / "x.json"
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=1), batch_size=2, settings={"temperature": 0})
    with pytest.raises(UserError, match="--overwrite"):
        run(output, Echo(), **{"settings": {"temperature": 0}, **change})
    planner = Echo()
    examples = run(output, planner, overwrite=True, **change)
    assert planner.batches[0][0] == "p0" and len(examples) == change.get("count", 7)


def test_the_output_of_an_earlier_run_stays_until_the_new_one_is_complete(tmp_path):
    output = tmp_path / "x.json"
    run(output, Echo(), count=2)
    before = output.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        run(output, Echo(fail_at=1), batch_size=2)
    assert output.read_bytes() == before
    run(output, Echo(), batch_size=2)
    assert len(json.loads(output.read_text())) == 7


def test_an_empty_plan_is_an_error_that_names_the_problem_and_not_filler(tmp_path):
    class Mute(Echo):
        def plan(self, problems):
            return ["fine", " \n"][: len(problems)]

    with pytest.raises(UserError, match=r"planner echo wrote an empty plan for problem p1"):
        run(tmp_path / "x.json", Mute(), count=2)
    assert not (tmp_path / "x.json").exists()


def test_bad_arguments_are_refused_by_name(tmp_path):
    with pytest.raises(UserError, match="no problems"):
        run(tmp_path / "x.json", Echo(), count=0)
    with pytest.raises(UserError, match="--batch_size 0"):
        run(tmp_path / "x.json", Echo(), batch_size=0)
    with pytest.raises(UserError, match="is a folder"):
        run(tmp_path, Echo())
    with pytest.raises(UserError, match="two problems have the id 'p0'"):
        generate_plans(problems(1) * 2, Echo(), tmp_path / "x.json", progress=False)


# --- the language model's planner, with a stand-in for the engine -----------------------------


@pytest.fixture
def fake_vllm(monkeypatch):
    calls = types.SimpleNamespace(llm=None, sampling=None, chats=[])

    class SamplingParams:
        def __init__(self, **options):
            calls.sampling = options

    class LLM:
        def __init__(self, **options):
            if options["model"] == "missing":
                raise OSError("missing is not a local folder\nand more")
            calls.llm = options

        def chat(self, messages, sampling_params, use_tqdm):
            assert isinstance(sampling_params, SamplingParams)
            calls.chats.append(messages)
            output = types.SimpleNamespace(text="Plan:\n Add the  amounts. ")
            return [types.SimpleNamespace(outputs=[output]) for _ in messages]

    module = types.ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    return calls


def test_the_vllm_planner_hands_its_options_and_the_prompt_to_the_engine(fake_vllm, tmp_path):
    planner = load_planner(
        "vllm", model="m", temperature=0.8, top_p=0.5, max_tokens=9, tensor_parallel_size=2, seed=3
    )
    examples = run(tmp_path / "x.json", planner, count=3, batch_size=2)
    assert fake_vllm.llm == {"model": "m", "tensor_parallel_size": 2, "seed": 3}
    assert fake_vllm.sampling == {"temperature": 0.8, "top_p": 0.5, "max_tokens": 9, "seed": 3}
    assert [len(chats) for chats in fake_vllm.chats] == [2, 1]
    system, user = fake_vllm.chats[0][0]
    assert PLAN_EXTRACTION_PROMPT.strip() in system["content"]
    assert "Question 0?" in user["content"]
    assert {e.plan for e in examples} == {"Add the amounts."}


def test_a_model_that_cannot_be_loaded_is_one_clear_message(fake_vllm):
    with pytest.raises(UserError, match=r"cannot load 'missing': missing is not a local folder;"):
        load_planner("vllm", model="missing")


def test_a_missing_engine_names_the_extra_and_the_planners_that_need_none(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError) as error:
        load_planner("vllm", model="m")
    assert "pip install 'hbd3lm[vllm]'" in str(error.value)
    assert "--planner rules or --planner socratic" in str(error.value)


def test_the_prompt_shows_the_solution_without_annotations_and_final_answer():
    _, user = plan_messages(problems(3)[2])
    assert "1+2=3" in user["content"]
    assert "<<" not in user["content"] and "####" not in user["content"]


def test_a_heading_before_the_plan_is_removed_and_nothing_else():
    assert clean_plan("**Plan:** Add 3.\nThen stop.") == "Add 3. Then stop."
    assert clean_plan("Planning ahead, add.") == "Planning ahead, add."
