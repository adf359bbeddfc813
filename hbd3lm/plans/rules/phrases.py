"""Pieces of English that steps, purposes and givens share: openers, noun phrases, loose ends."""

from __future__ import annotations

import re

from hbd3lm.plans.rules.figures import MARK
from hbd3lm.plans.wording import (
    DETERMINERS,
    PREPOSITIONS,
    has_numbers,
    is_noun,
    without_numbers,
    word_set,
)

_OPENER = re.compile(
    r"^(?:so|thus|therefore|hence|then|next|finally|first|firstly|second|secondly|lastly|now|and|"
    r"but|also|afterwards?|altogether|overall|in total|in all|all in all|in the end|as a result|"
    r"consequently|accordingly|similarly|likewise|meanwhile|"
    r"(?:that|this|which|it) (?:means?|implies|shows?|gives? us|tells us|indicates)(?: that)?|"
    r"we (?:know|find|see|get|calculate|can say|can see)(?: that)?|"
    r"we can (?:calculate|find|figure out|say|see)(?: that)?|this is because|"
    r"in other words|for this reason|since then|after that|of (?:these|those|this)|"
    r"if so|if we|let's say|to sum up|in that case)\b[,:]?\s+",
    re.IGNORECASE,
)
CLAUSE_END = re.compile(
    r"[.;:!?](?=\s|$)|,|\(|\s(?:so|because|since|as|which|while|but|if|when|where|then|given|who)\s"
    r"|\sand\s(?=(?:he|she|they|it|the|his|her|their|there|then|so)\s)|=|\+|\*|\s-\s|<|>"
)
PRONOUNS = word_set("he she they it we you i")
# Words a phrase cannot end with; a verb's own preposition ("finished in") may stay.
DANGLING = (PREPOSITIONS | word_set("a an the and or given his")) - word_set(
    "for on in with about around over under from at by than to"
)


def strip_openers(clause: str) -> str:
    """``clause`` without what leads up to it: "So now we know that"."""
    clause = clause.strip()
    while (shorter := _OPENER.sub("", clause)) != clause:
        clause = shorter
    return clause


def split_noun(tail: str) -> tuple[str, str]:
    """Split "more purple flowers in the garden" after the noun phrase."""
    words = tail.split()
    size = 0
    if words and words[0].lower() in ("more", "fewer", "less", "other", "additional", "extra"):
        size = 1
    while size < len(words) and size < 4:
        word = words[size]
        joins = word == "of" and size > 0 and size + 1 < len(words) and is_noun(words[size + 1])
        if not joins and not (re.match(r"[A-Za-z]", word) and is_noun(word)):
            break
        if size and re.search(r"(?:ed|ing)$", word):  # "84 pages remaining", "7 dogs barking"
            break
        size += 1
    if size and words[size - 1] == "of":
        size -= 1
    if size == 1 and words[0].lower() in ("more", "fewer", "less"):
        return "", tail.strip()
    return " ".join(words[:size]), " ".join(words[size:])


def clean_phrase(text: str) -> str:
    """A purpose made presentable: no numbers, no marks, not too long; "" if nothing is left."""
    text = re.sub(MARK, " ", text).split(":")[0]
    text = re.sub(r"[\"“”#]|\$|%|\(|\)", " ", text)
    text = without_numbers(re.sub(r"\s+", " ", text).strip())
    words = text.split()
    if len(words) > 18:  # cut at the last preposition that keeps the head
        cuts = [i for i in range(7, 18) if words[i].lower() in PREPOSITIONS]
        words = words[: cuts[-1] if cuts else 18]
    while words and words[-1].lower().strip(",.") in DANGLING:
        words.pop()
    text = " ".join(words).rstrip(" .,;:-")
    if not text or has_numbers(text) or re.search(r"[=<>*+]", text):
        return ""
    if text.lower() in ("how much", "how many", "the", "the number of", "the amount", "the total"):
        return ""
    return text


def lower_start(text: str) -> str:
    """Lower the first letter unless it begins a name."""
    first = text.split(" ", 1)[0] if text else ""
    if first.lower() in DETERMINERS | PREPOSITIONS | PRONOUNS | {"there", "how", "what", "total"}:
        return text[0].lower() + text[1:] if first != "I" else text
    return text
