"""What a language-model engine is: requests go in one by one, completions come out as they end.

The loop above (:mod:`hbd3lm.plans.ask`) keeps a bounded number of requests in flight, judges
each completion at once, journals it or asks again. An engine knows nothing of plans, and the loop
nothing of vLLM, servers or threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

Message = dict[str, str]
"""``{"role": "system" | "user" | "assistant", "content": ...}``, as every chat API takes it."""


@dataclass(frozen=True)
class Request:
    """One chat to be continued.

    Attributes:
        key: comes back with the completion; unique among the requests in flight.
        messages: the chat; the model's own template turns it into tokens.
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1].
        max_tokens: longest answer, in tokens of the model.
        seed: of this request alone, so that a plan does not depend on who shared its batch
            (up to the rounding of batched arithmetic).
    """

    key: str
    messages: tuple[Message, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """What the model answered.

    Attributes:
        key: of the request.
        text: as the model wrote it, special tokens left out.
        finished: False if ``max_tokens`` (or the context) cut it off.
        prompt_tokens, completion_tokens: None where the engine does not say.
        error: why this request, and this one only, has no answer (a prompt longer than the
            context, content refused by a server); ``text`` is empty then. What stops the whole
            run (no such model, a server that stays away) is raised as ``UserError`` instead.
    """

    key: str
    text: str
    finished: bool = True
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


@runtime_checkable
class Engine(Protocol):
    """A model that is loaded, or a server that answers."""

    name: str
    constrained: bool
    """Whether decoding is held to plans: two to four sentences without a digit."""

    def submit(self, request: Request) -> None:
        """Take a request; does not wait for its answer."""

    def poll(self) -> list[Completion]:
        """Wait until at least one submitted request has ended; all that have.

        Raises:
            UserError: the engine cannot go on; what was in flight is lost, what was returned
                before is not.
        """

    def describe(self) -> dict[str, Any]:
        """Model, revision, engine and library versions, for the manifest; no secrets."""

    def close(self) -> None:
        """Give memory and connections back."""
