"""The same example about other people: a change of words that touches nothing it is about.

Names are capitalised words that stand somewhere within a sentence and are no day, month, unit or
nationality that this list knows; a place may be taken for a person, which does no harm here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.synthetic.words import PEOPLE

_WITHIN = re.compile(r"(?<=[a-z,;'’\d]\s)[A-Z][a-z]+\b")
_OWNER = re.compile(r"\b[A-Z][a-z]+(?=['’]s\b)")
_NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May "
        "June July August September October November December Christmas Easter Halloween New Year "
        "Thanksgiving Day Eve Mr Mrs Ms Dr Miss Sir Celsius Fahrenheit American English French "
        "Spanish Chinese German Italian Indian Japanese How What If When The He She It They There "
        "Then That This His Her Their I A An And But For In On At To So After Before Each Every "
        "Street Park School City Lake River Island Mount Road Avenue",
    )
)
_HE, _SHE = (re.compile(rf"\b(?:{w})\b", re.I) for w in ("he|his|him|himself", "she|hers?|herself"))
_PRONOUN = {person.name: person.he for person in PEOPLE}


def find_names(text: str) -> list[str]:
    """The names in ``text``, each once, in the order of their first use.

    >>> find_names("Tom gave Mia 3 cards on Monday.")
    ['Tom', 'Mia']
    """
    names = {m[0] for pattern in (_WITHIN, _OWNER) for m in pattern.finditer(text)}
    names |= {name for name in _PRONOUN if re.search(rf"\b{name}\b", text)}
    names -= _NO_NAMES
    return sorted(names, key=lambda name: re.search(rf"\b{name}\b", text).start())


def rename_people(
    example: HierarchicalExample, seed: int = 0
) -> tuple[HierarchicalExample, dict[str, str]] | None:
    """``example`` with other names in all its texts, and what became of each; None without any.

    A new name fits the pronouns as far as they tell.
    """
    names = find_names(example.question)
    if not names:
        return None
    texts = f"{example.question} {example.plan} {example.execution}"
    rng = np.random.default_rng([seed, 23])
    changed: dict[str, str] = {}
    for name in names:
        he = _pronoun(name, example.question)
        free = [
            person.name
            for person in PEOPLE
            if he in (None, person.he)
            and person.name not in changed.values()
            and not re.search(rf"\b{person.name}\b", texts)
        ]
        changed[name] = free[rng.integers(len(free))]
    fields = ("question", "plan", "execution")
    texts = {name: replace_names(getattr(example, name), changed) for name in fields}
    return replace(example, **texts), changed


def replace_names(text: str, changed: Mapping[str, str]) -> str:
    """``text`` with each name (a key of ``changed``) replaced, all at once."""
    pattern = "|".join(map(re.escape, sorted(changed, key=len, reverse=True)))
    return re.sub(rf"\b(?:{pattern})\b", lambda match: changed[match[0]], text)


def _pronoun(name: str, question: str) -> str | None:
    if name in _PRONOUN:
        return _PRONOUN[name]
    he, she = bool(_HE.search(question)), bool(_SHE.search(question))
    return None if he == she else "he" if he else "she"
