"""What constrained decoding can write, in both notations."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hbd3lm.plans.engines.shape import LETTERS, WORDS, lone_spaces, plan_grammar, plan_regex
from hbd3lm.plans.numbers import count_numbers
from hbd3lm.plans.quality import count_sentences

REGEX = re.compile(plan_regex())
SOME = settings(max_examples=25, suppress_health_check=list(HealthCheck))
PLAN = (
    "First, multiply the given pages/day (at half-speed) by the days' count: that is read. "
    "Then subtract it from the book's pages."
)


def grammar_as_regex(text: str) -> re.Pattern:
    """A GBNF grammar without recursion, its rules put into one another; independent of ours."""
    rules = dict(line.split(" ::= ", 1) for line in text.splitlines())

    def body(rule: str) -> str:
        tokens = re.findall(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}|[()?*+|]|[a-z]+', rules[rule])
        assert "".join(tokens) == "".join(re.sub(r' (?=[^"]*(?:"[^"]*"[^"]*)*$)', "", rules[rule]))
        parts = []
        for token in tokens:
            if token.startswith('"'):
                parts.append(f"(?:{re.escape(token[1:-1])})")
            elif re.fullmatch(r"[a-z]+", token):
                parts.append(f"(?:{body(token)})")
            else:
                parts.append(token)
        return "".join(parts)

    return re.compile(body("root"))


GRAMMAR = grammar_as_regex(plan_grammar())
plans = st.from_regex(REGEX, fullmatch=True)


@given(plans)
@SOME
def test_every_constrained_plan_has_two_to_four_sentences_and_no_digit_of_any_script(plan):
    assert 2 <= count_sentences(plan) <= 4
    assert not [c for c in plan if unicodedata.category(c).startswith("N") or c.isnumeric()]
    assert count_numbers(plan) == 0


@given(plans)
@SOME
def test_the_grammar_allows_what_the_expression_allows(plan):
    assert GRAMMAR.fullmatch(plan)


@given(st.from_regex(GRAMMAR, fullmatch=True))
@SOME
def test_the_expression_allows_what_the_grammar_allows(plan):
    assert REGEX.fullmatch(plan)


@given(plans, st.data())
@SOME
def test_both_notations_agree_on_plans_with_one_character_changed(plan, data):
    place = data.draw(st.integers(0, len(plan)))
    other = data.draw(st.sampled_from(["", " ", ".", ",", "(", ")", "-", "A", "a", "\n", "7", "é"]))
    changed = plan[:place] + other + plan[place + 1 :]
    assert bool(REGEX.fullmatch(changed)) == bool(GRAMMAR.fullmatch(changed))


def test_an_ordinary_plan_is_allowed():
    assert REGEX.fullmatch(PLAN)
    assert GRAMMAR.fullmatch(PLAN)


@pytest.mark.parametrize("digit", ["7", "٣", "７", "½", "²", "Ⅳ", "③", "一"])
def test_no_digit_fits_anywhere_into_a_plan(digit):
    for place in range(len(PLAN) + 1):
        assert not REGEX.fullmatch(PLAN[:place] + digit + PLAN[place:])


@pytest.mark.parametrize(
    "plan",
    [
        "Add the given amounts together.",  # one sentence
        " ".join(["Add the given amounts together."] * 5),
        "Add the amounts. E.g. add them. Then stop there.",  # an abbreviation is no sentence
        "Add the amounts.\nThen stop there.",
        "- Add the amounts. Then stop there.",
        "Add the amounts. Then stop there. ",
        "Add the amounts. Then stop there",
        "Add  the amounts. Then stop there.",
        f"Add {'a' * (LETTERS + 1)} amounts. Then stop there.",
        "Add" + " it" * WORDS[1] + ". Then stop there.",
    ],
)
def test_other_forms_are_not(plan):
    assert not REGEX.fullmatch(plan)
    assert not GRAMMAR.fullmatch(plan)


def test_the_longest_plan_is_still_allowed_and_finite():
    longest = "Add" + " it" * (WORDS[1] - 1) + "."
    assert REGEX.fullmatch(" ".join([longest] * 4))


def test_the_lone_blank_is_found_in_the_vocabularies_of_both_families():
    assert lone_spaces({"Ġ": 5, "Ġthe": 6, "ĠĠ": 7, "a": 1}) == [5]
    assert lone_spaces({"▁": 3, "▁the": 4, "▁▁": 9}) == [3]
    assert lone_spaces({"the": 4}) == []
