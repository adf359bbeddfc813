import pytest

from hbd3lm.plans.rules.purpose import find_purpose


@pytest.mark.parametrize(
    ("left", "mark", "right", "purpose"),
    [
        ("Natalia sold ", "\ue010", " clips in May.", "how many clips Natalia sold in May"),
        ("Weng earns ", "\ue011", " per minute.", "how much Weng earns per minute"),
        ("So the total cost of cookies is ", "\ue011", "", "the total cost of cookies"),
        ("There are ", "\ue010", " pages left to read.", "how many pages there are left to read"),
        ("Tom's dog is ", "\ue010", " years old currently.", "how old Tom's dog is currently"),
        ("Then find the time on laundry: ", "\ue010", " minutes", "the time on laundry"),
        ("For 6 lemons, he pays ", "\ue011", ".", "how much he pays for the given lemons"),
        ("", "\ue010", " children are boys.", "how many children are boys"),
        ("Purple = ", "\ue010", " pages", "the pages for Purple"),
    ],
)  # fmt: skip
def test_what_a_step_finds_is_read_off_the_words_around_its_equation(left, mark, right, purpose):
    assert find_purpose(left, mark, right, None)[0] == purpose


def test_a_claim_before_because_says_what_is_found():
    purpose = find_purpose("He eats 32 slices on Monday because ", "\ue010", "", 32)[0]
    assert purpose == "how many slices he eats on Monday"
