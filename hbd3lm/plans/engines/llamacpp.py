"""The ``llamacpp`` engine: any GGUF file, in this process, on a laptop.

``xllamacpp`` is llama.cpp's own server as a library: several slots share each step, the model's
template (in the GGUF file) makes the prompt, and a grammar can hold the answer.
"""

from __future__ import annotations

import os
from typing import Any

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Request
from hbd3lm.plans.engines.loading import (
    check_gguf,
    check_positive,
    import_engine,
    model_fingerprint,
    pick_constrained,
    reason,
)
from hbd3lm.plans.engines.shape import CONSTRAINED_BY_DEFAULT, plan_grammar
from hbd3lm.plans.engines.workers import Workers

_RANDOM_SEED = 2**32 - 1  # llama.cpp's word for "another one each time"


class LlamaCppEngine:
    """A GGUF model.

    Args:
        model: path of the file.
        max_model_len: longest prompt and answer together, in tokens; memory for ``slots`` times
            as many is taken at once.
        threads: of the computation. None: ``OMP_NUM_THREADS``, or llama.cpp's own choice. More
            than there are idle cores makes it many times slower.
        seed: only told in :meth:`describe`; each request brings its own.
        constrained: "on" holds decoding to :mod:`hbd3lm.plans.engines.shape`; so does "auto".
        max_in_flight: requests the caller keeps in flight; those beyond ``slots`` wait in line.
        slots: requests that share a step. On a CPU more gain little and take memory.

    Raises:
        UserError: xllamacpp is not installed, or ``model`` is not a GGUF file with a chat
            template, or llama.cpp cannot load it.
    """

    name = "llamacpp"

    def __init__(
        self,
        model: str,
        max_model_len: int = 4096,
        threads: int | None = None,
        seed: int = 0,
        constrained: str = "auto",
        max_in_flight: int = 256,
        slots: int = 8,
    ) -> None:
        self.constrained = pick_constrained(constrained, CONSTRAINED_BY_DEFAULT)
        check_positive(
            max_model_len=max_model_len, threads=threads, max_in_flight=max_in_flight, slots=slots
        )
        xllamacpp = import_engine("xllamacpp", "llamacpp")
        path = check_gguf(model)
        slots = min(slots, max_in_flight)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_parallel = slots
        parameters.n_ctx = max_model_len * slots
        parameters.warmup = False
        parameters.verbosity = 0
        threads = threads or int(os.environ.get("OMP_NUM_THREADS") or 0) or None
        if threads is not None:
            parameters.cpuparams.n_threads = threads
            parameters.cpuparams_batch.n_threads = threads
        try:
            self._server = xllamacpp.Server(parameters)
        except Exception as error:  # C++ exceptions arrive as whatever fits
            raise UserError(
                f"--model: llama.cpp cannot load {model}: {reason(error)}; check that the file is "
                "whole and that memory suffices, or lower --max_model_len"
            ) from error
        self._shape: dict[str, Any] = {}
        if self.constrained:
            # The bias forbids the lone blank; see hbd3lm.plans.engines.shape.lone_spaces.
            self._shape = {"grammar": plan_grammar(), "logit_bias": [[" ", False]]}
        self._described = {
            "engine": self.name,
            "model": str(model),
            "fingerprint": model_fingerprint(path),
            "max_model_len": max_model_len,
            "slots": slots,
            "seed": seed,
            "constrained": self.constrained,
            "versions": {"xllamacpp": xllamacpp.__version__},
        }
        self._workers = Workers(self._answer, slots)

    def submit(self, request: Request) -> None:
        self._workers.submit(request)

    def poll(self) -> list[Completion]:
        return self._workers.take()

    def describe(self) -> dict[str, Any]:
        return dict(self._described)

    def close(self) -> None:
        self._workers.close(wait=True)  # a call that is going uses the server
        self._server = None

    def _answer(self, request: Request) -> Completion:
        answer = self._server.handle_chat_completions(
            {
                "messages": [dict(message) for message in request.messages],
                "max_tokens": request.max_tokens,
                "temperature": request.temperature,
                "top_p": request.top_p,
                # llama.cpp's defaults would cut the distribution further than was asked.
                "top_k": 0,
                "min_p": 0.0,
                "seed": request.seed % _RANDOM_SEED,
                **self._shape,
            }
        )
        if "error" in answer:
            return Completion(request.key, "", error=str(answer["error"].get("message")))
        choice, usage = answer["choices"][0], answer.get("usage", {})
        return Completion(
            request.key,
            choice["message"].get("content") or "",
            finished=choice["finish_reason"] == "stop",
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
        )
