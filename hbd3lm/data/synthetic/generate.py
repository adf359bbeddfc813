"""``generate_problems``: the embedded problems by split, seed and number of steps."""

from __future__ import annotations

from hbd3lm.data.records import Problem
from hbd3lm.data.synthetic.chance import Chance
from hbd3lm.data.synthetic.story import draw_story, is_test
from hbd3lm.data.synthetic.wording import write_story
from hbd3lm.errors import UserError

SPLITS = ("train", "test")
MAX_STEPS = 6
MOST = 3_000_000
"""Problems at a time; so many take half an hour and gigabytes."""


def generate_problems(
    split: str, count: int, seed: int = 0, min_steps: int = 1, max_steps: int = MAX_STEPS
) -> list[Problem]:
    """``count`` word problems with ``min_steps`` to ``max_steps`` calculations each.

    Problem i depends on (split, seed, i, min_steps, max_steps) alone, not on ``count`` nor on the
    machine. Train and test share no abstract problem (events and numbers), whatever the seeds.

    Returns:
        Problems with the ids ``embedded_train_0`` ..., GSM8K's solution format, one sub-question
        a step, and answers that are whole numbers or, for money, whole cents.

    Raises:
        UserError: unknown split, a count out of 0 to ``MOST``, or steps out of 1 to 6.
    """
    if split not in SPLITS:
        raise UserError(f"embedded problems have no split {split!r}; choose train or test")
    if count < 0:
        raise UserError(f"embedded problems: the number asked for is {count}; it must be 0 or more")
    if count > MOST:
        raise UserError(
            f"embedded problems: {count:,} were asked for; at most {MOST:,} are generated at a time"
        )
    if not 1 <= min_steps <= max_steps <= MAX_STEPS:
        raise UserError(
            f"embedded problems: min_steps={min_steps}, max_steps={max_steps}; "
            f"needed: 1 <= min_steps <= max_steps <= {MAX_STEPS}"
        )
    return [_generate(split, index, seed, min_steps, max_steps) for index in range(count)]


def _generate(split: str, index: int, seed: int, min_steps: int, max_steps: int) -> Problem:
    chance = Chance(split, seed, index, min_steps, max_steps)
    steps = chance.int(min_steps, max_steps)  # once, so that all lengths are equally frequent
    while True:
        story = draw_story(chance, steps)
        if story is not None and is_test(story) == (split == "test"):
            break
    question, solution, subquestions = write_story(chance, story)
    answer = solution.rpartition("#### ")[2]
    return Problem(f"embedded_{split}_{index}", question, solution, answer, subquestions)
