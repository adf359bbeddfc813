"""What a step is for, from the words of its line around the equation."""

from __future__ import annotations

import re
from fractions import Fraction

from hbd3lm.plans.rules.figures import CASH, FIGURE, SHARE, read_figure
from hbd3lm.plans.rules.phrases import (
    CLAUSE_END,
    PRONOUNS,
    clean_phrase,
    lower_start,
    split_noun,
    strip_openers,
)
from hbd3lm.plans.wording import DETERMINERS, PREPOSITIONS, drop_numbers, without_numbers, word_set

_CUT_LEFT = re.compile(
    r".*(?:[.;!?]\s+|,?\s(?:so that|so|and so|therefore|thus|hence|then|which means(?: that)?|"
    r"meaning(?: that)?|this means(?: that)?|that means(?: that)?|because|since)\s+"
    r"|,\s+(?:and|but|while|where|then)\s+|\sbut\s+|\swhile\s+"
    r"|\sand\s+(?=(?:he|she|they|it|the|his|her|their|there)\s))",
    re.IGNORECASE,
)
_ADVERBIAL = re.compile(
    r"^(?:in|on|at|after|before|during|for|with|from|by|over|at the end of|per|each|every)\b",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"^(?P<subject>.+?)\s+"
    r"(?:(?:would|will|must|should|can|may|now|thus|then|therefore|also|currently)\s+)*"
    r"(?:is|are|was|were|be|been|equals?|equal to|becomes?|became|totals?|totaled|"
    r"(?:comes?|came|amounts?|amounted|adds? up|added up|sums?|summed|goes|went|works? out|"
    r"increases?|decreases?|increased|dropped|drops?|reduced|rises?|rose)"
    r"(?: up| out| down)? to(?: be)?)"
    r"(?:\s+(?:now|then|thus|therefore|also|only|equal to|equivalent to|about|actually|"
    r"just|currently|still|already|exactly|roughly|approximately|going to be))*$",
    re.IGNORECASE,
)
_EMPTY_SUBJECT = re.compile(
    r"^(?:(?:and|or|so|which|that|this|it|the answer|the total|the result|the sum|thus)?\s*"
    r"(?:'s|is|was|are|were|will be|would be|equals|gives?(?: us| him| her| them)?|makes?|comes to|"
    r"leaves?|gets?|yields?|totals?|or|of)?"
    r"|(?:we|you|i) (?:have|get|find|are left with)"
    r"|leaving|giving|making|to get|to|totaling|which|or|of|at|by|for)"
    r"(?:\s+(?:only|just|with|about|him|her|them|us|a))*$",
    re.IGNORECASE,
)
_LOOSE_END = re.compile(
    r"(?:(?:^|\s+)(?:an? (?:extra|additional|total)|another|an?|the|only|about|just|over|around|"
    r"at least|"
    r"approximately|roughly|exactly|all))+$",
    re.IGNORECASE,
)
_GOAL = re.compile(
    r".*\b(?:find|calculate|determine|compute|get|figure out|work out|know|see|to obtain)\s+"
    r"(?:out\s+)?(?P<goal>(?:the|how|his|her|their|its|each|what|[A-Z][a-z]+'s)\b.+)$"
)
_TOTAL = re.compile(
    r"(?:^|\s)(?:for |to |with |is |are |was |were )?(?:a|the) (?:grand |combined )?"
    r"(?:total|sum) of\s*$",
    re.IGNORECASE,
)
_THERE = re.compile(
    r"^(?:.*\s)?(there (?:is|are|was|were|will be|would be|remains?))( \w+)?$", re.IGNORECASE
)
_VALUE_WORD = re.compile(r"\b(?:number|cost|price|total|amount|rate|time|age|weight|area)\b")
_AGE = re.compile(r"^\s*years? (?:old|of age)\b", re.IGNORECASE)


def find_purpose(
    left: str, mark: str, right: str, result: Fraction | None
) -> tuple[str | None, str]:
    """What an equation finds, from the words around it, and the noun its result counts.

    Args:
        left: the line before the equation (after the previous equation, if there is one).
        mark: one character that says whether the result is plain, money or a percentage.
        right: the line after the result (up to the next equation).
        result: the value, looked for in ``left`` where the equation only gives the reason
            ("He eats 32 slices because 2 x 16 = 32").

    Returns:
        A phrase that fits after "to find" and is free of numbers, or ``None``; and the noun.
    """
    left, right = " " + left, " " + right
    reason = re.search(r"^(?P<claim>.*?),?\s(?:because|since|as)\s*$", left, re.IGNORECASE)
    if reason:
        left, right, mark = _around_value(reason["claim"], result, mark)
    left = re.sub(r"(?<=\s)[A-Za-z]\s*=\s*$", "", left).strip()  # "the weight is x ="
    right = re.sub(rf"^\s*[$£€]?\s?{FIGURE}\s", " ", right)  # "2 $10 bills"
    total = _TOTAL.search(left)
    if total and re.search(r"[\d,]", left[: total.start()]):  # it sums up what precedes
        left = "a total of"
    goal = _GOAL.match(left.rstrip(" :=-"))
    if goal and left.endswith((":", "=")):
        return clean_phrase(lower_start(goal["goal"])), _noun_phrase(right)
    tail = CLAUSE_END.split(right + " ", maxsplit=1)[0]
    adverbial, clause = _main_clause(left)
    noun, rest = split_noun(tail)
    phrase = _find_phrase(clause, mark, tail, noun, rest)
    if phrase and adverbial and adverbial.lower() not in phrase.lower():
        phrase += " " + adverbial
    phrase = clean_phrase(phrase) if phrase else None
    return phrase or None, without_numbers(noun)


def _around_value(claim: str, result: Fraction | None, mark: str) -> tuple[str, str, str]:
    """Split "He spent $7 on cereal" at the value it states."""
    for match in re.finditer(rf"(?P<sign>[$£€]\s?)?(?P<value>{FIGURE})", claim):
        if read_figure(match["value"]) == result:
            mark = CASH if match["sign"] else mark
            return claim[: match.start()], claim[match.end() :], mark
    return claim, "", mark


def _main_clause(left: str) -> tuple[str, str]:
    """Split "For the lemons, Tom will pay" into its short opening and its main clause."""
    clause = _CUT_LEFT.sub("", left) if _CUT_LEFT.match(left) else left
    clause = strip_openers(clause)
    opening = ""
    if "," in clause:
        opening, clause = _split_opening(clause)
        if not (_ADVERBIAL.match(opening) and len(opening.split()) <= 6):
            opening = ""
        clause = strip_openers(clause.strip())
    return lower_start(opening), clause.strip()


def _split_opening(clause: str) -> tuple[str, str]:
    """Split at the last comma that is not inside a list such as "Sam, Ann, and Joe have"."""
    parts = clause.split(",")
    start = len(parts) - 1
    if re.match(r"\s*(?:and|or)\s", parts[start]):
        while start > 0 and len(parts[start - 1].split()) <= 3:
            start -= 1
        if start and len(parts[start - 1].split()) > 3:
            start = len(parts) - 1
    opening = parts[start - 1].strip() if start == 1 else ""
    return opening, ",".join(parts[start:]).strip()


def _find_phrase(clause: str, mark: str, tail: str, noun: str, rest: str) -> str | None:
    """Turn "S verb <value> noun rest" into "how many noun S verb rest" and the like."""
    money, share = mark == CASH, mark == SHARE
    many = "what percentage" if share else f"how many {noun}" if noun else "how much"
    if money or noun.split(" ")[0] in ("dollars", "cents"):
        many = "how much more" if re.match(r"\s*(?:dollars )?more\b", tail) else "how much"
        rest = tail if not noun.startswith(("dollars", "cents")) else rest
        rest = re.sub(r"^\s*more\b", "", rest)
    clause = _LOOSE_END.sub("", clause)
    if re.search(r"[:=]$", clause):
        return _label_phrase(clause.rstrip(" :="), noun)
    if clause.lower() in ("", "or", "and"):
        words = rest.split()
        if noun and words and words[0].lower() not in PREPOSITIONS:
            return f"how many {noun} {rest}"  # "... = 30 children are boys"
        return _amount(noun, rest, money, share)
    total = _TOTAL.search(clause)
    if total:
        clause = clause[: total.start()].strip()
        if len(clause.split()) < 2:
            return _total(noun, rest, money)
        rest = f"in total {rest}" if "total" not in rest else rest
    if re.search(r"\b(?:leav(?:es|ing)|left)( \w+)?( with)?$", clause):
        left_verb = "is left" if many.startswith("how much") else "are left"
        return f"{many} {left_verb} {_prepositional(rest)}"
    if _EMPTY_SUBJECT.match(clause):
        return _amount(noun, rest, money, share)
    if there := _THERE.match(clause):
        return f"{many} {there[1].lower()} {rest}"
    copula = _COPULA.match(clause)
    if copula:
        subject = copula["subject"]
        if noun and re.match(rf"{FIGURE}\s+[a-z]+$", subject):  # "300 minutes is ... 5 hours"
            return f"how many {noun} that is"
        if _AGE.match(tail):
            verb = re.sub(r"\b(?:only|just|also)\b", "", clause[len(subject) :]).strip()
            return f"how old {subject} {verb} {_AGE.sub('', tail)}"
        if subject.lower() not in PRONOUNS and _nominal(subject):
            return f"{lower_start(subject)} {_prepositional(rest or tail)}"
    if re.search(r"[+*/=]", clause) or re.match(r"we\s", clause, re.IGNORECASE):
        return _amount(noun, rest, money, share)
    if len(clause.split()) < 2:
        return _amount(noun, rest, money, share)
    if len(clause.split()) > 12 or (len(clause.split()) > 6 and re.search(r"\d", clause)):
        return _amount(noun, rest, money, share)
    return f"{many} {lower_start(clause)} {rest}"


def _nominal(subject: str) -> bool:
    """Whether a subject can stand for its own value: "the total cost", "Tom's share"."""
    words = subject.split()
    return len(words) <= 12 and (
        words[0].lower() in DETERMINERS - {"each", "every", "this", "that", "these", "those"}
        or "'s" in subject
        or words[0].lower() in ("half", "total")
        or bool(_VALUE_WORD.search(subject))
    )


_IMPERATIVES = word_set(
    "add subtract multiply divide take convert find first then now next finally so set use"
)


def _label_phrase(label: str, noun: str) -> str | None:
    """ "Total cost:" -> "the total cost"; "Monday:" with pages -> "the pages for Monday"."""
    goal = _GOAL.match(label)
    if goal:
        return goal["goal"]
    label = drop_numbers(label)
    words = label.split()
    if not words or words[0].lower() in _IMPERATIVES:
        return None
    if len(words) > 8 or re.search(r"[=+*/]", label):
        return f"the number of {noun}" if noun else None
    if words[0].lower() in DETERMINERS or "'s" in label:
        return lower_start(label)
    if len(words) == 1 and not noun and len(label) > 1:
        return f"the amount for {label}"  # "Shelby = ..."
    if re.fullmatch(r"[A-Za-z]", label):
        return f"the number of {noun}" if noun else "the unknown"
    if noun and noun.split()[-1].lower() not in label.lower():
        return f"the {noun} for {label}"
    return f"the {label[0].lower() + label[1:]}"


def _amount(noun: str, rest: str, money: bool, share: bool) -> str | None:
    if share:
        return f"the percentage {_prepositional(rest)}"
    if re.match(r"years? old\b", f"{noun} {rest}"):
        return "the age"
    if noun and noun.split()[0] in ("more", "fewer", "less"):
        return f"how many {noun} {_prepositional(rest)}"
    if money:
        rest = _prepositional(rest)
        return f"the amount {rest}" if rest else None
    return f"the number of {noun} {_prepositional(rest)}" if noun else None


def _total(noun: str, rest: str, money: bool) -> str:
    if money or not noun:
        return f"the total amount {_prepositional(rest)}"
    return f"the total number of {noun} {_prepositional(rest)}"


def _prepositional(rest: str) -> str:
    """``rest`` if it can follow a noun phrase, else nothing."""
    words = rest.split()
    return " ".join(words) if words and words[0].lower() in PREPOSITIONS | {"each", "left"} else ""


def _noun_phrase(tail: str) -> str:
    return without_numbers(split_noun(CLAUSE_END.split(tail + " ", maxsplit=1)[0])[0])
