"""A finished sample again, from the events of its trajectory alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hbd3lm.sample.trajectory import Event, written_tokens


def replay(
    events: Iterable[Event], ends: Mapping[str, int], fill: int
) -> tuple[dict[str, list[int]], dict[str, bool]]:
    """The segments of a finished sample and whether each ended, from its events alone.

    Args:
        ends, fill: special ids, as the sampler was given them.
    """
    segments, ended = {}, {}
    for name, tokens in written_tokens(events).items():
        ended[name] = ends[name] in tokens
        text = tokens[: tokens.index(ends[name])] if ended[name] else tokens
        segments[name] = [token for token in text if token != fill]
    return segments, ended
