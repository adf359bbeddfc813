"""The ``rules`` planner: an abstract plan read off an annotated solution.

    Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.

becomes

    First, take the given fraction of the given friends to find how many clips Natalia sold in
    May. Finally, add the given friends and the previous result to find the answer: how many
    clips Natalia sold altogether in April and May.

Each equation of the solution is one step. *What to do* comes from its expression tree, every
operand being named by where its value comes from (the question, an earlier result, common
knowledge). *What for* comes from the words of the solution line around the equation: "S sold ...
clips in May" finds "how many clips S sold in May"; "the total cost is ..." finds "the total cost".
No digits and no spelled-out numbers come through (:mod:`hbd3lm.plans.wording`).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from hbd3lm.data.annotations import find_annotations
from hbd3lm.data.annotations import parse_expression as arithmetic_tree
from hbd3lm.data.records import Problem
from hbd3lm.plans.numbers import cardinal_value, find_spelled_numbers
from hbd3lm.plans.wording import (
    DETERMINERS,
    PREPOSITIONS,
    drop_numbers,
    has_numbers,
    is_noun,
    tidy,
    without_numbers,
    word_set,
)

MAX_WORDS = 90  # about 100 tokens; longer plans are told with fewer details:
# are operands named without what they count? from which word on may a purpose be cut off? (The
# last step keeps all of its own.) If that is not enough, the longest purposes are left out.
_DETAIL = ((False, 99), (False, 8), (True, 8), (True, 5))
# Characters of a question or a solution that are read (the longest of GSM8K has 1,228), and those
# around a value that may name it, and steps told: the time grows faster than the text.
MAX_CHARACTERS, MAX_STEPS, _WINDOW = 20_000, 100, 1_000


class RulesPlanner:
    """Plans from annotated solutions, without a language model.

    Attributes:
        name: ``"rules"``.
        sources: how many plans so far were read off ``annotations`` (GSM8K's ``<<...>>``), plain
            ``equations``, the ``lines`` of a solution without any, or the ``question`` alone.
    """

    name = "rules"

    def __init__(self) -> None:
        self.sources: Counter[str] = Counter()

    def plan(self, problems: Sequence[Problem]) -> list[str]:
        """One plan a problem, free of digits and spelled-out numbers."""
        plans = []
        for problem in problems:
            plan, source = plan_problem(problem)
            plans.append(plan)
            self.sources[source] += 1
        return plans


def plan_problem(problem: Problem) -> tuple[str, str]:
    """The plan of one problem and what it was read off (see :attr:`RulesPlanner.sources`).

    Of an overlong question or solution the first ``MAX_CHARACTERS`` and ``MAX_STEPS`` are read.
    """
    problem = replace(
        problem,
        question=problem.question[:MAX_CHARACTERS],
        solution=problem.solution[:MAX_CHARACTERS],
    )
    steps = read_steps(problem.solution)[:MAX_STEPS]
    if not steps:
        return _plan_from_question(problem.question), "question"
    plan = _tell(steps, problem)
    if any(step.expression is not None for step in steps):
        return plan, "annotations" if "<<" in problem.solution else "equations"
    return plan, "lines"


# --- expressions --------------------------------------------------------------------------


@dataclass(frozen=True)
class Number:
    """A leaf; ``5%`` has the value 1/20."""

    value: Fraction


@dataclass(frozen=True)
class Sum:
    """``terms``: (positive?, operand)."""

    terms: tuple[tuple[bool, Expression], ...]


@dataclass(frozen=True)
class Product:
    """``factors``: (multiplied? else divided by, operand)."""

    factors: tuple[tuple[bool, Expression], ...]


Expression = Number | Sum | Product

_WORD_IN_EXPRESSION = re.compile(r"(?<![\d.])\b(?!x\b)[A-Za-z][\w'’.]*")


def parse_expression(text: str) -> Expression | None:
    """The tree of an arithmetic expression with at least one operation; ``None`` if it is none.

    Units (``7 stickers/page * 6 pages``) and currency signs are skipped; the grammar is that of
    :func:`hbd3lm.data.annotations.parse_expression`. Nothing is evaluated.
    """
    sides = [side for side in re.sub(r"[–—]", "-", text).split("=") if re.search(r"\d", side)]
    text = sides[-1] if sides else ""  # of "48/2 = 24 + 0 =" the part nearest to the result
    text = re.sub(r"[/-]\s*(?!x\b)[A-Za-z][\w'’.]*", " ", text)  # 7 stickers/page, 8-hour
    text = _WORD_IN_EXPRESSION.sub(" ", text)
    text = re.sub(r"[$£€=]", "", text).replace("[", "(").replace("]", ")")
    text = re.sub(r"(\d|\))\s*\(", r"\1*(", text)
    text = re.sub(r"\)\s*(?=\d)", ")*", text)
    try:
        tree = _flatten(arithmetic_tree(text.strip(" .+")))
    except ValueError:
        return None
    return None if isinstance(tree, Number) else tree


def _flatten(node: ast.expr) -> Expression:
    match node:
        case ast.Constant(value=value):
            return Number(Fraction(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _flatten(operand)
            return Number(-inner.value) if isinstance(inner, Number) else Sum(((False, inner),))
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            positive = isinstance(op, ast.Add)
            terms = _as(Sum, left)
            # Brackets on the right are kept apart only where they change the operation.
            return Sum(terms + (_as(Sum, right) if positive else ((False, _flatten(right)),)))
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() as op, right=right):
            multiplied = isinstance(op, ast.Mult)
            factors = _as(Product, left)
            tail = _as(Product, right) if multiplied else ((False, _flatten(right)),)
            return Product(factors + tail)
    raise ValueError("an operation that no step of ours is told with")


def _as(kind: type, node: ast.expr) -> tuple[tuple[bool, Expression], ...]:
    tree = _flatten(node)
    if isinstance(tree, kind):
        return tree.terms if isinstance(tree, Sum) else tree.factors
    return ((True, tree),)


# --- steps of a solution ------------------------------------------------------------------


@dataclass
class Step:
    """One step of a solution, in the words of the solution.

    Attributes:
        expression: what is computed; ``None`` for a step in words only (``sentence`` says it).
        result: the value found, if it can be read.
        purpose: what is found, for use after "to find"; ``None`` if the line does not say.
        noun: what the result counts, e.g. ``"clips"``; empty if the line does not say.
        sentence: an imperative for a step without arithmetic, e.g. "combine like terms".
    """

    expression: Expression | None = None
    result: Fraction | None = None
    purpose: str | None = None
    noun: str = ""
    sentence: str = ""
    line: str = ""


# The value found stands in the marked line as one character: plain, money or percent.
_PLAIN, _CASH, _SHARE = "\ue010", "\ue011", "\ue012"
_MARK = f"[{_PLAIN}{_CASH}{_SHARE}]"

_FIGURE = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+)?"
_AFTER_ANNOTATION = re.compile(rf"\s*[$£€]?\s*-?(?:{_FIGURE})?%?")
_RESULT = re.compile(rf"=\s*(?P<value>[$£€]?\s?-?{_FIGURE}\s?%?)(?!\w)(?!\s*[-+*/x×÷(=])")
_EQUATION_TOKEN = re.compile(
    r"(?P<number>[(\[]*-?[$£€]?\s?(?:\d[\d,]*(?:\.\d+)?|\.\d+)\s?%?)|(?P<sign>(?<![A-Za-z])x(?![A-Za-z])|[-+*/×÷·=])"
    r"|(?P<word>[A-Za-z][A-Za-z'.]*)|(?P<other>[^\s)\]])"
)
_ADJACENT = re.compile(r"\(")
# Words that never name the unit of an operand, so an equation cannot reach beyond them.
_NOT_UNITS = word_set(
    "is are was were so and because for he she they it there then has have will which if in on to "
    "that who therefore or a total"
)


def _equation_start(text: str) -> tuple[int, int]:
    """Where the equation that ends ``text`` begins ("She paid 2 hats * $5 = "), and its signs.

    Read backwards: operands (a number and up to four words of unit) with signs between them.
    Returns ``len(text)`` and 0 if ``text`` does not end in an operand.
    """
    tokens = [match for match in _EQUATION_TOKEN.finditer(text) if match.lastgroup]
    start, signs, index = len(text.rstrip(" $£€")), 0, len(tokens) - 1
    while index >= 0 and (tokens[index].lastgroup == "sign" or tokens[index][0] in "$£€"):
        index -= 1
    while index >= 0:
        words = 0
        while index >= 0 and (tokens[index].lastgroup == "word" or tokens[index][0] == "/"):
            words += tokens[index].lastgroup == "word"
            if words > 4 or tokens[index][0].lower() in _NOT_UNITS:
                return start, signs
            index -= 1
        if index < 0 or tokens[index].lastgroup != "number":
            break
        start = tokens[index].start()
        # "3 -5": the minus was read as the number's own, but it joins two operands.
        joined = re.match(r"[(\[]*-", tokens[index][0]) is not None and index > 0
        index -= 1
        if index >= 0 and tokens[index].lastgroup == "sign":
            signs += tokens[index][0] != "="
            index -= 1
        elif joined or (index >= 0 and _ADJACENT.match(tokens[index + 1][0])):
            signs += 1  # "3 -5" and "40(.10)"
        else:
            break
    return start, signs


def read_steps(solution: str) -> list[Step]:
    """The steps of a solution in GSM8K's format, in order; empty if it holds none."""
    lines = [line.strip() for line in solution.splitlines()]
    lines = [line for line in lines if line and not line.startswith("####")]
    steps = [step for line in lines for step in _steps_of_line(_clean_line(line))]
    if steps:
        return _without_restatements(steps)
    worded = [_step_in_words(line) for line in lines]
    return [step for step in worded if step is not None]


def parse_steps(solution: str) -> list[Expression]:
    """The calculations of a solution, in order: of each line its annotations, else what it shows.

    The expressions of :func:`read_steps`, without asking what each is for.
    """
    found = []
    for line in solution.splitlines():
        if not line.lstrip().startswith("####"):
            pieces = _equations(_clean_line(line.strip()))
            found += [piece.expression for piece in pieces if piece.expression is not None]
    return found


def _without_restatements(steps: list[Step]) -> list[Step]:
    """Drop "x = <<50=50>>50" after a step that found 50, keeping what it says about it."""
    kept: list[Step] = []
    for step in steps:
        restated = step.expression is None and not step.sentence
        if restated and kept and kept[-1].result == step.result:
            kept[-1].purpose = step.purpose or kept[-1].purpose
            kept[-1].noun = step.noun or kept[-1].noun
        else:
            kept.append(step)
    return kept


def _clean_line(line: str) -> str:
    line = line.replace("’", "'").replace("–", "-").replace("−", "-")
    line = re.sub(r"^\s*(?:[-*•]\s+|\(?\d{1,2}[.)]\s+(?=[A-Z])|[Ss]tep \w+\s*[:.]\s*)", "", line)
    return re.sub(r"\s+", " ", line)


class _Equation(NamedTuple):
    """A calculation in a line: ``before`` stands the text since the last one, then ``written``.

    ``mark`` replaces it and its result in the line; the rest of the line begins at ``end``.
    """

    expression: Expression | None
    result: str
    before: str
    written: str
    mark: str
    end: int


def _equations(line: str) -> Iterator[_Equation]:
    """The annotations of a line; without any, the calculations it shows."""
    end = 0
    annotations = find_annotations(line)
    for annotation in annotations:
        written = line[end : annotation.start]
        start, _ = _equation_start(written)
        before, written = written[:start], written[start:]
        after = _AFTER_ANNOTATION.match(line, annotation.end)
        end = after.end()
        expression = parse_expression(annotation.expression) or parse_expression(written)
        mark = _mark(written[-2:] + after[0])
        yield _Equation(expression, annotation.result, before, written, mark, end)
    for match in () if annotations else _RESULT.finditer(line):
        start, signs = _equation_start(line[end : match.start()])
        before, written = line[end : end + start], line[end + start : match.start()]
        expression = parse_expression(written) if signs else None
        if expression is not None:
            end = match.end()
            yield _Equation(expression, match["value"], before, written, _mark(match["value"]), end)


def _steps_of_line(line: str) -> list[Step]:
    steps: list[Step] = []
    marked = ""  # the line so far, each equation replaced by one mark
    end = 0
    for equation in _equations(line):
        marked += equation.before + equation.mark
        text = equation.before + equation.written
        steps.append(Step(equation.expression, _value(equation.result), line=text))
        end = equation.end
    marked += line[end:]
    if not steps:
        step = _algebra_step(line)
        return [step] if step else []
    parts = re.split(f"({_MARK})", marked)
    for index, step in enumerate(steps):
        left, mark, right = parts[2 * index : 2 * index + 3]
        step.purpose, step.noun = find_purpose(left, mark, right, step.result)
    return [step for step in steps if step.expression is not None or step.purpose]


def _mark(written: str) -> str:
    return _CASH if re.search("[$£€]", written) else _SHARE if "%" in written else _PLAIN


def _value(text: str) -> Fraction | None:
    text = re.sub(r"[$£€,%\s]", "", text)
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return None


_ALGEBRA = [
    (
        r"^(?:first,? )?(?:let|we can let)(?:'s| us)? (?:say |call |assume )?(?:that )?"
        r"(?P<rest>.+)",
        "",
    ),
    (r"\b(?:combin\w+|collect\w+) (?:the )?like terms", "combine like terms"),
    (r"\bsubtract\w* .* (?:from|on) (?:both|each)", "subtract the same amount from both sides"),
    (r"\badd\w* .* (?:to|on) (?:both|each)", "add the same amount to both sides"),
    (r"\b(?:divid\w+) (?:both|each)", "divide both sides to isolate the unknown"),
    (r"\bmultipl\w+ (?:both|each)", "multiply both sides by the same amount"),
    (r"\bsubstitut\w+", "substitute the known relation into the equation"),
]
_ALGEBRA = [(re.compile(pattern, re.IGNORECASE), sentence) for pattern, sentence in _ALGEBRA]
_DEFINITION = re.compile(
    r"(?:\b[A-Za-z]\b|\ban? unknown\b) (?:be|=|is|represents?|stands? for|equals?)\s+"
    r"(?P<what>[^.,;]+)"
    r"|^(?P<early>(?:the|how) [^.,;=]+?) (?:be|is|as|equals?|=) ['\"]?[A-Za-z]\b",
    re.IGNORECASE,
)


def _algebra_step(line: str) -> Step | None:
    """A step such as "Let x be the number of men" or "Combining like terms, ..."."""
    for pattern, sentence in _ALGEBRA:
        found = pattern.search(line)
        if not found:
            continue
        if sentence:
            return Step(sentence=sentence)
        what = _DEFINITION.search(found["rest"])
        meaning = (what["what"] or what["early"] or "") if what else ""
        meaning = _phrase(re.split(r"\b(?:and [a-z] |so |which |then )", meaning)[0])
        if meaning and len(meaning.split()) > 1 and not re.search(r"[=+*/]", meaning):
            return Step(sentence=f"let an unknown stand for {meaning}")
    return None


def _step_in_words(line: str) -> Step | None:
    """A line without any equation: what it talks about is worked out."""
    subject = re.split(r"\s(?:=|is|are|was|were|equals?|has|have|had)\s", line, maxsplit=1)[0]
    subject = _phrase(_strip_openers(subject.split(",")[-1]))
    if not subject or len(subject.split()) > 8 or re.search(r"[=+*/]", subject):
        return None
    return Step(sentence=f"work out {_lower_start(subject)}")


# --- what a step is for -------------------------------------------------------------------

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
_CUT_LEFT = re.compile(
    r".*(?:[.;!?]\s+|,?\s(?:so that|so|and so|therefore|thus|hence|then|which means(?: that)?|"
    r"meaning(?: that)?|this means(?: that)?|that means(?: that)?|because|since)\s+"
    r"|,\s+(?:and|but|while|where|then)\s+|\sbut\s+|\swhile\s+"
    r"|\sand\s+(?=(?:he|she|they|it|the|his|her|their|there)\s))",
    re.IGNORECASE,
)
_CUT_RIGHT = re.compile(
    r"[.;:!?](?=\s|$)|,|\(|\s(?:so|because|since|as|which|while|but|if|when|where|then|given|who)\s"
    r"|\sand\s(?=(?:he|she|they|it|the|his|her|their|there|then|so)\s)|=|\+|\*|\s-\s|<|>"
)
_ADVERBIAL = re.compile(
    r"^(?:in|on|at|after|before|during|for|with|from|by|over|at the end of|per|each|every)\b",
    re.IGNORECASE,
)
_PRONOUNS = word_set("he she they it we you i")
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
    right = re.sub(rf"^\s*[$£€]?\s?{_FIGURE}\s", " ", right)  # "2 $10 bills"
    total = _TOTAL.search(left)
    if total and re.search(r"[\d,]", left[: total.start()]):  # it sums up what precedes
        left = "a total of"
    goal = _GOAL.match(left.rstrip(" :=-"))
    if goal and left.endswith((":", "=")):
        return _phrase(_lower_start(goal["goal"])), _noun_phrase(right)
    tail = _CUT_RIGHT.split(right + " ", maxsplit=1)[0]
    adverbial, clause = _main_clause(left)
    noun, rest = _split_noun(tail)
    phrase = _find_phrase(clause, mark, tail, noun, rest)
    if phrase and adverbial and adverbial.lower() not in phrase.lower():
        phrase += " " + adverbial
    phrase = _phrase(phrase) if phrase else None
    return phrase or None, without_numbers(noun)


def _around_value(claim: str, result: Fraction | None, mark: str) -> tuple[str, str, str]:
    """Split "He spent $7 on cereal" at the value it states."""
    for match in re.finditer(rf"(?P<sign>[$£€]\s?)?(?P<value>{_FIGURE})", claim):
        if _value(match["value"]) == result:
            mark = _CASH if match["sign"] else mark
            return claim[: match.start()], claim[match.end() :], mark
    return claim, "", mark


def _main_clause(left: str) -> tuple[str, str]:
    """Split "For the lemons, Tom will pay" into its short opening and its main clause."""
    clause = _CUT_LEFT.sub("", left) if _CUT_LEFT.match(left) else left
    clause = _strip_openers(clause)
    opening = ""
    if "," in clause:
        opening, clause = _split_opening(clause)
        if not (_ADVERBIAL.match(opening) and len(opening.split()) <= 6):
            opening = ""
        clause = _strip_openers(clause.strip())
    return _lower_start(opening), clause.strip()


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


def _strip_openers(clause: str) -> str:
    clause = clause.strip()
    while (shorter := _OPENER.sub("", clause)) != clause:
        clause = shorter
    return clause


def _find_phrase(clause: str, mark: str, tail: str, noun: str, rest: str) -> str | None:
    """Turn "S verb <value> noun rest" into "how many noun S verb rest" and the like."""
    money, share = mark == _CASH, mark == _SHARE
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
        if noun and re.match(rf"{_FIGURE}\s+[a-z]+$", subject):  # "300 minutes is ... 5 hours"
            return f"how many {noun} that is"
        if _AGE.match(tail):
            verb = re.sub(r"\b(?:only|just|also)\b", "", clause[len(subject) :]).strip()
            return f"how old {subject} {verb} {_AGE.sub('', tail)}"
        if subject.lower() not in _PRONOUNS and _nominal(subject):
            return f"{_lower_start(subject)} {_prepositional(rest or tail)}"
    if re.search(r"[+*/=]", clause) or re.match(r"we\s", clause, re.IGNORECASE):
        return _amount(noun, rest, money, share)
    if len(clause.split()) < 2:
        return _amount(noun, rest, money, share)
    if len(clause.split()) > 12 or (len(clause.split()) > 6 and re.search(r"\d", clause)):
        return _amount(noun, rest, money, share)
    return f"{many} {_lower_start(clause)} {rest}"


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
        return _lower_start(label)
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


def _split_noun(tail: str) -> tuple[str, str]:
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


def _noun_phrase(tail: str) -> str:
    return without_numbers(_split_noun(_CUT_RIGHT.split(tail + " ", maxsplit=1)[0])[0])


def _phrase(text: str) -> str:
    """A purpose made presentable: no numbers, no marks, not too long; "" if nothing is left."""
    text = re.sub(_MARK, " ", text).split(":")[0]
    text = re.sub(r"[\"“”#]|\$|%|\(|\)", " ", text)
    text = without_numbers(re.sub(r"\s+", " ", text).strip())
    words = text.split()
    if len(words) > 18:  # cut at the last preposition that keeps the head
        cuts = [i for i in range(7, 18) if words[i].lower() in PREPOSITIONS]
        words = words[: cuts[-1] if cuts else 18]
    while words and words[-1].lower().strip(",.") in _DANGLING:
        words.pop()
    text = " ".join(words).rstrip(" .,;:-")
    if not text or has_numbers(text) or re.search(r"[=<>*+]", text):
        return ""
    if text.lower() in ("how much", "how many", "the", "the number of", "the amount", "the total"):
        return ""
    return text


# Words a phrase cannot end with; a verb's own preposition ("finished in") may stay.
_DANGLING = (PREPOSITIONS | word_set("a an the and or given his")) - word_set(
    "for on in with about around over under from at by than to"
)


def _lower_start(text: str) -> str:
    """Lower the first letter unless it begins a name."""
    first = text.split(" ", 1)[0] if text else ""
    if first.lower() in DETERMINERS | PREPOSITIONS | _PRONOUNS | {"there", "how", "what", "total"}:
        return text[0].lower() + text[1:] if first != "I" else text
    return text


# --- where an operand's value comes from ----------------------------------------------------


@dataclass
class Given:
    """A value the question states, with the name the plan gives it."""

    value: Fraction
    name: str
    kind: str = "number"  # number, percent, fraction or multiple
    used: bool = False


_RELATIONS = {
    "half": ("fraction", Fraction(1, 2)),
    "halves": ("fraction", Fraction(1, 2)),
    "third": ("fraction", Fraction(1, 3)),
    "thirds": ("fraction", Fraction(1, 3)),
    "quarter": ("fraction", Fraction(1, 4)),
    "fourth": ("fraction", Fraction(1, 4)),
    "fifth": ("fraction", Fraction(1, 5)),
    "twice": ("multiple", Fraction(2)),
    "double": ("multiple", Fraction(2)),
    "doubled": ("multiple", Fraction(2)),
    "doubles": ("multiple", Fraction(2)),
    "triple": ("multiple", Fraction(3)),
    "tripled": ("multiple", Fraction(3)),
    "thrice": ("multiple", Fraction(3)),
    "quadruple": ("multiple", Fraction(4)),
}
_QUANTITY = re.compile(
    rf"(?P<money>[$£€]\s?)?(?P<value>{_FIGURE})(?P<percent>\s?%|[\s-]per\s?cent)?"
    rf"|\b(?P<relation>{'|'.join(_RELATIONS)})\b",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"^\s*(?:dollars?|cents?)?\s*"
    r"(?:(?:per|an?|every|for (?:each|every|an?)|for)\s+(?P<unit>[a-z]+)|(?P<each>each|apiece))\b"
)
_PRICED = re.compile(
    r"\b(?:an?|the|each|every|per|his|her)\s(?:[a-z]+\s)?([a-z]+)\s"
    r"(?:costs?|for|at|is|was|worth|costing|sells for)\s(?:only |just )?$"
)
_SPENT_ON = re.compile(r"^\s(on|from|in|for)\s(?:an?|the|his|her|their|some)?\s?([a-z]+)\b")
_PRICE = re.compile(
    r"\b(?:costs?|prices?|priced|sells?|sold|buys?|bought|charges?|charged|fee|tickets?)\b"
    r"[^.]{0,25}$",
    re.IGNORECASE,
)

# What everybody knows: value, name, and the words of which both sides must be talked about.
_KNOWN = [
    (60, "the minutes in an hour", r"minute", r"hour"),
    (60, "the seconds in a minute", r"second", r"minute"),
    (24, "the hours in a day", r"hour", r"day|daily|night"),
    (7, "the days in a week", r"", r"week"),
    (52, "the weeks in a year", r"week", r"year|annual"),
    (12, "the months in a year", r"month", r"year|annual"),
    (365, "the days in a year", r"day|daily|dog", r"year|annual"),
    (4, "the weeks in a month", r"week", r"month"),
    (30, "the days in a month", r"day|daily|week", r"month|june|april|september|november"),
    (31, "the days in a month", r"day|daily|week", r"month|january|march|may|july|august|october"),
    (10, "the years in a decade", r"year", r"decade"),
    (100, "the years in a century", r"year", r"centur"),
    (100, "the cents in a dollar", r"cent\b|cents|penn|quarter|dime|nickel", r"\$|dollar"),
    (12, "the inches in a foot", r"inch", r"f[oe]{2}t"),
    (3, "the feet in a yard", r"f[oe]{2}t", r"yard"),
    (16, "the ounces in a pound", r"ounce", r"pound"),
    (1000, "the grams in a kilogram", r"gram|\bg\b", r"kilogram|kg"),
    (1000, "the meters in a kilometer", r"meter", r"kilometer|km"),
    (1000, "the milliliters in a liter", r"ml|milliliter", r"liter"),
    (100, "the centimeters in a meter", r"cm|centimeter", r"meter"),
    (12, "the size of a pack", r"dozen", r""),
    (4, "the quarts in a gallon", r"quart", r"gallon"),
    (25, "the value of a coin", r"quarter", r""),
    (10, "the value of a coin", r"dime", r""),
    (5, "the value of a coin", r"nickel", r""),
    (4, "the legs of each animal", r"legs|feet|paws|hooves", r""),
    (4, "the sides of the shape", r"square|perimeter|sides|rect", r""),
]
_KNOWN = [
    (Fraction(value), name, re.compile(small, re.I), re.compile(large, re.I))
    for value, name, small, large in _KNOWN
]


def read_givens(question: str) -> list[Given]:
    """The values a question states, in figures or in words, in order, all unused."""
    return [replace(given) for given in _read_givens(question)]


@lru_cache(maxsize=64)
def _read_givens(question: str) -> list[Given]:
    text = _SPELLED_FRACTION.sub(_fraction_figure, question.replace("’", "'"))
    for word in sorted(set(find_spelled_numbers(text)), key=len, reverse=True):
        value = cardinal_value(word)
        if value is not None and "dozen" not in word.lower():
            text = re.sub(rf"\b{re.escape(word)}\b", str(value), text)
    givens = []
    for match in _QUANTITY.finditer(text):
        before = text[max(0, match.start() - _WINDOW) : match.start()]
        after = text[match.end() : match.end() + _WINDOW]
        if match["relation"]:
            kind, value = _RELATIONS[match["relation"].lower()]
            name = "the given fraction" if kind == "fraction" else "the given multiple"
            givens.append(Given(value, name, kind))
            continue
        value = _value(match["value"])
        if value is None:
            continue
        if match["percent"]:
            givens.append(Given(value, "the given percentage", "percent"))
        elif "/" in match["value"]:
            givens.append(Given(value, "the given fraction", "fraction"))
        elif match["money"]:
            givens.append(Given(value, _money_name(before, after)))
        elif re.match(r"[\s-]*times\b", after):
            givens.append(Given(value, "the given multiple", "multiple"))
        else:
            givens.append(Given(value, _count_name(after)))
    for given in givens:
        if has_numbers(given.name):  # "per dozen", "in quarters"
            given.name = "the given amount"
    return givens


_NUMERATORS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DENOMINATORS = "half|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
_SPELLED_FRACTION = re.compile(
    rf"\b({'|'.join(_NUMERATORS)})[- ](quarter|{_DENOMINATORS})s?\b", re.I
)


def _fraction_figure(match: re.Match[str]) -> str:
    part = match[2].lower().replace("quarter", "fourth")
    return f"{_NUMERATORS.index(match[1].lower()) + 1}/{_DENOMINATORS.split('|').index(part) + 2}"


def _money_name(before: str, after: str) -> str:
    rate = _RATE.match(after)
    if rate and rate["unit"] and is_noun(rate["unit"]):
        return f"the given amount per {rate['unit']}"
    if rate and rate["each"]:
        return "the given amount each"
    if (thing := _PRICED.search(before)) and is_noun(thing[1]):
        return f"the given {thing[1]} price"
    if _PRICE.search(before):
        return "the given price"
    if (purpose := _SPENT_ON.match(after)) and is_noun(purpose[2]):
        return f"the given amount {purpose[1]} {purpose[2]}"
    return "the given amount"


def _count_name(after: str) -> str:
    if re.match(r"[\s-]*years?[\s-]+old\b", after):
        return "the given age"
    after = re.sub(r"^\s*dozens?\b", " packs", after)
    after = re.sub(r"^(\s*[a-z]+)\s?/\s?(?=[a-z])", r"\1 per ", after)  # "elephants/hour"
    if re.match(r"\s*(?:more|fewer|less)\b", after):
        return "the given difference"
    after = re.sub(
        r"^\s*(?:different|other|of (?:the|his|her|their|its|those|these)|of)\s", " ", after
    )
    if compound := re.match(r"-([a-z]{3,})\b", after):  # "a 120-page book"
        unit = compound[1]
        return f"the given {unit if unit.endswith(('s', 'ed')) else unit + 's'}"
    noun, rest = _split_noun(_CUT_RIGHT.split(after + " ", maxsplit=1)[0])
    noun = drop_numbers(noun)
    if not noun:
        return "the given amount"
    rate = re.match(r"^(?:per|an?|each|every)\s+([a-z]+)\b", rest)
    per = f" per {rate[1]}" if rate and is_noun(rate[1]) else ""
    return f"the given {noun}{per}"


class _Names:
    """Names operands while the steps of one problem are told in order."""

    def __init__(self, problem: Problem, steps: Sequence[Step], terse: bool) -> None:
        self.givens = read_givens(problem.question)
        self.text = problem.question + "\n" + problem.solution
        self.steps = steps
        self.now = 0
        self.terse = terse
        self.used: set[int] = set()

    def number(self, number: Number, divides: bool = False) -> str:
        """The name of one operand of the current step."""
        value = number.value
        earlier = [
            index for index in reversed(range(self.now)) if self.steps[index].result == value
        ]
        fresh = [index for index in earlier if index not in self.used]
        given = self._given(number, divides)
        if earlier and given and given.kind == "percent":
            given = None
        if given and (not given.used and value <= 3 and self.now - 1 not in fresh):
            return self._use(given)
        if fresh or (earlier and not given):
            index = (fresh or earlier)[0]
            self.used.add(index)
            return self._result(index)
        if given:
            return self._use(given)
        return self._known(value)

    def is_given(self, value: Fraction, kind: str) -> bool:
        """Whether the question states ``value`` as a ``kind`` (and no earlier step found it)."""
        return any(given.kind == kind and given.value == value for given in self.givens)

    def percentage(self, value: Fraction) -> bool:
        """Whether ``value`` (0.2) is a percentage the question states (20%)."""
        return any(g.kind == "percent" and g.value == 100 * value for g in self.givens)

    def _given(self, number: Number, divides: bool) -> Given | None:
        matches = [given for given in self.givens if self._matches(given, number, divides)]
        # The value as stated first, then one not used yet, then the order of the question.
        return min(matches, key=lambda g: (g.value != number.value, g.used), default=None)

    @staticmethod
    def _matches(given: Given, number: Number, divides: bool) -> bool:
        if given.kind == "percent":
            return number.value in (given.value, given.value / 100)
        if given.kind == "fraction" and divides and given.value.numerator == 1:
            return number.value in (given.value, 1 / given.value)
        return given.value == number.value

    def _use(self, given: Given) -> str:
        given.used = True
        if self.terse and given.kind == "number":
            return "the given amount"
        return given.name

    def _result(self, index: int) -> str:
        if index == self.now - 1:
            return "that" if self.terse else "the previous result"
        noun = self.steps[index].noun
        alone = [step.noun for step in self.steps[: self.now]].count(noun) == 1
        if noun and alone and len(noun.split()) <= 3 and not noun.startswith(("more", "fewer")):
            return f"the {noun} found earlier"
        return ("the first result", "the second result", "an earlier result")[min(index, 2)]

    def _known(self, value: Fraction) -> str:
        for known, name, small, large in _KNOWN:
            if value == known and small.search(self.text) and large.search(self.text):
                return name
        # "With three people, ..." where the question only names them.
        for given in read_givens(self.steps[self.now].line):
            if given.value == value and given.name not in ("the given amount", "the given price"):
                return (
                    given.name.replace("the given ", "the ")
                    if given.kind == "number"
                    else given.name
                )
        if value in (1, 100) and ("%" in self.text or "percent" in self.text or "/" in self.text):
            return "the whole"
        return "a known amount"


# --- telling the steps ----------------------------------------------------------------------


def _actions(steps: Sequence[Step], problem: Problem, terse: bool) -> list[str]:
    """What to do in each step, as an imperative; "" where only the purpose is known."""
    names = _Names(problem, steps, terse)
    actions = []
    for index, step in enumerate(steps):
        names.now = index
        told = _imperative(step.expression, names) if step.expression else ""
        actions.append(step.sentence or told)
    return actions


def _tell(steps: Sequence[Step], problem: Problem) -> str:
    """The plan, in as much detail as :data:`MAX_WORDS` allows."""
    told: dict[bool, list[str]] = {}
    for terse, cut in _DETAIL:
        if terse not in told:
            told[terse] = _actions(steps, problem, terse)
        actions = told[terse]
        purposes = [_shorten(step.purpose, cut) if step.purpose else "" for step in steps[:-1]]
        purposes.append(steps[-1].purpose or "")
        plan = _compose(actions, purposes, steps, problem)
        if len(plan.split()) <= MAX_WORDS:
            return plan
    while len(plan.split()) > MAX_WORDS and any(purposes[:-1]):
        purposes[purposes.index(max(purposes[:-1], key=lambda text: len(text.split())))] = ""
        plan = _compose(actions, purposes, steps, problem)
    return plan


def _compose(
    actions: Sequence[str], purposes: Sequence[str], steps: Sequence[Step], problem: Problem
) -> str:
    answer = _value(problem.answer)
    final = next((i for i in reversed(range(len(steps))) if steps[i].result == answer), None)
    sentences = []
    for index, (action, purpose) in enumerate(zip(actions, purposes)):
        last = index == len(steps) - 1
        if not action:
            action = f"work out {purpose or 'the next amount'}"
        elif purpose:
            action += f" to find {'the answer: ' if last and final == index else ''}{purpose}"
        elif last and final == index:
            action += _to_answer(problem.question)
        sentences.append(_ordered(action, index, len(steps)))
    if final is None:
        focus = _question_focus(problem.question)
        sentences.append(f"Use the results to answer: {focus or 'the question.'}")
    elif final < len(steps) - 1:
        found = purposes[final] or steps[final].purpose
        sentences.append(f"The answer is {found}." if found else "An earlier result is the answer.")
    plan = " ".join(sentences)
    # Harmless parts can meet as a number ("a", "third of"): the promise is kept for the whole.
    return drop_numbers(plan) if has_numbers(plan) else plan


def _ordered(action: str, index: int, count: int) -> str:
    end = "" if action.endswith("?") else "."
    if count == 1:
        return action[0].upper() + action[1:] + end
    word = "First, " if index == 0 else "Finally, " if index == count - 1 else "Then "
    return word + action + end


def _shorten(purpose: str, limit: int) -> str:
    """``purpose`` without its last prepositional phrases if it has more than ``limit`` words."""
    words = purpose.split()
    cuts = [i for i in range(4, len(words)) if words[i].lower() in PREPOSITIONS - {"of"}]
    if len(words) <= limit or not cuts:
        return purpose
    kept = words[: max([i for i in cuts if i <= limit], default=cuts[0])]
    while kept[-1].lower() in _DANGLING:
        kept.pop()
    shorter = " ".join(kept)
    # "from one of the banks" may have become "from one".
    return drop_numbers(shorter) if has_numbers(shorter) else shorter


def _imperative(expression: Expression, names: _Names) -> str:
    """ "add A and B", "subtract A from B", "multiply A by B", ..."""
    if isinstance(expression, Sum):
        plus = [_noun(term, names) for positive, term in expression.terms if positive]
        minus = [_noun(term, names) for positive, term in expression.terms if not positive]
        if not minus:
            return f"add {_list(plus)}"
        if len(plus) == 1:
            other = plus[0].replace("the given", "the other given") if plus == minus else plus[0]
            return f"subtract {_list(minus)} from {other}"
        if not plus:
            return f"subtract {_list(minus)}"
        return f"add {_list(plus)} and subtract {_list(minus)}"
    share, up, down = _factors(expression, names)
    if share:
        if not up and not down:
            return f"take {share}"
        whole = _list(up) if len(up) < 2 else f"the product of {_join(_distinct(up))}"
        action = f"take {share} of {whole or 'the whole'}"
        return action + (f" and divide by {_list(down)}" if down else "")
    if not down:
        return f"multiply {up[0]} by {_join(_distinct(up)[1:])}"
    if len(up) == 1:
        if up == down:
            down = [up[0].replace("the given", "the other given")]
        return f"divide {up[0]} by {_list(down)}"
    if not up:
        return f"divide the whole by {_list(down)}"
    return f"multiply {up[0]} by {_join(_distinct(up)[1:])} and divide by {_list(down)}"


def _distinct(factors: list[str]) -> list[str]:
    """The factors, later ones told apart from a first one of the same name."""
    first, *others = factors
    return [first] + [
        n.replace("the given", "the other given") if n == first else n for n in others
    ]


def _noun(expression: Expression, names: _Names) -> str:
    """An operand as a noun phrase, nested operations included."""
    if isinstance(expression, Number):
        return names.number(expression)
    if isinstance(expression, Sum):
        plus = [_noun(term, names) for positive, term in expression.terms if positive]
        minus = [_noun(term, names) for positive, term in expression.terms if not positive]
        if not minus:
            return f"the sum of {_list(plus)}"
        whole = f"the sum of {_list(plus)}" if len(plus) > 1 else (plus or ["nothing"])[0]
        return f"the difference between {whole} and {_list(minus)}"
    share, up, down = _factors(expression, names)
    if share:
        return f"{share} of {_list(up) or 'the whole'}" + (f" over {_list(down)}" if down else "")
    top = up[0] if len(up) == 1 else f"the product of {_join(_distinct(up))}" if up else "the whole"
    return f"the ratio of {top} to {_list(down)}" if down else top


def _factors(product: Product, names: _Names) -> tuple[str, list[str], list[str]]:
    """Split a product into a share ("the given percentage"), what is multiplied, what divides.

    ``80/100*x``, ``.8*x``, ``3/5*x`` and ``x/2`` with "half" in the question are shares of x.
    """
    up = [factor for multiplied, factor in product.factors if multiplied]
    down = [factor for multiplied, factor in product.factors if not multiplied]
    share = ""
    for top in [f for f in up if isinstance(f, Number)]:
        for bottom in [f for f in down if isinstance(f, Number) and f.value]:
            ratio = top.value / bottom.value
            if bottom.value == 100 and names.percentage(ratio):
                share = "the given percentage"
            elif len(up) > 1 and names.is_given(ratio, "fraction"):
                share = "the given fraction"
            if share:
                up.remove(top)
                down.remove(bottom)
                break
        if share:
            break
    if not share:
        for factor in [f for f in up if isinstance(f, Number) and len(up) > 1]:
            if factor.value < 1 and names.percentage(factor.value):
                share = "the given percentage"
            elif names.is_given(factor.value, "fraction"):
                share = "the given fraction"
            if share:
                up.remove(factor)
                break
    if not share and len(up) == 1:
        for factor in [f for f in down if isinstance(f, Number) and f.value > 1]:
            if names.is_given(1 / factor.value, "fraction"):
                share = "the given fraction"
                down.remove(factor)
                break
    return (
        share,
        [_noun(factor, names) for factor in up],
        [names.number(f, divides=True) if isinstance(f, Number) else _noun(f, names) for f in down],
    )


def _list(items: Sequence[str]) -> str:
    """ "A, B and C", with like names told once ("the given amounts")."""
    counts = Counter(items)
    results = [name for name in counts if name.endswith(("result", "found earlier", "that"))]
    if sum(counts[name] for name in results) > 2:
        counts = Counter({n: c for n, c in counts.items() if n not in results})
        counts["the earlier results"] = 1
    names: list[str] = []
    for name, count in counts.items():
        if count > 1 and name.startswith(("the given", "a known")):
            names.append(_plural(name))
        else:
            names.append(name)
    return _join(names)


def _plural(name: str) -> str:
    if name.startswith("a known"):
        return "the known amounts"
    head, separator, rest = name.partition(" per ")
    return (head if head.endswith("s") else head + "s") + separator + rest


def _join(items: Sequence[str]) -> str:
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]


# --- the question -------------------------------------------------------------------------


_ASKS = re.compile(
    r"\b(?:how (?:many|much|old|long|far|tall|fast|big|wide|high|heavy|often)|what|which|"
    r"calculate|find)\b.*",
    re.IGNORECASE,
)


def _question_focus(question: str) -> str:
    """The question's own last interrogative without its numbers, or ""."""
    sentences = re.split(r"(?<=[.!?])\s+", question.strip())
    asked = [s for s in sentences if s.endswith("?")] or sentences[-1:]
    text = asked[-1] if asked else ""
    match = _ASKS.search(text)
    if not match:
        return ""
    text = without_numbers(match[0]).rstrip(" .?!")
    words = text.split()
    if not words or len(words) > 22:
        return ""
    return f"{words[0].lower()} {' '.join(words[1:])}?"


def _to_answer(question: str) -> str:
    focus = _question_focus(question)
    return f" to answer: {focus}" if focus else " to answer the question"


def _plan_from_question(question: str) -> str:
    """Without a solution only the question is left: name the givens and the goal."""
    focus = _question_focus(question)
    names = list(dict.fromkeys(given.name for given in read_givens(question)))[:4]
    start = f"Start from {_list(names)}." if names else "Start from the given amounts."
    return tidy(
        f"{start} Decide which operation links them, step by step, to answer"
        + (f": {focus}" if focus else " the question.")
    )
