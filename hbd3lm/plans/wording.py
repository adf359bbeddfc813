"""Taking the values out of English sentences while keeping them readable.

``without_numbers("How much do the 3 friends pay?")`` is ``"How much do the friends pay?"``. What
counts as a number is decided in one place, :mod:`hbd3lm.plans.numbers`; this module only decides
what to say instead, and :func:`has_numbers` is the check that nothing slipped through.
"""

from __future__ import annotations

import re
from functools import lru_cache

from hbd3lm.plans.numbers import find_spelled_numbers


def word_set(words: str) -> frozenset[str]:
    """The words of a string as a set."""
    return frozenset(words.split())


DETERMINERS = word_set(
    "the a an this that these those his her its their our my your each every all both any other "
    "another remaining first last next same only some such whose"
)
PREPOSITIONS = word_set(
    "in on at for of from to with after before by per than over within during about around into "
    "under between through until till every as"
)
# Words that end a noun phrase: what follows a number up to one of these is what it counts.
STOP_WORDS = (
    DETERMINERS
    | PREPOSITIONS
    | word_set(
        "and or but so because since if when while which who where then also is are was were be "
        "been has have had do does did will would can could should may might must it he she they "
        "we you i there left not if how what more less fewer equals equal plus minus times "
        "altogether together total today yesterday tomorrow now currently already still again "
        "apiece long old tall away out off up down back more-than ago later earlier per "
        "bought buys buy sold sells sell gave gives give took takes take got gets get went goes go "
        "made makes make ate eats eat cost costs need needs read reads ran runs run came comes "
        "come left leave leaves found put spent spends spend paid pays pay kept keep earns earn "
        "saw lost won wants want decided plans uses use works work lives live weighs weigh "
        "contains contain holds hold remain remains that's it's just only instead too well "
        "wore wear wears drank drinks sat stood threw drove drives swam grew flew wrote writes "
        "rode built caught fell broke chose began met taught told sang lasts last joined dropped "
        "however therefore thus hence finally except including worth "
        "him them me us himself herself themselves itself"
    )
)

_NUMBER, _MONEY, _PERCENT, _FRACTION = "\ue000", "\ue001", "\ue002", "\ue003"  # private-use marks
_FIGURE = r"(?<!\d)\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+"  # never from within a figure: slow
_PERCENT_SIGN = r"(?:\s*%|[\s-]*per\s?cent\b)"

# What to write for the words that hide a value; tried in this order, before the figures.
_IDIOMS = [
    (r"\b(?:in|into) half\b", "into equal parts"),
    (r"\bcut in(?:to)? (?:quarters|thirds)\b", "cut into equal parts"),
    (r"\bsecond[- ]hand\b", "used"),
    (r"\b(?:one|two)[- ]way\b", "single"),
    (r"\bno one\b", "nobody"),
    (r"\bone another\b", "each other"),
    (r"\bhalf[- ](an?)\s+(?=\w)", rf"{_FRACTION} of \1 "),
    (r"\b(and|to|will|would|can|could|must|should) (?:double|triple|quadruple)\b", r"\1 multiply"),
    (r"\b(?:doubl|tripl|quadrupl)ed\b", "multiplied"),
    (r"\b(?:doubl|tripl|quadrupl)ing\b", "multiplying"),
    (r"\b(?:doubl|tripl|quadrupl)es\b", "multiplies"),
    (r"\b(?:twice|thrice|double|triple|quadruple)\b", "several times"),
    (r"\bhalved\b", "divided"),
    (r"\bhalv(?:e|es)\b", "divide"),
    (r"\bhalving\b", "dividing"),
    (r"\b(?:a )?couple (?=of\b)(?:of )?", "some "),
    (r"\ba couple\b", "some"),
    (r"\bcouple(?=\s(?:more|hundred|thousand|dozen))", "some"),
    (r"\ba pair\b", "a set"),
    (r"\b(?:half a|half|a|one)[ -]dozen\b(?= [a-z]+s\b)(?! (?:is|was|has|costs)\b)", "a pack of"),
    (r"\b(?:half a|half|a|an|one)[ -]dozen\b", "a pack"),
    (r"\bdozen\b(?= [a-z]+s\b)(?! (?:is|was|has|costs)\b)", "packs of"),
    (r"\bdozen\b", "pack"),
    (r"\bdozens\b", "packs"),
    (r"\b1st\b", "first"),
    (r"\b2nd\b", "second"),
    (r"\b\d+(?:st|nd|rd|th)\b", "later"),
    (r"\b(?:a|one|two|three|\d)[- ](?:third|fourth|fifth|sixth|eighth|tenth)s?\b", _FRACTION),
    (r"\b(?:(?:a|one|three)[- ])?(?:half|quarter)s?(?= (?:of|as|the|that|his|her))", _FRACTION),
    (r"\b(?:a|one)[- ](?:half|quarter)\b", _FRACTION),
    (r"\bquarters\b", "coins"),
    (r"\bquarter\b", "coin"),
    (r"\bhalf\b", _FRACTION),
    (r"\bhalves\b", "parts"),
    (r"[¼½¾⅓⅔⅛]", _FRACTION),
]
_IDIOMS = [(re.compile(pattern, re.IGNORECASE), replacement) for pattern, replacement in _IDIOMS]

_SPELLED_HINT = re.compile(
    r"\d(?:st|nd|rd|th)\b|[¼½¾⅓⅔⅛]|\b(?:half|quarter|dozen|\d[- ]third)", re.IGNORECASE
)

_MARKS = [
    (re.compile(rf"(?:{_FIGURE})\s?:\s?\d\d(?:\s?[ap]\.?m\.?)?", re.I), "the given time"),
    (re.compile(rf"(?:{_FIGURE})\s?[ap]\.?m\b\.?", re.I), "the given time"),
    (re.compile(rf"(?:(?:{_FIGURE})[ -])?\b\d+\s?/\s?\d+(?:rd|th)?s?\b"), _FRACTION),
    (re.compile(rf"(?:{_FIGURE}){_PERCENT_SIGN}", re.I), _PERCENT),
    (re.compile(rf"[$£€]\s?-?(?:{_FIGURE})|(?:{_FIGURE})\s?[$£€]"), _MONEY),
    (re.compile(rf"-?(?:{_FIGURE})"), _NUMBER),
]

_CONTEXT = re.compile(
    rf"(?P<before>\b[\w'’]+\s+)?(?P<mark>[{_NUMBER}{_MONEY}{_PERCENT}{_FRACTION}])"
    r"(?P<hyphen>-[A-Za-z]+(?:-old\b)?)?(?P<after>\s*[A-Za-z][\w'’-]*)?"
)


@lru_cache(maxsize=4096)  # names and short phrases come again and again
def has_numbers(text: str) -> bool:
    """Whether ``text`` still holds a digit of any script or a spelled-out number."""
    if not text.isascii() and any(char.isnumeric() for char in text):
        return True
    return re.search("[0-9]", text) is not None or bool(find_spelled_numbers(text))


def without_numbers(text: str) -> str:
    """``text`` with every value dropped or replaced by words such as "the given amount".

    The result never holds a digit or a spelled-out number (:func:`has_numbers` is false). It is
    English as far as simple rules go: ``"for 4 weeks"`` becomes ``"for the given weeks"``,
    ``"her $100 balance"`` becomes ``"her balance"``, ``"save $135?"`` becomes ``"save the given
    amount?"``, ``"half as many"`` becomes ``"the given fraction as many"``.
    """
    if not has_numbers(text):  # most sentences
        return text
    if _SPELLED_HINT.search(text) or find_spelled_numbers(text):
        for pattern, replacement in _IDIOMS:
            text = pattern.sub(replacement, text)
    # Spelled-out cardinals become the same mark as figures; a lone "one" mostly means "a".
    text = re.sub(r"\b(?:1|one)\s(?=[a-z]+[^s\W]\b)(?!of\b|more\b|less\b)", "a ", text, flags=re.I)
    for word in sorted(set(find_spelled_numbers(text)), key=len, reverse=True):
        as_word = rf"\b{re.escape(word)}\b"
        text = re.sub(as_word + _PERCENT_SIGN, _PERCENT, text, flags=re.IGNORECASE)
        text = re.sub(as_word, _NUMBER, text)
    for pattern, mark in _MARKS:
        text = pattern.sub(mark, text)
    text = re.sub(rf"\b(?:the |all )?(?:{_NUMBER}) of (?:them|us)\b", "they", text, flags=re.I)
    # Twice: a mark used as the neighbour of one match is itself rewritten on the second pass.
    text = _CONTEXT.sub(_reword, _CONTEXT.sub(_reword, text))
    text = re.sub(rf"[{_NUMBER}{_MONEY}{_PERCENT}{_FRACTION}]", " ", text)
    # Whatever the rules did not foresee (digits inside words, odd scripts) goes without a trace.
    return drop_numbers(text)


def drop_numbers(text: str) -> str:
    """``text`` with its values simply left out: ``"double meat sandwiches"`` loses a word."""
    text = "".join(char for char in text if not char.isnumeric())
    while spelled := find_spelled_numbers(text):
        for word in spelled:
            text = re.sub(rf"\b{re.escape(word)}\b", " ", text)
    tidied = tidy(text)
    # What was dropped may have stood between "a" and "third".
    return drop_numbers(tidied) if find_spelled_numbers(tidied) else tidied


_TIDY = [
    (r"\s+", " "),
    (r"\(\s*\)", ""),
    (r"\s+([,.;:?!])", r"\1"),
    (r"([,;:])(?:\s*[,;:])+", r"\1"),
    (r"\b(a|the|given) (?:a|an|the) (?=\w)", r"\1 "),
    (r"\b([Aa]) (?=[aeio]\w)", r"\1n "),
    (r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz][a-z])", r"\1 "),
    (r"\b(\w+ \w+) \1\b", r"\1"),
    (r"\b(given|the|each) \1\b", r"\1"),
]
_TIDY = [(re.compile(pattern), replacement) for pattern, replacement in _TIDY]


def tidy(text: str) -> str:
    """Repair what removing words leaves behind: doubled spaces, "a apple", loose punctuation."""
    for pattern, replacement in _TIDY:
        text = pattern.sub(replacement, text)
    return text.strip(" ,;:-")


def is_noun(word: str) -> bool:
    """Whether ``word`` can belong to a noun phrase, as far as a list of stop words can tell."""
    word = word.lower().strip("'’")
    return bool(word) and word not in STOP_WORDS and not word.endswith("ly")


def _reword(match: re.Match[str]) -> str:
    before, mark = match["before"] or "", match["mark"]
    hyphen, after = match["hyphen"] or "", match["after"] or ""
    previous, following = before.strip().lower(), after.strip()
    determined = previous in DETERMINERS or previous.endswith(("'s", "’s", "s'", "given"))
    counts_noun = bool(following) and is_noun(following)
    if hyphen:  # "an 8-hour shift" -> "a shift"; "8-hour" with no noun after it -> "hour"
        if counts_noun or hyphen.endswith("-old"):
            return before + after.lstrip()
        return before + hyphen[1:] + after
    if mark == _PERCENT:
        compares = following.lower() in ("more", "less", "fewer", "off")
        if compares or not (determined and counts_noun):
            return f"{_drop_article(before)}the given percentage{after}"
        return before + after.lstrip()
    if mark == _FRACTION:
        joint = " of" if following.lower() in ("the", "that", "his", "her", "their", "its") else ""
        if counts_noun and determined:
            return before + after.lstrip()
        return f"{_drop_article(before)}the given fraction{joint}{after}"
    if following.lower() == "times":
        return f"{before}several{after}"
    if following.lower() in ("more", "less", "fewer", "additional", "extra", "other", "others"):
        return before + after.lstrip()
    if following.lower() == "of":
        return f"{_drop_article(before)}some{after}"
    if counts_noun:
        if determined or mark == _MONEY or previous not in PREPOSITIONS:
            return before + after.lstrip()
        return f"{before}the given{after}"
    if previous in ("the", "these", "those", "all", "both"):
        return f"{before}group{after}" if mark == _NUMBER else f"{before}amount{after}"
    if determined:
        return f"{before}amount{after}"
    return f"{before}the given amount{after}"


def _drop_article(before: str) -> str:
    return "" if before.strip().lower() in ("a", "an", "the") else before
