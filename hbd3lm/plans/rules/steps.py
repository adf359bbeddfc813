"""The steps of a solution: what each computes, what it finds, and for what."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from hbd3lm.plans.rules.equations import find_equations
from hbd3lm.plans.rules.expressions import Expression
from hbd3lm.plans.rules.figures import MARK, read_figure
from hbd3lm.plans.rules.phrases import clean_phrase, lower_start, strip_openers
from hbd3lm.plans.rules.purpose import find_purpose


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
            pieces = find_equations(_clean_line(line.strip()))
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


def _steps_of_line(line: str) -> list[Step]:
    steps: list[Step] = []
    marked = ""  # the line so far, each equation replaced by one mark
    end = 0
    for equation in find_equations(line):
        marked += equation.before + equation.mark
        text = equation.before + equation.written
        steps.append(Step(equation.expression, read_figure(equation.result), line=text))
        end = equation.end
    marked += line[end:]
    if not steps:
        step = _algebra_step(line)
        return [step] if step else []
    parts = re.split(f"({MARK})", marked)
    for index, step in enumerate(steps):
        left, mark, right = parts[2 * index : 2 * index + 3]
        step.purpose, step.noun = find_purpose(left, mark, right, step.result)
    return [step for step in steps if step.expression is not None or step.purpose]


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
        meaning = clean_phrase(re.split(r"\b(?:and [a-z] |so |which |then )", meaning)[0])
        if meaning and len(meaning.split()) > 1 and not re.search(r"[=+*/]", meaning):
            return Step(sentence=f"let an unknown stand for {meaning}")
    return None


def _step_in_words(line: str) -> Step | None:
    """A line without any equation: what it talks about is worked out."""
    subject = re.split(r"\s(?:=|is|are|was|were|equals?|has|have|had)\s", line, maxsplit=1)[0]
    subject = clean_phrase(strip_openers(subject.split(",")[-1]))
    if not subject or len(subject.split()) > 8 or re.search(r"[=+*/]", subject):
        return None
    return Step(sentence=f"work out {lower_start(subject)}")
