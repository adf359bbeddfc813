"""Records of published data sets as they are read, and how each becomes a problem."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hbd3lm.data.annotations import (
    Annotation,
    check_annotation,
    format_expression,
    parse_expression,
)
from hbd3lm.data.answers import normalize_number, strict_answer
from hbd3lm.data.records import Problem, check_characters
from hbd3lm.errors import UserError

SUBQUESTION_MARK = " ** "  # GSM8K socratic: "How many clips in May? ** Natalia sold 48/2 = ..."
_SVAMP_ROWS, _SVAMP_TRAIN_ROWS = 1000, 700
_MEND = "correct that row, or get the published data again"


@dataclass(frozen=True, slots=True)
class Row:
    """A record as read, its index within its file and the place to blame in errors."""

    fields: object
    index: int
    where: str


def svamp_split(rows: list[Row], split: str, path: Path) -> list[Row]:
    """The first 700 rows train, the last 300 test; by position, so the file must be whole."""
    if len(rows) != _SVAMP_ROWS:
        raise UserError(
            f"{path} holds {len(rows)} problems, SVAMP has {_SVAMP_ROWS}: its split goes by "
            "position; use the whole published file"
        )
    return rows[:_SVAMP_TRAIN_ROWS] if split == "train" else rows[_SVAMP_TRAIN_ROWS:]


def _field(row: Row, *names: str) -> object:
    """The first of ``names`` that the row has (data sets name a field differently in places)."""
    if not isinstance(row.fields, dict):
        raise UserError(
            f"{row.where} is a {type(row.fields).__name__}, not a record of fields; {_MEND}"
        )
    for name in names:
        if name in row.fields:
            return row.fields[name]
    raise UserError(f"{row.where} has no field {' or '.join(map(repr, names))}; {_MEND}")


def _text(row: Row, *names: str) -> str:
    value = _field(row, *names)
    if not isinstance(value, str):
        raise UserError(
            f"{row.where}: field {names[0]!r} is {type(value).__name__}, expected a string; {_MEND}"
        )
    if not value.strip():
        raise UserError(f"{row.where}: field {names[0]!r} is empty; {_MEND}")
    check_characters(value, f"{row.where}: field {names[0]!r}")
    return value


def _number(row: Row, *names: str) -> str:
    value = _field(row, *names)
    try:
        return normalize_number(str(value))
    except ValueError:
        raise UserError(
            f"{row.where}: field {names[0]!r} is {value!r}, not a number; {_MEND}"
        ) from None


def gsm8k_problem(row: Row, problem_id: str) -> Problem:
    """Of GSM8K's main version.

    Raises:
        UserError: a field is missing or is not what it should be; so in all of these.
    """
    question, solution = _text(row, "question"), _text(row, "answer")
    return Problem(problem_id, question, solution, _gold(row, solution))


def socratic_problem(row: Row, problem_id: str) -> Problem:
    """Of GSM8K's socratic version: the same with the sub-question of every step."""
    question, answer = _text(row, "question"), _text(row, "answer")
    subquestions, lines = [], []
    *steps, last = answer.split("\n")
    for step in steps:
        subquestion, mark, line = step.partition(SUBQUESTION_MARK)
        if not mark:
            raise UserError(
                f"{row.where}: step {step!r} has no sub-question; this is not GSM8K's socratic "
                f"version; {_MEND}"
            )
        lines.append(line)
        # Where the plain solution has a blank line, the published file repeats a sub-question.
        if line.strip():
            subquestions.append(subquestion.strip())
    solution = "\n".join([*lines, last])
    return Problem(problem_id, question, solution, _gold(row, solution), tuple(subquestions))


def _gold(row: Row, solution: str) -> str:
    last_line = solution.rpartition("\n")[2]
    gold = strict_answer(last_line) if last_line.startswith("#### ") else None
    if gold is None:
        raise UserError(f"{row.where}: the last line of 'answer' is not '#### NUMBER'; {_MEND}")
    return gold


def svamp_problem(row: Row, problem_id: str) -> Problem:
    """Of SVAMP: its equation becomes the one step of a solution."""
    body, question = _text(row, "Body").strip(), _text(row, "Question").strip()
    answer = _number(row, "Answer")
    end = "" if body.endswith((".", "!", "?")) else "."
    solution = _svamp_solution(row, answer)
    return Problem(problem_id, f"{body}{end} {question}", solution, answer)


def _svamp_solution(row: Row, answer: str) -> str:
    """``( 76.0 - 25.0 )`` -> ``76 - 25 = <<76-25=51>>51`` and the ``####`` line.

    Only that line where the equation is no calculation (``8.0``) or does not give the published
    answer (row 679 of the published file): a wrong step is worse than none.
    """
    equation = _text(row, "Equation")
    try:
        spaced = format_expression(parse_expression(equation))
    except ValueError as error:
        raise UserError(f"{row.where}: field 'Equation': {error}; {_MEND}") from None
    compact = spaced.replace(" ", "")
    if " " not in spaced or not check_annotation(Annotation(compact, answer, 0, 0)):
        return f"#### {answer}"
    return f"{spaced} = <<{compact}={answer}>>{answer}\n#### {answer}"


def multiarith_problem(row: Row, problem_id: str) -> Problem:
    """Of MultiArith, which has answers and no solutions."""
    # The file of the PAL project says input and target, the hub's version the latter names.
    question, answer = _text(row, "input", "question").strip(), _number(row, "target", "final_ans")
    return Problem(problem_id, question, f"#### {answer}", answer)
