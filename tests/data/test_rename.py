"""Other names: only names change, and they can be changed back."""

from __future__ import annotations

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.rename import find_names, rename_people, replace_names
from hbd3lm.data.synthetic import generate_problems


def test_names_of_days_and_starts_of_sentences_are_none():
    text = "On Monday, Janet's ducks laid 16 eggs. Every morning Janet sells to Weng at Christmas."
    assert find_names(text) == ["Janet", "Weng"]


def test_a_renamed_example_says_the_same_of_others():
    renamed = 0
    for i, problem in enumerate(generate_problems("test", 40)):
        old = HierarchicalExample(
            problem.id, problem.question, "", problem.solution, problem.answer
        )
        found = rename_people(old, i)
        assert found is not None
        new, names = found
        renamed += 1
        assert not set(find_names(new.question)) & set(names)
        assert len(set(names.values())) == len(names)
        back = {after: before for before, after in names.items()}
        assert replace_names(new.question, back) == old.question
        assert replace_names(new.execution, back) == old.execution
    assert renamed == 40


def test_names_that_trade_places_do_not_meet():
    assert replace_names("Ann met Bo. Bo waved.", {"Ann": "Bo", "Bo": "Ann"}) == (
        "Bo met Ann. Ann waved."
    )


def test_a_question_without_people_has_no_other_names():
    assert rename_people(HierarchicalExample("x", "What is 3 plus 4?", "", "", "7")) is None
