"""How a sample came about: what each network pass decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One network pass in which tokens of one problem were decided.

    Attributes:
        segment: name of the segment being written.
        block: block of that segment, from 0.
        step: denoising step of that block, from 1; ``ancestral`` passes over steps that reveal
            nothing, so steps may be missing.
        positions: of the decided tokens in the segment, ascending.
        ids: their token ids.
        confidence: the probability each was given.
        evaluations: network passes this problem has taken part in, this one included.
        commits: whether the same pass put the block before this one (the question, for the first)
            into the cache with the keys and values of its clean tokens.
    """

    segment: str
    block: int
    step: int
    positions: tuple[int, ...]
    ids: tuple[int, ...]
    confidence: tuple[float, ...]
    evaluations: int
    commits: bool


def written_tokens(events: Iterable[Event]) -> dict[str, list[int | None]]:
    """All tokens of each segment in order, fill and what follows an end token included.

    A position that no event has decided yet (events of a sample under way) is None.
    """
    segments: dict[str, list[int | None]] = {}
    for event in events:
        tokens = segments.setdefault(event.segment, [])
        tokens += [None] * (event.positions[-1] + 1 - len(tokens))
        for position, token in zip(event.positions, event.ids):
            tokens[position] = token
    return segments
