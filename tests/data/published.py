"""Small stand-ins for the published data sets: a record of each, and files that hold them."""

from __future__ import annotations

import json

from hbd3lm.data.sources import load_problems

MAIN = {
    "question": "How many clips?",
    "answer": "In May 48/2 = <<48/2=24>>24.\nIn all 48+24 = <<48+24=72>>72.\n#### 72",
}
SOCRATIC = {
    "question": "How many clips?",
    "answer": "How many in May? ** In May 48/2 = <<48/2=24>>24.\n"
    "How many in all? ** In all 48+24 = <<48+24=72>>72.\n#### 72",
}
SVAMP = {
    "ID": "chal-1",
    "Body": "Each pack costs 76 dollars. There is a discount of 25 dollars",
    "Question": "How much is a pack?",
    "Equation": "( 76.0 - 25.0 )",
    "Answer": 51.0,
    "Type": "Subtraction",
}
MULTIARITH = {"input": "Debby had 32, ate 35 of 42 more. How many?", "target": 39}


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_svamp(folder, row=SVAMP, index=0):
    rows = [dict(SVAMP) for _ in range(1000)]
    rows[index] = row
    (folder / "svamp.json").write_text(json.dumps(rows), encoding="utf-8")


def only_problem(*arguments, **options):
    (problem,) = load_problems(*arguments, **options).problems
    return problem
