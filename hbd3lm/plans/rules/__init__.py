"""The ``rules`` planner: an abstract plan read off an annotated solution.

    Natalia sold 48/2 = <<48/2=24>>24 clips in May.
    Natalia sold 48+24 = <<48+24=72>>72 clips altogether in April and May.

becomes

    First, take the given fraction of the given friends to find how many clips Natalia sold in
    May. Finally, add the given friends and the previous result to find the answer: how many
    clips Natalia sold altogether in April and May.

Each equation of the solution (:mod:`.equations`) is one step (:mod:`.steps`). *What to do* comes
from its expression tree (:mod:`.expressions`, told by :mod:`.operations`), every operand being
named by where its value comes from (:mod:`.names`: the question (:mod:`.givens`), an earlier
result, common knowledge). *What for* comes from the words of the solution line around the equation
(:mod:`.purpose`): "S sold ... clips in May" finds "how many clips S sold in May"; "the total cost
is ..." finds "the total cost". :mod:`.sentences` puts both together. No digits and no spelled-out
numbers come through (:mod:`hbd3lm.plans.wording`).
"""
