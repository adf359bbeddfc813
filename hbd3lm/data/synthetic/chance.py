"""Random choices that are the same in every process and on every Python version."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Chance:
    """A stream of random choices named by a key.

    Built on ``random.Random.random`` alone: it is the one method whose sequence Python promises
    to keep; the key goes through SHA-256, never through ``hash()``, which differs by process.
    """

    def __init__(self, *key: int | str) -> None:
        digest = hashlib.sha256(repr(key).encode("utf-8")).digest()
        self._random = random.Random(int.from_bytes(digest[:16], "big")).random

    def int(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self._random() * (high - low + 1))

    def pick(self, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[int(self._random() * len(options))]

    def yes(self, probability: float) -> bool:
        """True with this probability."""
        return self._random() < probability
