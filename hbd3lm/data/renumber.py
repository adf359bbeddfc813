"""The same problem with other numbers, made through its annotated solution.

A solution in GSM8K's format is a calculation over the numbers of the question: every number in an
annotation ``<<48/2=24>>`` is one of the question, an earlier result, or a constant that both take
for granted (seven days a week). So the question's numbers can be replaced and all results worked
out anew, exactly.

Where a text leaves open which is meant, nothing is guessed: if a 4 of the solution may be the
question's or an earlier result, the two stay equal; if it may be a constant, it stays. Solutions
with a number from nowhere (a step done in the head), a rounded or a wrong result are refused, and
so are problems for which no other numbers keep every whole result whole and every positive one
positive. What the new numbers mean is not read: a day may get 30 hours of work.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from hbd3lm.data.annotations import (
    Annotation,
    evaluate_expression,
    find_annotations,
    map_constants,
    parse_expression,
)
from hbd3lm.data.answers import normalize_number
from hbd3lm.data.records import Problem

REASONS = (
    "no annotations",
    "annotation that does not check",
    "number from nowhere",
    "answer is not the last result",
    "no number to change",
    "no other numbers fit",
)
"""Why a problem may be refused, in the order in which it is looked for."""

Change = Callable[[Fraction], Fraction]
"""The new value of a number of the question."""


class RenumberError(ValueError):
    """The problem cannot be given other numbers; the message is one of :data:`REASONS`."""


# --- where numbers stand ------------------------------------------------------------------------

# 5kg is a number, B12 and 3rd are none.
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?!\d|(?:st|nd|rd|th)\b)"
)
_OPERAND = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+")
# What stands before an annotation and is calculated in it: "48/2 = <<48/2=24>>24"
_VISIBLE = re.compile(r"[-+*/xX×·÷−()\d.,$%\s]*=\s*\$?\s*\Z")
_PERCENT = re.compile(r"\s?%|\s?per\s?cent\b", re.IGNORECASE)
# 3/4, 3:30, 2-1: parts of one thing; 1st: an ordinal
_BOUND_BEFORE, _BOUND_AFTER = re.compile(r"\d\s?[/:]\s?\Z"), re.compile(r"\s?[/:]\s?\d")
_WORDS = (
    *("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
)
_WORD_VALUES = {word: Fraction(value) for value, word in enumerate(_WORDS, start=2)}
_WORD = re.compile(rf"(?<![\w-])(?:{'|'.join(_WORDS)})(?![\w-])", re.IGNORECASE)
# A word that counts parts ("two thirds", "three quarters") or scales ("five hundred").
_WORD_BOUND = re.compile(
    r"\s(?:and\sa\s)?(?:half|halves|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?|eighths?"
    r"|ninths?|tenths?|hundred|thousand|million|dozen)\b",
    re.IGNORECASE,
)

# Values that solutions take for granted where these words occur in question or solution; they
# are never changed, not even where the question states them.
_ALWAYS = (0, 1, 2, 100)
_GRANTED = (
    (r"half|halves|twice|doubl\w+|pairs?|couple|both", (2,)),
    (r"third|thirds|tripl\w+|thrice", (3, "1/3", "2/3")),
    (r"quarters?|fourths?|quadrupl\w+", (4, 3, 25, "1/4", "3/4")),
    (r"fifths?", (5, "1/5")),
    (r"sixths?", (6,)),
    (r"sevenths?", (7,)),
    (r"eighths?", (8,)),
    (r"ninths?", (9,)),
    (r"tenths?|decades?|dimes?", (10,)),
    (r"dozens?", (12, 6)),
    (r"weeks?|weekly|weekends?|weekdays?|daily|days?", (7, 5, 24, 52, 4)),
    (r"months?|monthly|annual\w*|years?|yearly", (12, 365, 52, 30, 4)),
    (r"hours?|hourly|minutes?|seconds?", (60, 24, 30, 15, 3600)),
    (r"feet|foot|inch|inches|yards?", (12, 3, 36)),
    (r"pounds?|ounces?|cups?|pints?|quarts?|gallons?", (16, 4, 8)),
    (r"kilo\w+|kg|km|grams?|liters?|litres?|ml|met(?:er|re)s?|cm|centi\w+|milli\w+", (1000, 10)),
    (r"cents?|nickels?|penn(?:y|ies)|dollars?", (5, 10, 25)),
    (r"squares?|rectang\w+|sides?", (4,)),
    (r"triang\w+", (3,)),
    (r"hundreds?", (100,)),
    (r"thousands?", (1000,)),
    (r"millions?", (1_000_000,)),
)
_GRANTED = [(re.compile(rf"\b(?:{w})\b", re.I), tuple(map(Fraction, v))) for w, v in _GRANTED]
_HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Place:
    """A number in a text: ``text[start:end]`` is written ``written`` and worth ``value``."""

    start: int
    end: int
    written: str
    value: Fraction
    percent: bool = False
    fixed: bool = False


def _places(text: str) -> Iterator[Place]:
    """The numbers of running text, in digits and in words up to twenty."""
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        before, after = text[max(0, start - 4) : start], text[end : end + 4]
        bound = bool(_BOUND_BEFORE.search(before) or _BOUND_AFTER.match(after))
        yield Place(
            start,
            end,
            match[0],
            Fraction(normalize_number(match[0])),
            bool(_PERCENT.match(text, end)),
            bound,
        )
    for match in _WORD.finditer(text):
        bound = bool(_WORD_BOUND.match(text, match.end()))
        yield Place(*match.span(), match[0], _WORD_VALUES[match[0].lower()], fixed=bound)


# --- what the numbers of the solution are -------------------------------------------------------

Source = tuple[str, Fraction | int]
"""Where a value comes from: ``("question", value)``, ``("percent", value / 100)``,
``("constant", value)`` or ``("result", index of the annotation)``."""


@dataclass(frozen=True)
class _Step:
    """An annotation, and for each value of its expression the sources it may have."""

    annotation: Annotation
    tree: ast.expr
    sources: dict[Fraction, tuple[Source, ...]]
    value: Fraction


@dataclass(frozen=True)
class Template:
    """A problem whose numbers are known to be of the question, results or constants.

    Attributes:
        problem: with its own numbers.
        question: the places of numbers in the question that may change.
        text: the places of numbers in the solution outside of annotations, with their sources.
    """

    problem: Problem
    question: tuple[Place, ...]
    steps: tuple[_Step, ...]
    text: tuple[tuple[Place, tuple[Source, ...]], ...]
    used: frozenset[Fraction] = field(default_factory=frozenset)

    @classmethod
    def read(cls, problem: Problem) -> Template:
        """Find out what every number of the solution is.

        Raises:
            RenumberError: not every number is known.
        """
        annotations = find_annotations(problem.solution)
        if not annotations:
            raise RenumberError(REASONS[0])
        both = f"{problem.question}\n{problem.solution}"
        granted = set(map(Fraction, _ALWAYS)) | {_HALF}
        for pattern, values in _GRANTED:
            if pattern.search(both):
                granted.update(values)
        stated = tuple(_places(problem.question))
        for place in stated:
            if place.fixed:  # 3/4 of the cake: both, and what they make
                granted.add(place.value)
        known: dict[Fraction, list[Source]] = {v: [("constant", v)] for v in granted}
        for place in stated:
            _add(known, place.value, ("question", place.value))
            if place.percent:
                _add(known, place.value / 100, ("percent", place.value / 100))
        steps = []
        for index, annotation in enumerate(annotations):
            steps.append(_read_step(annotation, known))
            _add(known, steps[-1].value, ("result", index))
        text = tuple(_read_text(problem, annotations, steps, known))
        sources = {s for step in steps for found in step.sources.values() for s in found}
        used = {v for kind, v in sources if kind == "question"}
        used |= {100 * v for kind, v in sources if kind == "percent"}
        changeable = {value for value in used if value not in granted}
        if not changeable:
            raise RenumberError(REASONS[4])
        return cls(problem, stated, tuple(steps), text, frozenset(changeable))

    def fill(self, change: Change) -> Problem | None:
        """The problem with the numbers that ``change`` gives; None if they do not fit.

        ``change`` is asked once for each value of the question that calculations use and that is
        not determined otherwise. Numbers fit if what must stay equal does, and every result stays
        whole, or of no more decimals, and positive where it was.
        """
        new: dict[Source, Fraction] = {}

        def value_of(sources: tuple[Source, ...]) -> Fraction | None:
            values = {_scaled(new, s) for s in sources if _is_known(new, s)}
            if len(values) > 1:
                return None
            if not values:
                value = next(v if k == "question" else 100 * v for k, v in sources)
                new["question", value] = change(value) if value in self.used else value
                values = {_scaled(new, sources[0])}
            (value,) = values
            for kind, v in sources:  # the others stay equal
                if kind == "question":
                    new.setdefault((kind, v), value)
                elif kind == "percent":
                    new.setdefault(("question", 100 * v), 100 * value)
            same = {_scaled(new, source) for source in sources}
            return value if same == {value} else None

        results = []
        for index, step in enumerate(self.steps):
            operands = {v: value_of(sources) for v, sources in step.sources.items()}
            if None in operands.values():
                return None
            try:
                value = evaluate_expression(_with_values(step.tree, operands))
            except ValueError:  # division by zero
                return None
            if not _fits(value, step.value):
                return None
            new["result", index] = value
            results.append((operands, value))
        written = []
        for place, sources in self.text:
            value = value_of(sources)
            if value is None:
                return None
            written.append((place, value))
        for step, (operands, value) in zip(self.steps, results):
            written += _annotation_places(self.problem.solution, step, operands, value)
        question = [(p, new.get(("question", p.value), p.value)) for p in self.question]
        solution = _rewrite(self.problem.solution, written)
        answer = _write(self.problem.answer, self.steps[-1].value, results[-1][1])
        return replace(
            self.problem,
            question=_rewrite(self.problem.question, question),
            solution=solution,
            answer=normalize_number(answer),
            subquestions=(),
        )


def _add(known: dict[Fraction, list[Source]], value: Fraction, source: Source) -> None:
    sources = known.setdefault(value, [])
    if source not in sources:
        sources.append(source)


def _is_known(new: dict[Source, Fraction], source: Source) -> bool:
    kind, value = source
    if kind == "percent":
        return ("question", 100 * value) in new
    return kind == "constant" or source in new


def _scaled(new: dict[Source, Fraction], source: Source) -> Fraction | None:
    kind, value = source
    if kind == "constant":
        return value
    if kind == "percent":
        return new["question", 100 * value] / 100
    return new[source]


def _read_step(annotation: Annotation, known: dict[Fraction, list[Source]]) -> _Step:
    try:
        tree = parse_expression(annotation.expression)
        value = evaluate_expression(tree)
        right = evaluate_expression(annotation.result) == value
        # Rewriting needs to know each number's place: of the expression and of the result.
        plain = _NUMBER.fullmatch(annotation.result) is not None
    except ValueError:
        right = plain = False
    if not (right and plain):
        raise RenumberError(REASONS[1])
    operands = {Fraction(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    if not operands <= known.keys():
        raise RenumberError(REASONS[2])
    return _Step(annotation, tree, {v: tuple(known[v]) for v in sorted(operands)}, value)


def _read_text(
    problem: Problem,
    annotations: list[Annotation],
    steps: list[_Step],
    known: dict[Fraction, list[Source]],
) -> Iterator[tuple[Place, tuple[Source, ...]]]:
    """The numbers of the solution's text; those right behind an annotation are its result."""
    body, mark, _ = problem.solution.rpartition("#### ")
    last = len(steps) - 1
    if not mark or Fraction(problem.answer) != steps[last].value:
        raise RenumberError(REASONS[3])
    results = {annotation.end: index for index, annotation in enumerate(annotations)}
    visible = []  # (where it starts, where it ends, its step)
    for step in steps:
        end = step.annotation.start
        line = problem.solution.rfind("\n", 0, end) + 1
        found = _VISIBLE.search(problem.solution, line, end)
        visible.append((found.start() if found else end, end, step))
    for place in _places(problem.solution):
        if any(a.start <= place.start < a.end for a in annotations):
            continue
        behind = results.get(place.start)
        if behind is not None and place.value == steps[behind].value:
            yield place, (("result", behind),)
            continue
        if place.start >= len(body):
            if place.value != steps[last].value:
                raise RenumberError(REASONS[3])
            yield place, (("result", last),)
            continue
        here = [step for start, end, step in visible if start <= place.start < end]
        if here and place.value in here[0].sources:
            yield place, here[0].sources[place.value]
        elif place.value in known:
            yield place, tuple(known[place.value])
        else:
            raise RenumberError(REASONS[2])


# --- writing ------------------------------------------------------------------------------------


def _with_values(tree: ast.expr, values: dict[Fraction, Fraction]) -> ast.expr:
    return map_constants(tree, lambda leaf: ast.Constant(value=values[Fraction(leaf)]))


def _decimals(written: str) -> int:
    return len(written.partition(".")[2])


def _needed(value: Fraction) -> int | None:
    """Decimals that write ``value`` exactly; None if there is no end of them."""
    for places in range(7):
        if (value * 10**places).denominator == 1:
            return places
    return None


def _fits(new: Fraction, old: Fraction) -> bool:
    places = _needed(old)
    if places is None or _needed(new) is None or _needed(new) > max(places, 2 * bool(places)):
        return False
    return not (old > 0 and new <= 0) and not (old > 1 and new <= 1)


def _write(written: str, old: Fraction, new: Fraction) -> str:
    """``new`` in the manner of ``written``, which is worth ``old``; the same text if equal."""
    if new == old:
        return written
    word = written.lower() in _WORD_VALUES
    if word and new.denominator == 1 and 2 <= new < 2 + len(_WORDS):
        spelled = _WORDS[int(new) - 2]
        return spelled.capitalize() if written[0].isupper() else spelled
    places = 0 if new.denominator == 1 else _needed(new)
    if places and _decimals(written) == 2:
        places = max(2, places)
    if _decimals(written) and set(written.partition(".")[2]) == {"0"}:
        places = max(places, _decimals(written))  # $4.00
    digits = f"{'-' if new < 0 else ''}{abs(new) * 10**places // 1:0{places + 1}d}"
    whole, decimals = (digits[:-places], "." + digits[-places:]) if places else (digits, "")
    if "," in written or (word and len(whole) > 4):
        whole = f"{int(whole):,}"
    return whole + decimals


def _rewrite(text: str, places: list[tuple[Place, Fraction]]) -> str:
    result, position = "", 0
    for place, value in sorted(places, key=lambda item: item[0].start):
        result += text[position : place.start] + _write(place.written, place.value, value)
        position = place.end
    return result + text[position:]


def _annotation_places(
    solution: str, step: _Step, operands: dict[Fraction, Fraction], result: Fraction
) -> Iterator[tuple[Place, Fraction]]:
    """The places of an annotation's numbers, with their new values."""
    start, end = step.annotation.start, step.annotation.end
    equals = solution.rindex("=", start, end)
    for match in _OPERAND.finditer(solution, start, equals):
        written = match[0].rstrip(".")
        value = Fraction(normalize_number(written))
        scale = 100 if solution[match.end()] == "%" else 1
        place = Place(match.start(), match.start() + len(written), written, value)
        yield place, operands[value / scale] * scale
    first = solution.index(step.annotation.result, equals)
    written = step.annotation.result
    yield Place(first, first + len(written), written, step.value), result


# --- other numbers ------------------------------------------------------------------------------


def renumber(
    problem: Problem, seed: int = 0, largest: int | None = None, tries: int = 400
) -> Problem:
    """``problem`` with other numbers, drawn at random, and everything worked out anew.

    Every value that may change does, in the first half of the tries; at least one, in the rest.

    Args:
        largest: no number of the calculations is larger; None: no such bound.
        tries: draws of all numbers before giving up.

    Returns:
        the new problem; its id is the old one's, and it has no sub-questions.

    Raises:
        RenumberError: see :data:`REASONS`.
    """
    template = Template.read(problem)
    percents = {place.value for place in template.question if place.percent and place.value <= 100}
    rng = np.random.default_rng([seed, 17])
    for attempt in range(tries):
        drawn = {value: _draw(value, rng, value in percents) for value in sorted(template.used)}
        asked: dict[Fraction, Fraction] = {}

        def change(value: Fraction, drawn=drawn, asked=asked) -> Fraction:
            return asked.setdefault(value, drawn[value])

        new = template.fill(change)
        if new is None or not asked:
            continue
        changed = [old != value for old, value in asked.items()]
        enough = all(changed) if attempt < tries // 2 else any(changed)
        if enough and (largest is None or _largest(new) <= largest):
            return new
    raise RenumberError(REASONS[5])


def identity(value: Fraction) -> Fraction:
    """The change that changes nothing."""
    return value


def _draw(value: Fraction, rng: np.random.Generator, share: bool) -> Fraction:
    """A value of the like: as round, as many decimals, between about half and twice as large.

    ``share``: a percentage of at most a hundred, which the new one is, too.
    """
    places = _needed(value) or 0
    unit = Fraction(1, 10**places)
    for coarser, least in ((1000, 2), (100, 2), (50, 3), (25, 3), (10, 3), (5, 5)):
        step = unit * coarser
        if value % step == 0 and value / step >= least:
            unit = step
            break
    low, high = max(1, int(value / unit) // 2), max(4, 2 * int(value / unit))
    if share:
        high = max(low, min(high, int(100 / unit)))
    drawn = unit * int(rng.integers(low, high + 1))
    return drawn if value.denominator > 1 or drawn > 1 else Fraction(2)


def _largest(problem: Problem) -> Fraction:
    return max(
        Fraction(normalize_number(number))
        for annotation in find_annotations(problem.solution)
        for number in _OPERAND.findall(f"{annotation.expression} {annotation.result}")
    )
