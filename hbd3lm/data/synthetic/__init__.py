"""Embedded problems: multi-step word problems in GSM8K's own format, without end and offline.

``generate_problems`` first draws the abstract problem (events and numbers, :mod:`.story`) and
then puts it into words (:mod:`.wording`); what an event is stands in :mod:`.events`, which
there are in :mod:`.openings` and :mod:`.sequels`.
"""

from hbd3lm.data.synthetic.generate import MAX_STEPS, SPLITS, generate_problems

__all__ = ["MAX_STEPS", "SPLITS", "generate_problems"]
