"""Finding numbers and arithmetic in plain English text.

This is what "abstract" is measured with: a plan is abstract when it names quantities and
operations but no values. Values written in digits and values written in words are kept apart,
since the thresholds of ``GSM8K_README.md`` speak of digits while words leak just as much.

All functions read the text as it stands. Strip GSM8K's ``<<48/2=24>>`` annotations first
(:func:`hbd3lm.data.annotations.strip_annotations`), or their numbers count a second time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from decimal import Decimal
from fractions import Fraction

OPERATIONS: tuple[str, ...] = ("add", "subtract", "multiply", "divide")

# --- numbers in digits --------------------------------------------------------------------

# Vulgar fractions: one quarter .. three quarters, one seventh .. fraction numerator, 0/3.
_VULGAR = "\u00bc-\u00be\u2150-\u215e\u2189"

_DIGITS = re.compile(
    rf"""
    # First characters of all that follows: lets most positions fail at once.
    (?=[-*(\d\s.sS{_VULGAR}])
    (?:
      # Labels, consumed without being captured: "1. ", "(2) ", "3) " where a line starts and
      # text follows, and "Step 4:" anywhere.
      ^[ \t]*(?:[-*][ \t]+)?\(?\d{{1,2}}[.)][ \t]+(?=\**[^\W\d])
    | \b(?i:step)[ \t]*\d{{1,2}}[ \t]*[:.)]
    | (
        # Not inside a word (B12, x2), but right after the x of a product (5x2).
        (?: (?<!\w) | (?<=[\d)][xX]) )
        (?: \d{{1,3}}(?:,\d{{3}})+(?!\d)(?:\.\d+)?   # 1,234,567.89
          | \d+(?:\.\d+)?[{_VULGAR}]?                # 12  12.5  2½
          | (?<![\w.])\.\d+                          # .75
          | [{_VULGAR}]
        )
        # 3rd is a sequence word like "third"; in 2/3rds it is a denominator.
        (?: (?!(?i:st|nd|rd|th)s?\b) | (?<=/\d)(?=\w) | (?<=/\d\d)(?=\w) )
        (?!\d)
      )
    )
    """,
    re.VERBOSE | re.MULTILINE,
)


def number_spans(text: str) -> list[tuple[int, int]]:
    """Where :func:`find_numbers` finds them: (start, end) offsets into ``text``."""
    return [match.span(1) for match in _DIGITS.finditer(text) if match.group(1)]


def find_numbers(text: str) -> list[str]:
    """The numbers ``text`` writes in digits, in order, as written but for currency and ``%``.

    One number each: ``12``, ``12.5``, ``.75``, ``$1,234.50``, ``20%``, ``2½``, ``5kg``. Signs are
    not part of a number. ``3/4`` and ``48/2`` are two numbers: on paper a fraction and a division
    look the same, and both hold two values. So are ``3:30`` and ``10-15``.

    Not numbers: digits that end a word (``B12``), ordinals (``3rd``), and labels: the
    enumerators ``1.``, ``1)``, ``(1)`` before a word where a line starts, ``Step 1:`` anywhere.
    """
    return [text[start:end] for start, end in number_spans(text)]


def count_numbers(text: str) -> int:
    """How many numbers ``text`` writes in digits; the rules are :func:`find_numbers`'s."""
    return len(number_spans(text))


# --- numbers in words ---------------------------------------------------------------------

_ONES = "one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
_VALUES = {
    "zero": 0,
    **{word: value for value, word in enumerate(f"{_ONES} {_TEENS}".split(), start=1)},
    **{word: 10 * value for value, word in enumerate(_TENS.split(), start=2)},
}
# Denominators that are also ordinals, unlike "half" and "quarter".
_PARTS = "third fourth fifth sixth seventh eighth ninth tenth twelfth hundredth thousandth"


def _any(words: str, plural: str = "") -> str:
    """A pattern for any of the space-separated ``words``, each followed by ``plural``."""
    return "(?:" + "|".join(word + plural for word in words.split()) + r")\b"


# two; twenty-five (but not "twenty-first")
_SMALL = (
    rf"(?:{_any(_TENS)}(?:[-\s]{_any(_ONES)}|(?!-(?:first|second|{_any(_PARTS)})))"
    rf"|{_any(_TEENS)}|{_any(_ONES)})"
)
# two; hundred; a hundred; two hundred and five
_HUNDREDS = rf"(?:(?:(?:{_SMALL}|an?)[-\s]+)?hundred\b(?:(?:\s+and)?\s+{_SMALL})?|{_SMALL})"
_SCALE = _any(" ".join(_SCALES))
# two hundred and five; a thousand; one million two hundred thousand and four
_CARDINAL = (
    rf"(?:(?:(?:{_HUNDREDS}|an?)[-\s]+)?{_SCALE}(?:(?:\s+and)?\s+{_HUNDREDS}(?:\s+{_SCALE})?)*"
    rf"|{_HUNDREDS}|zero\b)"
)

_SPELLED = re.compile(
    rf"""
    # The first letters of all that follows: lets most words fail at once.
    \b(?=(?:an?[-\s]+)?(?:one|t(?:w[oei]|h[rio]|en|ri)|fo[ur]|fi[vf]|si|se|ei|ele|ni|ha|hu|mi|bi
                          |ze|do[zu]|qu|cou|pai))
    (?:
      (?:half\sa[-\s]|an?\s)?dozen\b
    | {_CARDINAL}[-\s]dozens?\b
    # a half, two-thirds, three quarters
    | (?:(?:an?|{_any(_ONES)})[-\s])?(?:half\b|halves\b|quarters?\b|{_any(_PARTS, "s")})
    # one-fifth, but not "one fifth grader"; "a third" where it counts no noun ("a third friend")
    | {_any(_ONES)}[-\s]{_any(_PARTS)}(?![-\s]grade)
    | an?\s{_any(_PARTS)}(?=\s{_any("of as the more less fewer that what is was and to")})
    | an?\s{_any(_PARTS)}(?=\s*(?:[.,;:!?)]|\Z))
    | {_CARDINAL}(?:\s+and\s+an?\s+(?:half|quarter|third)\b)?
    | twice\b|thrice\b
    | (?:doubl|tripl|quadrupl|halv)(?:e|ed|ing)\b(?![-\s]check)
    | (?:doubl|tripl|quadrupl)es\b
    | (?:a\s)?couple(?=\s{_any("of more hundred thousand dozen")})
    | a\spair\b
    )
    """,
    re.VERBOSE | re.IGNORECASE,
)

# "one" stands for a thing, not for a count, after or before these words.
_PRONOUN_AFTER = re.compile(
    r"\b(?:each|every|no|any|some|this|that|which|the|another|other|either|neither|only|first"
    r"|second|third|last|next|final|previous|same|right|wrong|new|old|latter|former"
    r"|(?:larg|small|bigg|long|short|old|young|cheap|great|high|low|earli|lat)(?:er|est)"
    r"|one\sby)\s\Z|\bone-(?:by|on)-\Z",
    re.IGNORECASE,
)
_PRONOUN_BEFORE = re.compile(
    r"\s(?:of|another|by\sone|at\sa\stime|who|that)\b|-way\b|-on-one\b|-by-one\b|['’]s\b",
    re.IGNORECASE,
)
# A quarter of a year or of a game, after these words.
_PERIOD_AFTER = re.compile(
    r"\b(?:first|second|third|fourth|last|next|each|every|per|this)\s\Z", re.IGNORECASE
)
# Longest of the words above, with the space.
_WINDOW = len("previous ") + 1


def spelled_number_spans(text: str) -> list[tuple[int, int]]:
    """Where :func:`find_spelled_numbers` finds them: (start, end) offsets into ``text``."""
    spans = []
    for match in _SPELLED.finditer(text):
        start, end = match.span()
        word = match.group().lower()
        before = text[max(0, start - _WINDOW) : start]
        if word == "one" and (_PRONOUN_AFTER.search(before) or _PRONOUN_BEFORE.match(text, end)):
            continue
        if word == "quarter" and _PERIOD_AFTER.search(before):
            continue
        spans.append((start, end))
    return spans


def find_spelled_numbers(text: str) -> list[str]:
    """The numbers ``text`` writes in words, in order, as written.

    One number each: ``seven``, ``twenty-five``, ``one hundred and five``, ``two dozen``,
    ``two-thirds``, ``two and a half``, ``half``, ``a quarter``, ``twice``, ``doubled``, ``triple``,
    ``a couple of``, ``a pair``.

    Not numbers: "one" as a pronoun (``each one``, ``the larger one``, ``one of``), ordinals
    (``First,``, ``the third day``, ``twenty-first``), ``each quarter``, ``hundreds`` and
    ``thousands`` (orders of magnitude), ``once``, ``double-check``, ``pairs`` (a unit). The rules
    know words, not sense: quarters that are coins still count.
    """
    return [text[start:end] for start, end in spelled_number_spans(text)]


def count_spelled_numbers(text: str) -> int:
    """How many numbers ``text`` writes in words; the rules are :func:`find_spelled_numbers`'s."""
    return len(spelled_number_spans(text))


def cardinal_value(phrase: str) -> int | None:
    """The value of a spelled cardinal, ``"one hundred and five" -> 105``; ``None`` for others.

    Fractions, multiples and vague counts ("two-thirds", "twice", "a couple") are no cardinals;
    "dozen" is.
    """
    total, group = 0, 0
    words = [word for word in re.split(r"[-\s]+", phrase.lower()) if word not in ("", "and")]
    for position, word in enumerate(words):
        if word in ("a", "an") and position == 0 and len(words) > 1:
            group = 1
        elif word in _VALUES:
            group += _VALUES[word]
        elif word == "hundred":
            group = 100 * (group or 1)
        elif word == "dozen":
            total, group = 12 * (total + group or 1), 0
        elif word in _SCALES:
            total, group = total + _SCALES[word] * (group or 1), 0
        else:
            return None
    return total + group if words else None


def number_value(written: str) -> Fraction:
    """The exact value of one of :func:`find_numbers`'s strings: ``"1,234.50"``, ``".5"``, ``"2½"``.

    Equal values compare equal however they are written: ``"7.0"`` and ``"7"``.
    """
    digits, value = written.replace(",", ""), Fraction(0)
    if not digits[-1].isdecimal():
        # numeric() gives a float; vulgar fractions have denominators up to 10.
        value = Fraction(unicodedata.numeric(digits[-1])).limit_denominator(10)
        digits = digits[:-1]
    return value + Fraction(Decimal(digits or 0))  # of a text it takes no 4,300 digits


# --- operations ---------------------------------------------------------------------------

_WORDS = {
    "add": r"add(?:s|ed|ing|ition)?|sum(?:s|med|ming)?|total(?:s|ed|ing|led|ling)?|plus"
    r"|altogether|combin(?:e|es|ed|ing)|increas(?:e|es|ed|ing)",
    "subtract": r"subtract(?:s|ed|ing|ion)?|minus|remain(?:s|ed|ing|der)?|differences?"
    r"|deduct(?:s|ed|ing)?|decreas(?:e|es|ed|ing)|take[ ]away|left[ ]?over",
    "multiply": r"multipl(?:y|ies|ied|ying|ication)|times|product|twice|thrice"
    r"|doubl(?:e|es|ed|ing)(?![-\s]check)|tripl(?:e|es|ed|ing)|quadrupl(?:e|es|ed|ing)",
    "divide": r"divid(?:e|es|ed|ing)|division|per|split(?:s|ting)?|ratios?|quotient"
    r"|percent(?:age|ages)?|halv(?:e|ed|ing)",
}

# A sign touches the operand before it (10-3) or stands a blank or two after any word (10 apples -
# 3 apples). So "apples-3" is a hyphen, and a sign that begins a line is a bullet.
_LEFT = r"(?:(?<=[\d)%])|(?<=\S[ \t])|(?<=\S[ \t]{2}))"
# The operand after it begins with a digit, perhaps behind a bracket or a currency sign.
_RIGHT = r"(?=\s*[($£€]*\.?\d)"
# Free-standing signs may also join words: "price * count", "total / people".
_FREE_LEFT, _FREE_RIGHT = r"(?<=\S[ \t])", r"(?=[ \t]+\w)"
_SIGNS = {
    "add": rf"{_LEFT}\+{_RIGHT}|{_FREE_LEFT}\+{_FREE_RIGHT}",
    # Words on both sides of a free "-" make it a dash; the en dash writes ranges (3–4 days).
    "subtract": rf"{_LEFT}[-\u2212]{_RIGHT}",
    "multiply": rf"{_LEFT}[*x×·]{_RIGHT}|{_FREE_LEFT}[*×]{_FREE_RIGHT}",
    "divide": rf"{_LEFT}(?://?|÷){_RIGHT}|(?<=\d)/(?=[a-z])|{_FREE_LEFT}[/÷]{_FREE_RIGHT}",
}

_OPERATION = re.compile(
    # The lookaheads hold the first letters of the words, and the signs: they only save time.
    r"\b(?=a[dl]|co|d[eio]|ha|in|le|m[iu]|p[elr]|qu|r[ae]|s[pu]|t[ahiorw])(?:"
    + "|".join(f"(?P<{kind}_word>{pattern})" for kind, pattern in _WORDS.items())
    + r")\b|(?=[-+\u2212*x×·/÷])(?:"
    + "|".join(f"(?P<{kind}_sign>{pattern})" for kind, pattern in _SIGNS.items())
    + ")",
    re.IGNORECASE,
)


def find_operations(text: str) -> Counter[str]:
    """How often ``text`` names each arithmetic operation, in words or signs.

    Keys are those of :data:`OPERATIONS` that occur; missing ones read as 0.

    Words: add, sum, total, plus, combine, ...; subtract, minus, remaining, difference, ...;
    multiply, times, product, twice, double, ...; divide, per, split, ratio, percent, halve, ....
    Signs need an operand on either side, so hyphens (``twenty-five``), bullets and ``and/or`` do
    not count: ``+``; ``-``; ``*``, ``×``, ``x``; ``/``, ``÷``. ``3/4`` is a division.
    """
    return Counter(match.lastgroup.partition("_")[0] for match in _OPERATION.finditer(text))


def count_operations(text: str) -> int:
    """How many operations ``text`` names in all: the sum over :func:`find_operations`."""
    return find_operations(text).total()
