"""The form constrained decoding holds a plan to: two to four sentences, and not one digit.

One description, two notations: a regular expression (vLLM) and a GBNF grammar (llama.cpp). Both
are put together below from the same constants. Only what is listed may be written, so digits of
other scripts, fractions like one half in a single sign and superscripts are as impossible as
``0`` to ``9``. Numbers in words still pass, here and in the repair loop (which asks again only for
the final answer); the analysis counts them.

Sentences have a longest length, so that a small model cannot talk for ever, and a shortest, so
that an abbreviation is no sentence.
"""

from __future__ import annotations

from collections.abc import Mapping

CONSTRAINED_BY_DEFAULT = True
"""What ``--constrained auto`` means to an engine that can (vLLM, llama.cpp, their servers): on. It
brings digits to none and sentences to two to four, and a plan takes about as long as without
(docs/log.md, 2026-11-24). Elsewhere auto means off, and the repair loop does the work alone."""

SENTENCES = (2, 4)
"""How many, as ``GSM8K_README.md`` asks."""
WORDS = (3, 40)
"""Words a sentence."""
LETTERS = 20
"""The longest part of a word; the longest in a dictionary's common words is shorter."""
PARTS = 3
"""Of a word joined by hyphens, apostrophes or slashes: ``day-to-day``, ``cost/unit``."""

_JOINTS = "'’/-"
_POSSESSIVE = "['’]"  # the boys' caps
_PAUSES = ",;:"
_MORE_SENTENCES = f"{{{SENTENCES[0] - 1},{SENTENCES[1] - 1}}}"
_MORE_WORDS = f"{{{WORDS[0] - 1},{WORDS[1] - 1}}}"
_MORE_LETTERS = f"{{0,{LETTERS - 1}}}"
_MORE_PARTS = f"{{0,{PARTS - 1}}}"


def plan_regex() -> str:
    """A regular expression that a whole plan matches; no anchors, no look-around, no classes
    such as ``\\w`` whose meaning differs between libraries."""
    part = f"[A-Za-z][A-Za-z]{_MORE_LETTERS}"
    tail = f"([{_JOINTS}]{part}){_MORE_PARTS}"
    first = f"[A-Z][A-Za-z]{_MORE_LETTERS}{tail}"
    word = rf"\(?{part}{tail}{_POSSESSIVE}?\)?"
    sentence = rf"{first}([{_PAUSES}]? {word}){_MORE_WORDS}\."
    return f"{sentence}( {sentence}){_MORE_SENTENCES}"


def plan_grammar() -> str:
    """The same language as a GBNF grammar, for llama.cpp."""
    return "\n".join(
        [
            f'root ::= sentence (" " sentence){_MORE_SENTENCES}',
            f'sentence ::= first ([{_PAUSES}]? " " word){_MORE_WORDS} "."',
            f"first ::= [A-Z] [A-Za-z]{_MORE_LETTERS} tail",
            f'word ::= "("? part tail {_POSSESSIVE}? ")"?',
            f"tail ::= ([{_JOINTS}] part){_MORE_PARTS}",
            f"part ::= [A-Za-z] [A-Za-z]{_MORE_LETTERS}",
        ]
    )


def lone_spaces(vocabulary: Mapping[str, int]) -> list[int]:
    """Ids of the token that is one blank and nothing else; forbid it beside the constraint.

    Tokenizers write ``12`` after a word as a blank and ``1``, but ``cents`` as one token with its
    blank. A model about to write a number takes the blank, finds no digit allowed and goes on
    inside a word ("she earned ercent"). Without that token it decides before the blank.
    """
    return sorted({vocabulary[token] for token in (" ", "Ġ", "▁") if token in vocabulary})
