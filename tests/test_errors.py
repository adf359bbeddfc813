"""Texts of messages."""

from __future__ import annotations

from hbd3lm.errors import some_of


def test_of_many_names_the_first_are_told_and_the_rest_counted():
    assert [some_of("abc"), some_of("abcde"), some_of("abcdefg"), some_of("ab", most=1)] == [
        "a, b, c",
        "a, b, c, d, e",
        "a, b, c, d, e and 2 more",
        "a and 1 more",
    ]
