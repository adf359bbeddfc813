"""Embedded problems: right, well written, disjoint, and the same everywhere."""

import re
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbd3lm.data.annotations import check_annotation, find_annotations, strip_annotations
from hbd3lm.data.answers import normalize_number, strict_answer
from hbd3lm.data.synthetic import generate_problems
from hbd3lm.data.synthetic.chance import Chance
from hbd3lm.data.synthetic.openings import OPENINGS
from hbd3lm.data.synthetic.sequels import SEQUELS
from hbd3lm.data.synthetic.story import draw_story, is_test, signature
from hbd3lm.data.synthetic.words import NUMBER_WORDS, PEOPLE
from hbd3lm.errors import UserError

PROBLEMS = generate_problems("train", 1500) + generate_problems("test", 300)
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def _stories(count: int):
    for index in range(count):
        chance = Chance("test", index)
        story = draw_story(chance, chance.int(1, 6))
        if story is not None:
            yield story


# --- right ------------------------------------------------------------------------------------


def test_every_annotation_is_right_and_the_last_one_is_the_answer():
    for problem in PROBLEMS:
        *steps, last = problem.solution.split("\n")
        annotations = [find_annotations(step) for step in steps]
        assert [len(found) for found in annotations] == [1] * len(steps), problem
        assert all(check_annotation(found[0]) for found in annotations), problem
        assert last == f"#### {problem.answer}"
        assert annotations[-1][0].result == problem.answer


def test_answers_are_normal_numbers_and_not_negative():
    for problem in PROBLEMS:
        assert strict_answer(problem.solution) == problem.answer
        assert normalize_number(problem.answer) == problem.answer
        assert Fraction(problem.answer) >= 1
        assert (Fraction(problem.answer) * 100).denominator == 1


def test_the_solution_without_annotations_shows_the_same_calculation():
    for problem in PROBLEMS[:300]:
        for line in problem.solution.split("\n")[:-1]:
            (found,) = find_annotations(line)
            plain = strip_annotations(line).replace(" ", "").replace("$", "")
            assert f"{found.expression}={found.result}" in plain


def test_a_solution_uses_only_numbers_of_the_question_and_earlier_results():
    """60 and 100 are minutes in an hour and percent; 2 is a way there and back; the rest is told,
    in digits or in words."""
    told_in_words = {"half": (1, 2), "third": (1, 2, 3), "thirds": (2, 3), "quarter": (1, 4)}
    told_in_words |= {"quarters": (3, 4), "fifth": (1, 5), "fifths": (2, 5), "fourth": (1, 4)}
    told_in_words |= {"twice": (2,), "back": (2,), "same": (2,), "minutes": (60,), "%": (100,)}
    told_in_words |= {word: (value,) for value, word in NUMBER_WORDS.items()}
    for problem in PROBLEMS:
        known = {Fraction(n) for n in NUMBER.findall(problem.question)}
        for token in re.findall(r"[a-z]+|%", problem.question.lower()):
            known |= {Fraction(value) for value in told_in_words.get(token, ())}
        for annotation in find_annotations(problem.solution):
            operands = {Fraction(n) for n in NUMBER.findall(annotation.expression)}
            assert operands <= known, (problem, annotation)
            known.add(Fraction(annotation.result))


@pytest.mark.parametrize("steps", range(1, 7))
def test_n_steps_are_n_calculations_of_which_each_is_used(steps):
    for problem in generate_problems("train", 60, seed=3, min_steps=steps, max_steps=steps):
        annotations = find_annotations(problem.solution)
        assert len(annotations) == len(problem.subquestions) == steps
        for index, annotation in enumerate(annotations[:-1]):
            later = " ".join(a.expression for a in annotations[index + 1 :])
            assert annotation.result in NUMBER.findall(later), problem


def test_lengths_from_one_to_six_steps_are_about_equally_frequent():
    counts = [len(problem.subquestions) for problem in PROBLEMS]
    assert all(0.8 / 6 < counts.count(n) / len(counts) < 1.2 / 6 for n in range(1, 7))


# --- well written -----------------------------------------------------------------------------


def test_no_template_is_left_unfilled_and_sentences_are_sentences():
    for problem in PROBLEMS:
        texts = [problem.question, problem.solution.rpartition("\n")[0], *problem.subquestions]
        for text in texts:
            assert not re.search(r"[\[\]{}|]|  |None|Fraction", text), text
            for sentence in re.split(r"(?<=[.?!])\s+", text):
                assert re.match(r"[A-Z0-9]", sentence), text
        assert problem.question.endswith("?") and problem.question.count("?") == 1
        assert all(text.endswith("?") for text in problem.subquestions)
        assert problem.solution.rpartition("\n")[0].endswith(".")


def test_nothing_is_one_apples():
    """Counts are 2 and more, so that plural nouns are right."""
    for problem in PROBLEMS:
        assert not re.search(r"(?<![$\d.])1 (?!gallon)[a-z]+s\b", problem.question), problem
        assert not re.search(r"(?<!\$)<<[^>]*>>1 [a-z]+", problem.solution), problem


def test_verbs_agree_with_their_subject():
    names = "|".join(person.name for person in PEOPLE)
    one = "has|buys|sells|gives|gets|earns|spends|wants|pays|drives|needs"
    base = "have|buy|sell|give|get|earn|spend|want|pay|drive|need"
    wrong = re.compile(
        rf"(?:(?<!and )\b(?:{names})|\b[Hh]e|\b[Ss]he) (?:{base}) "
        rf"|(?:\b(?:{names}) and (?:{names})|\b[Tt]hey) (?:{one}) "
    )
    for problem in PROBLEMS:
        for text in (problem.question.rpartition(". ")[0], problem.solution):
            match = wrong.search(text)
            assert not match, (match, text)


def test_a_problem_keeps_its_tense():
    present = re.compile(r"\b(?:has|have|gives?|gets?|does|do|sells?|buys?|is|are)\b")
    past = re.compile(r"\b(?:had|gave|got|did|sold|bought|was|were|made|drove|kept)\b")
    for problem in PROBLEMS:
        told = re.sub(r"\bdid\b.*", "did", problem.question)  # "How many did he have?"
        told = re.sub(
            r"\b(?:[Tt]o (?:buy|get)|did not have|had (?:paid|planned|set|cost))\b", "", told
        )
        assert not (present.search(told) and past.search(told)), problem


def test_pronouns_stand_for_one_person_only():
    """Two girls in a problem: then nobody is called she."""
    for problem in PROBLEMS:
        present = [p for p in PEOPLE if re.search(rf"\b{p.name}\b", problem.question)]
        for pronoun in ("he", "she"):
            index = re.search(rf"\b{pronoun}\b", problem.question, re.IGNORECASE)
            if index:
                before = problem.question[: index.start()]
                named = {p.name for p in present if p.he == pronoun and p.name in before}
                assert len(named) == 1, problem


def test_subquestions_carry_no_digits_so_that_they_can_serve_as_a_plan():
    assert not [q for problem in PROBLEMS for q in problem.subquestions if re.search(r"\d", q)]


def test_wordings_vary():
    assert len({problem.question for problem in PROBLEMS}) == len(PROBLEMS)
    masked = [NUMBER.sub("N", problem.question.split(".")[0]) for problem in PROBLEMS]
    for person in PEOPLE:
        masked = [re.sub(rf"\b{person.name}\b", "P", text) for text in masked]
    assert len(set(masked)) > 300


def test_every_event_occurs_and_no_two_share_a_name():
    names = [event.name for event in (*OPENINGS, *SEQUELS)]
    assert len(set(names)) == len(names) > 60
    seen = {scene.event.name for story in _stories(12000) for scene in story}
    assert seen == set(names)


# --- disjoint, reproducible -------------------------------------------------------------------


def test_train_and_test_share_no_abstract_problem_whatever_the_seed():
    def signatures(split, seed):
        found = set()
        for problem in generate_problems(split, 400, seed=seed, max_steps=2):
            expressions = [a.expression for a in find_annotations(problem.solution)]
            found.add((re.sub(r"[^a-z]", "", problem.question.lower()), *expressions))
        return found

    stories = list(_stories(3000))
    by_signature: dict[str, set[bool]] = {}
    for story in stories:
        by_signature.setdefault(signature(story), set()).add(is_test(story))
    assert all(len(sides) == 1 for sides in by_signature.values())
    assert 0.15 < sum(map(is_test, stories)) / len(stories) < 0.25
    assert not signatures("train", 0) & signatures("test", 1)


def test_generated_splits_obey_the_rule_that_separates_them(monkeypatch):
    from hbd3lm.data.synthetic import generate

    kept = []
    monkeypatch.setattr(
        generate, "write_story", lambda chance, story: kept.append(story) or ("", "#### 1", ())
    )
    generate_problems("train", 100)
    generate_problems("test", 100)
    assert [is_test(story) for story in kept] == [False] * 100 + [True] * 100


@settings(max_examples=20)
@given(st.sampled_from(["train", "test"]), st.integers(0, 10**9), st.integers(0, 20))
def test_a_problem_does_not_depend_on_how_many_are_asked_for(split, seed, count):
    many = generate_problems(split, 20, seed=seed)
    assert generate_problems(split, count, seed=seed) == many[:count]
    assert [p.id for p in many[:3]] == [f"embedded_{split}_{i}" for i in range(3)]


def test_another_seed_gives_other_problems():
    first, second = (generate_problems("train", 50, seed=seed) for seed in (0, 1))
    assert not {p.question for p in first} & {p.question for p in second}


def test_every_process_generates_the_same():
    code = (
        "from hbd3lm.data.synthetic import generate_problems as g;"
        "import hashlib; print(hashlib.sha256(repr(g('train', 50, seed=5)).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_the_random_choices_are_pinned_for_all_python_versions():
    chance = Chance("train", 0)
    assert [chance.int(0, 99) for _ in range(6)] == [79, 74, 13, 10, 14, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("valid", 1), "no split 'valid'"),
        (("train", -1), "-1"),
        (("train", 10**12), "1,000,000,000,000 were asked for; at most 3,000,000 are generated"),
        (("train", 1, 0, 0), "min_steps=0"),
        (("train", 1, 0, 1, 7), "max_steps=7"),
        (("train", 1, 0, 4, 3), "min_steps=4"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        generate_problems(*arguments)
