import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.judge import FAULTS, Limits, badness, judge
from hbd3lm.plans.prompt import load_prompt
from hbd3lm.plans.wording import drop_numbers

SOLUTION = (
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\n"
    "Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.\n#### 72"
)
PROBLEM = Problem("p", "Natalia sold clips to 48 of her friends ...", SOLUTION, "72")
GOOD = "First find the clips of the later month. Then add the clips of both months."


def faults(plan, limits=None, **options):
    return judge(plan, PROBLEM, limits or Limits(), **options)


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (GOOD, ()),
        ("", ("empty",)),
        (" ... \n", ("empty",)),
        ("Add the clips.", ("too_short",)),
        (GOOD * 10, ("too_long",)),
        (GOOD + " Use the 24 clips.", ("numbers",)),
        (GOOD + " It is 72.", ("answer", "numbers")),
        (GOOD + " It is seventy-two.", ("answer",)),
        (GOOD + " It is $72.00!", ("answer", "numbers")),
        ("Natalia sold clips in May. Natalia sold clips altogether in April and May.", ("copied",)),
        (SOLUTION.split("####")[0], ("copied", "answer", "numbers")),
    ],
)
def test_each_fault_is_found_and_nothing_else(plan, expected):
    assert faults(plan) == expected


def test_a_cut_off_plan_and_an_engine_error_are_faults_of_their_own():
    assert faults(GOOD, finished=False) == ("cut_off",)
    assert faults("", finished=False) == ("empty", "cut_off")
    assert faults("", error="too long") == ("error",)


def test_a_plan_that_repeats_the_request_is_no_plan():
    """138 of 200 "repaired" plans of a small model said that a plan had been refused."""
    instructions = load_prompt().instructions
    for plan in (
        "A plan was refused because it contained numbers; write the given amounts as words.",
        "A plan was refused for numbers; more valid solutions could be entered.",
        "I am refused because it contained numbers; write the given amounts as words such as it.",
    ):
        assert "echoed" in faults(plan, instructions=instructions)
    assert faults(GOOD, instructions=instructions) == ()


@pytest.mark.parametrize(("allowed", "expected"), [(0, ("numbers",)), (1, ("numbers",)), (2, ())])
def test_as_many_numbers_as_allowed_are_no_fault(allowed, expected):
    assert faults(GOOD + " Use 24 and 48.", Limits(max_numbers=allowed)) == expected


@given(low=st.integers(1, 20), extra=st.integers(0, 20), words=st.integers(1, 50))
def test_the_limits_of_length_are_inclusive(low, extra, words):
    found = faults(" ".join(["add"] * words), Limits(0, low, low + extra))
    assert ("too_short" in found) == (words < low)
    assert ("too_long" in found) == (words > low + extra)


@pytest.mark.parametrize(
    ("limits", "flag"),
    [
        ({"max_numbers": -1}, "--max_numbers -1"),
        ({"min_words": -1}, "--min_words -1"),
        ({"min_words": 9, "max_words": 8}, "--max_words 8"),
        ({"min_words": 0, "max_words": 0}, "--max_words 0"),
    ],
)
def test_limits_that_no_plan_can_keep_are_refused_by_the_flag(limits, flag):
    with pytest.raises(UserError, match=flag):
        Limits(**limits)


def test_attempts_are_ranked_by_what_leaks_before_what_is_badly_formed():
    ranked = [
        GOOD,
        "Add the clips.",
        GOOD + " Use 24.",
        GOOD + " Use 24 and 48.",
        SOLUTION.split("####")[0].replace("72", "many"),
        GOOD + " It is 72.",
        "",
    ]
    keys = [badness(plan, faults(plan)) for plan in ranked]
    assert keys == sorted(keys) and len(set(keys)) == len(keys)
    assert all(fault in FAULTS for plan in ranked for fault in faults(plan))


def test_of_the_rule_plans_of_gsm8k_hardly_one_is_faulty_of_its_solutions_all_are(data_dir):
    """The limits neither send good plans back nor let a copied solution pass, numbers or not."""
    from hbd3lm.data.sources import load_problems
    from hbd3lm.plans.planner import load_planner
    from hbd3lm.plans.prompt import clean_plan, shown_solution

    problems = load_problems("gsm8k", "train", data_dir, 600).problems
    plans = load_planner("rules").plan(problems)
    assert all(clean_plan(plan) == plan for plan in plans)
    bad = [p.id for p, plan in zip(problems, plans) if judge(plan, p, Limits())]
    assert len(bad) <= 6
    wordy = [p for p in problems if len(shown_solution(p).split()) > 25]
    assert len(wordy) > 300
    copied = answers = 0
    for problem in wordy:
        text = clean_plan(shown_solution(problem))
        found = judge(text, problem, Limits())
        assert {"copied", "numbers"} <= set(found)
        answers += "answer" in found
        copied += "copied" in judge(drop_numbers(text), problem, Limits())
    assert min(copied, answers) >= 0.97 * len(wordy)
