import re

import pytest
import yaml

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.judge import FAULTS, Limits, judge
from hbd3lm.plans.numbers import count_spelled_numbers
from hbd3lm.plans.prompt import DEFAULT, QUESTION_ONLY, clean_plan, load_prompt

RULES = [
    "The plan should contain ONLY logical steps and operations",
    "Do NOT include specific numbers or calculations",
    'Use abstract terms like "initial quantity", "given amount"',
    "Keep it concise (2-4 sentences)",
    "Focus on reasoning structure, not execution",
]
PROBLEM = Problem("p", "Ann has {3} hats. How many?", "1+2=<<1+2=3>>3 {question}\n#### 3", "3")


def template(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("question_only", [False, True])
def test_the_shipped_prompts_hold_the_five_rules_roles_and_few_shot_examples(question_only):
    chat = load_prompt(question_only=question_only).messages(PROBLEM)
    assert [turn["role"] for turn in chat] == ["system"] + ["user", "assistant"] * 2 + ["user"]
    for number, rule in enumerate(RULES, start=1):
        assert f"{number}. {rule}" in chat[0]["content"]
    assert "Ann has {3} hats. How many?" in chat[-1]["content"]  # braces of a problem are text
    assert ("1+2=3 {question}" in chat[-1]["content"]) != question_only
    assert not any("<<" in turn["content"] or "####" in turn["content"] for turn in chat)


def test_question_only_shows_no_solution_in_any_round():
    prompt = load_prompt(question_only=True)
    assert not prompt.shows_solution and load_prompt().shows_solution
    for round in range(5):
        text = str(prompt.messages(PROBLEM, round, FAULTS))
        assert "1+2" not in text and "Solution" not in text
        assert "6*12" not in text and "5-2" not in text  # nor those of the examples


def test_a_problem_without_published_steps_has_no_empty_solution_section():
    bare = Problem("p", "How many?", "#### 3", "3")
    assert "Solution" not in load_prompt().messages(bare)[-1]["content"]


@pytest.mark.parametrize("path", [DEFAULT, QUESTION_ONLY])
def test_the_example_plans_are_good_plans(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for shot in content["examples"] + content.get("reminders", []):
        gold = re.findall(r"=\$?(\d+)", shot.get("solution", "=0"))[-1]
        problem = Problem("x", shot["question"], shot.get("solution", ""), gold)
        plan = " ".join(shot["plan"].split())
        assert judge(plan, problem, Limits(), instructions=load_prompt().instructions) == ()
        assert count_spelled_numbers(shot["plan"]) == 0
        assert 2 <= shot["plan"].count(".") <= 4


def test_the_examples_come_from_no_split_of_gsm8k(data_dir):
    published = "".join(
        (data_dir / f"gsm8k_{split}.jsonl").read_text("utf-8") for split in ("train", "test")
    )
    for path in (DEFAULT, QUESTION_ONLY):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for shot in content["examples"] + content.get("reminders", []):
            assert shot["question"][:40] not in published


def test_every_round_insists_more_reminds_more_and_names_the_faults():
    prompt = load_prompt()
    rounds = [prompt.messages(PROBLEM, round, ("numbers", "too_long")) for round in range(6)]
    assert [len(chat) for chat in rounds] == [6, 8, 10, 12, 12, 12]
    systems = [chat[0]["content"] for chat in rounds[:4]]
    assert len(set(systems)) == 4 and all(text.startswith(systems[0]) for text in systems)
    assert systems[3].endswith("makes the plan useless.")
    for fault in ("numbers", "too_long"):
        assert prompt.faults[fault] in rounds[1][-1]["content"]
    assert prompt.faults["empty"] not in rounds[1][-1]["content"]
    assert set(prompt.faults) == set(FAULTS)


def test_a_file_of_the_user_replaces_the_prompt_and_may_do_without_system_role(tmp_path):
    path = template(tmp_path, "user: 'Plan: {question}'\nreminders: []\n")
    prompt = load_prompt(path)
    assert prompt.messages(PROBLEM) == (
        {"role": "user", "content": "Plan: Ann has {3} hats. How many?"},
    )
    [again] = prompt.messages(PROBLEM, 1, ("empty",))
    assert again["content"].startswith("Plan: Ann") and "it was empty" in again["content"]
    assert "Follow every rule" in again["content"]  # insisting needs no system message


def test_the_digest_is_that_of_what_is_asked_not_of_the_file(tmp_path):
    copy = template(tmp_path, "# mine\n" + DEFAULT.read_text(encoding="utf-8"))
    assert load_prompt(copy).digest == load_prompt().digest
    changed = template(tmp_path, DEFAULT.read_text("utf-8").replace("LAST WARNING", "Please"))
    assert load_prompt(changed).digest != load_prompt().digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user: 'Plan it.'", r"mine.yaml: user lacks the placeholder \{question\}"),
        ("user: '{question} {answer}'", r"user has the placeholder \{answer\}; it may have"),
        ("user: '{question}'\nsystem: '{solution}'", r"system has the placeholder \{solution\}"),
        ("user: '{question}'\nuser_without_solution: 'x'", "user_without_solution lacks"),
        ("usr: '{question}'", "there is no key 'usr'; the keys: system, user,"),
        ("user: [1]", "user must be a text, not a list"),
        ("just text", "holds no keys; start from a copy of .*default.yaml"),
        ("user: '{question}\nsystem: x: y", r"line \d: not valid YAML"),
        ("user: '{question}'\nexamples: [{question: q}]", "examples, entry 1 has no text 'plan'"),
        ("user: '{question}{solution}'\nexamples: [{question: q, plan: p}]", "no text 'solution'"),
        ("user: '{question}'\nfaults: {tired: x}", "faults knows no 'tired'"),
        ("user: '{question}'\ninsist: 3", "insist must be a list"),
    ],
)
def test_a_template_that_cannot_work_is_refused_with_the_key_and_the_remedy(
    tmp_path, text, message
):
    with pytest.raises(UserError, match=message):
        load_prompt(template(tmp_path, text))


def test_a_template_with_the_solution_contradicts_question_only(tmp_path):
    path = template(tmp_path, "user: '{question} {solution}'")
    with pytest.raises(UserError, match=r"--prompt_file .* --question_only forbids"):
        load_prompt(path, question_only=True)
    assert not load_prompt(template(tmp_path, "user: '{question}'"), True).shows_solution


def test_a_template_is_the_same_by_whatever_route(tmp_path, monkeypatch):
    path = template(tmp_path, "user: '{question}'")
    monkeypatch.chdir(tmp_path)
    assert (
        load_prompt(path)
        == load_prompt(path.name)
        == load_prompt(f"../{tmp_path.name}/{path.name}")
    )


def test_a_missing_template_is_named(tmp_path):
    with pytest.raises(UserError, match="--prompt_file: no such file"):
        load_prompt(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("**Plan:** Add 3.\nThen stop.", "Add 3. Then stop."),
        ("Here is the abstract plan:\n\n1. Add them.\n2. Stop.", "Add them. Stop."),
        ("Sure! Here's a plan:\n- Add them.\n* Stop.", "Add them. Stop."),
        ("Step 1: Add them.\nStep 2: Stop.", "Add them. Stop."),
        ("<think>Is it 4? 5?</think>\nPlan: Add them.", "Add them."),
        ("<think>Is it 4? Cut off", ""),
        ("Planning ahead, add.", "Planning ahead, add."),
        ("Find the ratio: divide the plan by it.", "Find the ratio: divide the plan by it."),
        ("12 more are added.", "12 more are added."),
        (' "Add them." ', "Add them."),
    ],
)  # fmt: skip
def test_thoughts_headings_and_list_marks_go_and_what_was_said_stays(text, plan):
    assert clean_plan(text) == plan
