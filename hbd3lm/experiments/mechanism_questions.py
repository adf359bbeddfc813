"""Experiment 4, second question: what becomes of plans when the question is changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hbd3lm.experiments.mechanism import (
    CHANGES,
    OWN,
    Arm,
    Likeness,
    Material,
    likeness,
    unlike,
    verdicts,
)
from hbd3lm.experiments.results import Column, Table
from hbd3lm.experiments.statistics import accuracy_estimate, mean_estimate, paired_estimate


class InvarianceRow:
    """Plans for one change of the questions, beside those for the original questions."""

    def __init__(self, pairs: Sequence[Mapping[str, Likeness]]) -> None:
        self.ids = list(pairs[0])
        one = [[found[i] for i in self.ids] for found in pairs]
        self.identical = np.array([[x.identical for x in row] for row in one], dtype=float)
        self.similarity = np.array([[x.similarity for x in row] for row in one])
        self.operations = np.array([[x.operations for x in row] for row in one], dtype=float)
        self.before = self.after = None


def invariance_rows(models: Arm, material: Material) -> dict[str, InvarianceRow]:
    """A row a change that could be made, and ``problem``: beside plans for other problems."""
    rows = {}
    for change in CHANGES:
        if not material.questions[change]:
            continue
        row = rows[change] = InvarianceRow([likeness(m, change, material.names) for m in models])
        if change != "nothing":
            row.before = verdicts(models, OWN, row.ids, "correct_strict")
            row.after = np.array(
                [[m.asked[change][i]["correct_strict"] for i in row.ids] for m in models],
                dtype=float,
            )
    rows["problem"] = InvarianceRow([unlike(m, material) for m in models])
    return rows


def invariance_table(
    invariance: Mapping[str, Mapping[str, InvarianceRow]], total: int, material: Material
) -> Table:
    """A row an arm and change: how alike plans stay; ``total``: all problems, changed or not."""
    refused = ", ".join(f"{reason} {n}" for reason, n in sorted(material.refused.items()))
    done = len(material.questions["numbers"])
    return Table(
        "invariance",
        "Plans for questions that were changed, beside the plans for the original ones",
        [
            Column("model"),
            Column("changed"),
            Column("problems", 0),
            Column("plans identical", "share"),
            Column("similarity of words", 3),
            Column("same operations", "share"),
            Column("right before", "share"),
            Column("right after", "share"),
            Column("after minus before", "share"),
        ],
        [
            [
                arm,
                CHANGES.get(change, "the problem"),
                len(row.ids),
                accuracy_estimate(row.identical),
                mean_estimate(row.similarity),
                accuracy_estimate(row.operations),
                None if row.before is None else accuracy_estimate(row.before),
                None if row.after is None else accuracy_estimate(row.after),
                None if row.before is None else paired_estimate(row.after, row.before),
            ]
            for arm, rows in invariance.items()
            for change, row in rows.items()
        ],
        "The most probable plan each time; names are changed back before comparing. Other numbers "
        f"come through the annotated solutions: {done} of {total} problems could be given some"
        + (f" (not the others: {refused})." if refused else ".")
        + " What the new numbers mean is not read: some are unlikely.",
    )


def invariance_findings(arm: str, rows: Mapping[str, InvarianceRow]) -> list[str]:
    """What other numbers, and other names, in the question do to the plans of one arm."""
    sentences = []
    if "numbers" in rows:
        row = rows["numbers"]
        same, like = accuracy_estimate(row.identical), accuracy_estimate(row.operations)
        sentences.append(
            f"{arm}: with other numbers in the question {same.percent()} of the plans stay the "
            f"same to the letter, {like.percent()} name the same operations."
        )
        loss = paired_estimate(row.after, row.before)
        verdict = "no change of accuracy that can be told from chance"
        if loss.low > 0 or loss.high < 0:
            verdict = "fewer right answers" if loss.value < 0 else "more right answers"
        sentences.append(f"{arm}, other numbers in the question: {verdict} ({loss.percent()}).")
    if "numbers" in rows and "names" in rows:
        a, b = rows["numbers"], rows["names"]
        both = [i for i in a.ids if i in set(b.ids)]
        if len(both) > 1:
            at = [[row.ids.index(i) for i in both] for row in (a, b)]
            gap = paired_estimate(a.identical[:, at[0]], b.identical[:, at[1]])
            verdict = "change plans as often as other names, as far as can be told"
            if gap.low > 0 or gap.high < 0:
                than = "less" if gap.value > 0 else "more"
                verdict = f"change plans {than} often than other names do"
            sentences.append(
                f"{arm}: other numbers {verdict} "
                f"(plans kept, numbers minus names: {gap.percent()})."
            )
    return sentences
