"""The ``openai`` engine: any server that speaks OpenAI's chat API, near or far.

The ``openai`` package sends the requests and repeats those that met a busy or failing server (429,
5xx, timeouts, broken connections), waiting longer each time or as long as the server asks. What it
takes for an answer although it is none (cut or garbled JSON, no choices) is repeated here.

The key is read from the environment and goes nowhere but into the request's header: every message
and description of this module passes :meth:`OpenAIEngine._scrub`.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any
from urllib.parse import urlsplit

from hbd3lm.errors import UserError, some_of
from hbd3lm.plans.engines.engine import Completion, Request
from hbd3lm.plans.engines.loading import check_positive, import_engine, pick_constrained, reason
from hbd3lm.plans.engines.shape import CONSTRAINED_BY_DEFAULT, plan_grammar, plan_regex
from hbd3lm.plans.engines.workers import Workers

_DEFAULT_KEY = "OPENAI_API_KEY"
_NO_KEY = "none"  # local servers ask for none, but the client insists on having one
_GARBLED = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError)
_GIVE_UP = 8
"""Requests in a row that failed for good before the server counts as gone."""
_STRUCTURED_SINCE = (0, 12)  # vLLM: `structured_outputs`; before it `guided_regex`


class OpenAIEngine:
    """A server at ``base_url``.

    Args:
        base_url: with the version, such as ``http://localhost:8000/v1``.
        model: the name the server knows it by. None: the only one it has.
        api_key_env: environment variable with the key; a server of one's own needs none.
        timeout: seconds to wait for an answer, queueing in the server included.
        max_retries: of a request that failed for a reason that may pass.
        max_in_flight: requests sent at once.
        constrained: "on" holds decoding to :mod:`hbd3lm.plans.engines.shape` where the server
            is vLLM or llama.cpp, and is refused elsewhere; "auto" does so where it can.

    Raises:
        UserError: the package is missing, the server does not answer or refuses the key, or has
            no such model, or several and none was named.
    """

    name = "openai"

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        api_key_env: str = _DEFAULT_KEY,
        timeout: float = 300.0,
        max_retries: int = 5,
        max_in_flight: int = 64,
        constrained: str = "auto",
    ) -> None:
        pick_constrained(constrained, CONSTRAINED_BY_DEFAULT)
        check_positive(max_in_flight=max_in_flight)
        self._openai = import_engine("openai", "openai")
        self._key = os.environ.get(api_key_env, "").strip()
        if not self._key and api_key_env != _DEFAULT_KEY:
            raise UserError(f"--api_key_env {api_key_env}: there is no such environment variable")
        self._key_env = api_key_env
        self._base_url = self._check_url(base_url)
        self._retries = max_retries
        self._client = self._openai.OpenAI(
            base_url=base_url,
            api_key=self._key or _NO_KEY,
            timeout=timeout,
            max_retries=max_retries,
        )
        self._limit = "max_tokens"
        known = self._list_models()
        self._model = model or self._only(known)
        if model and known and model not in known:
            raise UserError(
                f"--model {model}: {self._base_url} has no such model; "
                f"it has {some_of(list(known))}"
            )
        self._server, version = self._recognise(known.get(self._model, ""))
        can = self._server is not None
        self.constrained = pick_constrained(constrained, can and CONSTRAINED_BY_DEFAULT)
        self._shape = self._constraint(version) if self.constrained else {}
        self._described = {
            "engine": self.name,
            "model": self._model,
            "base_url": self._base_url,
            "server": f"{self._server or 'unknown'} {version}".strip(),
            "constrained": self.constrained,
            "versions": {"openai": self._openai.__version__},
        }
        self._workers = Workers(self._answer, max_in_flight)
        self._answered = False
        self._held: list[Completion] = []  # failures since the last answer

    def submit(self, request: Request) -> None:
        self._workers.submit(request)

    def poll(self) -> list[Completion]:
        while self._workers.pending:
            done = self._workers.take()
            good = [completion for completion in done if completion.error is None]
            self._held += [completion for completion in done if completion.error is not None]
            self._answered |= bool(good)
            if good:
                held, self._held = self._held, []
                return good + held
            # One request that fails is its own fault; many in a row, or all, are the server's.
            if len(self._held) >= _GIVE_UP or not (self._answered or self._workers.pending):
                raise UserError(
                    f"{self._base_url} answers none of the last {len(self._held)} requests: "
                    f"{self._held[-1].error}; look at the server's log and at --model; the same "
                    "command goes on where this run stopped"
                )
        held, self._held = self._held, []
        return held

    def describe(self) -> dict[str, Any]:
        return dict(self._described)

    def close(self) -> None:
        self._workers.close()
        self._client.close()

    # --- one request ---------------------------------------------------------------------------

    def _answer(self, request: Request) -> Completion:
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(min(8.0, 0.5 * 2 ** (attempt - 1)))
            try:
                return self._read(request.key, self._send(request))
            except _GARBLED as error:
                garbled = f"no chat completion in its answer ({type(error).__name__}: {error})"
            except self._openai.APIStatusError as error:
                return Completion(request.key, "", error=self._judge(error))
            except self._openai.APITimeoutError:
                return Completion(request.key, "", error=f"no answer within {self._waits()}")
            except self._openai.APIConnectionError as error:
                refused = isinstance(_root(error), ConnectionRefusedError)
                told = self._scrub(reason(_root(error)))
                if refused:
                    raise self._gone(told) from None
                return Completion(request.key, "", error=f"the connection broke: {told}")
        return Completion(request.key, "", error=self._scrub(garbled)[:300])

    def _send(self, request: Request) -> bytes:
        create = self._client.chat.completions.with_raw_response.create
        asked: dict[str, Any] = {
            "model": self._model,
            "messages": [dict(message) for message in request.messages],
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "extra_body": self._shape,
        }
        limit = self._limit
        try:
            return create(**asked, **{limit: request.max_tokens}).http_response.content
        except self._openai.BadRequestError as error:
            # OpenAI's own newer models know the limit by another name only.
            other = "max_completion_tokens"
            if limit == other or other not in str(error):
                raise
            self._limit = other
            return create(**asked, **{other: request.max_tokens}).http_response.content

    def _read(self, key: str, body: bytes) -> Completion:
        """The completion in ``body``; raises what parsing raises if there is none."""
        answer = json.loads(body)
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        text = choice["message"].get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is not text")
        why = choice.get("finish_reason")
        if why == "content_filter":
            return Completion(key, "", error="the server's content filter stopped the answer")
        return Completion(
            key,
            text,
            finished=why != "length",
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )

    # --- what goes wrong -----------------------------------------------------------------------

    def _judge(self, error: Any) -> str:
        """Why the server refused one request; raises if it will refuse all of them."""
        told, status = self._scrub(_told(error)), error.status_code
        if status in (401, 403):
            given = "the key in" if self._key else "no key; set"
            raise UserError(
                f"{self._base_url} refuses {given} {self._key_env} (status {status}): {told}"
            )
        if status == 404:
            raise UserError(
                f"{self._base_url} knows no such address or model (status 404): {told}; check "
                "--base_url, which usually ends in /v1, and --model"
            )
        return f"status {status}: {told}"

    def _gone(self, why: str) -> UserError:
        return UserError(
            f"--base_url {self._base_url}: the server cannot be reached ({why}); start it or "
            "correct the address; the same command goes on where this run stopped"
        )

    def _scrub(self, text: str) -> str:
        if self._key:
            text = text.replace(self._key, "***")
        # Servers may repeat a part of the key, as OpenAI's does.
        return re.sub(r"\bsk-[\w*-]+", "***", text)

    def _waits(self) -> str:
        return f"{self._client.timeout:g} s, {self._retries + 1} times"

    # --- the server ----------------------------------------------------------------------------

    def _check_url(self, base_url: str) -> str:
        parts = urlsplit(base_url)
        if parts.username or parts.password:
            raise UserError(
                "--base_url holds a user name or password, and addresses end up in logs; put "
                f"the key into the environment variable {self._key_env}"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"--base_url {base_url!r}: an address such as http://localhost:8000/v1 is needed"
            )
        return base_url.rstrip("/")

    def _list_models(self) -> dict[str, str]:
        """Name -> owner of the models the server has; empty if it does not say."""
        try:
            body = self._client.models.with_raw_response.list().http_response.content
            return {entry["id"]: str(entry.get("owned_by")) for entry in json.loads(body)["data"]}
        except _GARBLED:
            return {}
        except self._openai.APIStatusError as error:
            if error.status_code in (404, 405, 501):  # a server without a list
                return {}
            raise UserError(f"--base_url {self._base_url}: {self._judge(error)}") from None
        except self._openai.APIConnectionError as error:
            raise self._gone(self._scrub(reason(_root(error)))) from None

    def _only(self, known: dict[str, str]) -> str:
        if len(known) == 1:
            return next(iter(known))
        has = f"has {some_of(list(known))}" if known else "does not say what it has"
        raise UserError(f"--model is needed: {self._base_url} {has}; name one")

    def _recognise(self, owner: str) -> tuple[str | None, str]:
        """("vllm" | "llamacpp" | None, version)."""
        if owner not in ("vllm", "llamacpp"):
            return None, ""
        if owner == "llamacpp":
            return owner, ""
        root = self._base_url.removesuffix("/v1")
        try:
            return owner, str(self._client.get(f"{root}/version", cast_to=object)["version"])
        except (self._openai.OpenAIError, ValueError, TypeError, KeyError):
            return owner, ""

    def _blanks(self) -> list[int]:
        """The token that is a blank, as vLLM's server cuts it; none if it does not tell."""
        address = f"{self._base_url.removesuffix('/v1')}/tokenize"
        asked = {"model": self._model, "prompt": " ", "add_special_tokens": False}
        try:
            tokens = self._client.post(address, body=asked, cast_to=object)["tokens"]
        except (self._openai.OpenAIError, ValueError, TypeError, KeyError):
            return []
        return tokens if len(tokens) == 1 else []

    def _constraint(self, version: str) -> dict[str, Any]:
        """Fields of a request that constrain its answer and forbid the lone blank; see
        :func:`hbd3lm.plans.engines.shape.lone_spaces`."""
        if self._server == "vllm":
            numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
            bias = dict.fromkeys(map(str, self._blanks()), -100)
            if numbers and numbers < _STRUCTURED_SINCE:
                return {"guided_regex": plan_regex(), "logit_bias": bias}
            return {"structured_outputs": {"regex": plan_regex()}, "logit_bias": bias}
        if self._server == "llamacpp":
            return {"grammar": plan_grammar(), "logit_bias": [[" ", False]]}
        raise UserError(
            f"--constrained on: {self._base_url} is neither vLLM's nor llama.cpp's server, and "
            "others have no common way to constrain an answer; leave it at auto"
        )


def _told(error: Any) -> str:
    """What the server said, without the client's wrapping."""
    body = error.body
    if isinstance(body, dict):
        inner = body.get("error", body)
        message = inner.get("message") if isinstance(inner, dict) else inner
        if message:
            return str(message).strip()[:300]
    return reason(error)


def _root(error: BaseException) -> BaseException:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return error
