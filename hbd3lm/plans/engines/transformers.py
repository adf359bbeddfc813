"""The ``transformers`` engine: any causal model with a chat template, in plain batches.

Slower than the others, and there wherever this package is: transformers is one of its
dependencies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hbd3lm.errors import UserError
from hbd3lm.plans.engines.engine import Completion, Request
from hbd3lm.plans.engines.loading import (
    check_model,
    check_positive,
    import_engine,
    model_fingerprint,
    no_chat_template,
    pick_constrained,
    reason,
)
from hbd3lm.plans.engines.shape import lone_spaces, plan_regex

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class _Waiting:
    """A request, its prompt in tokens, and how many the context leaves for the answer."""

    request: Request
    ids: list[int]
    room: int

    @property
    def manner(self) -> tuple[float, float, int]:
        """Requests of one manner can share a call."""
        return (self.request.temperature, self.request.top_p, self.room)


class TransformersEngine:
    """A model of the transformers library.

    Args:
        model: hub name or local directory of an instruction-tuned model.
        dtype: of the weights, a name of torch's; "auto" is the model's own.
        revision: branch, tag or commit on the hub.
        device: "auto" is the first GPU, or else the CPU.
        seed: only told in :meth:`describe`; each request brings its own.
        constrained: "on" holds decoding to :mod:`hbd3lm.plans.engines.shape` and needs the extra
            ``constrained``; "auto" is off.
        max_in_flight: requests the caller keeps in flight; those beyond ``batch`` wait in line.
        batch: requests that are answered together.

    Raises:
        UserError: the model cannot be found or loaded, or has no chat template.
    """

    name = "transformers"

    def __init__(
        self,
        model: str,
        dtype: str = "auto",
        revision: str | None = None,
        device: str = "auto",
        seed: int = 0,
        constrained: str = "auto",
        max_in_flight: int = 256,
        batch: int = 16,
    ) -> None:
        self.constrained = pick_constrained(constrained, default=False)
        check_positive(max_in_flight=max_in_flight, batch=batch)
        grammars = _import_grammars("xgrammar") if self.constrained else None
        check_model(model, self.name, revision)
        import torch
        import transformers

        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                model, revision=revision, padding_side="left"
            )
            network = transformers.AutoModelForCausalLM.from_pretrained(
                model, revision=revision, dtype=dtype
            )
            self._network = network.to(device).eval()
        except Exception as error:  # a dozen libraries may fail here, each in its way
            raise UserError(
                f"--model: transformers cannot load {model!r}: {reason(error)}; name a folder or "
                "hub id of a causal language model with its tokenizer, and check --dtype and the "
                "memory of the device"
            ) from error
        self._check_template(model)
        own = self._network.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else self._tokenizer.eos_token_id
        self._ends = [ends] if isinstance(ends, int) else list(ends or [])
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.convert_ids_to_tokens(
                self._ends[0] if self._ends else 0
            )
        self._context = getattr(
            self._network.config.get_text_config(), "max_position_embeddings", None
        )
        self._make_masks = None
        if grammars is not None:
            self._make_masks = _mask_maker(grammars, self._tokenizer, self._network)
        self._batch = min(batch, max_in_flight)
        self._waiting: list[_Waiting] = []
        self._refused: list[Completion] = []
        self._described = {
            "engine": self.name,
            "model": model,
            "revision": revision,
            "fingerprint": model_fingerprint(model),
            "dtype": str(self._network.dtype).removeprefix("torch."),
            "device": device,
            "batch": self._batch,
            "seed": seed,
            "constrained": self.constrained,
            "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        }

    def submit(self, request: Request) -> None:
        text = self._write_chat(request.messages)
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        if self._context is not None and len(ids) >= self._context:
            told = f"the prompt has {len(ids)} tokens, the model's context {self._context}"
            self._refused.append(Completion(request.key, "", error=told))
        else:
            room = request.max_tokens
            if self._context is not None:
                room = min(room, self._context - len(ids))
            self._waiting.append(_Waiting(request, ids, room))

    def poll(self) -> list[Completion]:
        done, self._refused = self._refused, []
        if done or not self._waiting:
            return done
        # The oldest request and those that are sampled as it is: one call has one temperature.
        alike = [item for item in self._waiting if item.manner == self._waiting[0].manner]
        together = alike[: self._batch]
        for item in together:
            self._waiting.remove(item)
        return self._generate(together)

    def describe(self) -> dict[str, Any]:
        return dict(self._described)

    def close(self) -> None:
        self._network = self._make_masks = None
        self._waiting.clear()

    def _write_chat(self, messages: Any) -> str:
        return self._tokenizer.apply_chat_template(
            [dict(message) for message in messages], add_generation_prompt=True, tokenize=False
        )

    def _check_template(self, model: str) -> None:
        roles = ("system", "user")
        try:
            self._write_chat([{"role": role, "content": "Hello"} for role in roles])
        except Exception as error:  # templates are programs and raise what they like
            raise no_chat_template(
                model, f"its tokenizer cannot write a chat ({reason(error)})"
            ) from error

    def _generate(self, together: list[_Waiting]) -> list[Completion]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList

        requests = [item.request for item in together]
        # ids and attention mask [requests, longest prompt], padded on the left
        batch = self._tokenizer.pad(
            {"input_ids": [item.ids for item in together]}, return_tensors="pt"
        )
        processors = LogitsProcessorList(self._processors(requests))
        try:
            with torch.inference_mode():
                written = self._network.generate(
                    **batch.to(self._network.device),
                    generation_config=GenerationConfig(
                        max_new_tokens=together[0].room,
                        do_sample=False,  # the processors draw; see _Draw
                        repetition_penalty=1.0,  # or the model's own would slip in
                        eos_token_id=self._ends or None,
                        pad_token_id=self._tokenizer.pad_token_id,
                    ),
                    logits_processor=processors,
                )[:, batch["input_ids"].shape[1] :]
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"--batch_size: {len(requests)} plans at once do not fit into the memory of "
                f"{self._network.device}; lower it ({reason(error)})"
            ) from error
        return [
            self._completion(item.request, item.ids, row.tolist())
            for item, row in zip(together, written)
        ]

    def _processors(self, requests: list[Request]) -> list[Any]:
        from transformers import TemperatureLogitsWarper, TopPLogitsWarper

        found = [] if self._make_masks is None else self._make_masks()
        if requests[0].temperature > 0:
            found.append(TemperatureLogitsWarper(float(requests[0].temperature)))
            if requests[0].top_p < 1:
                found.append(TopPLogitsWarper(requests[0].top_p))
            found.append(_Draw([request.seed for request in requests]))
        return found

    def _completion(self, request: Request, prompt: list[int], row: list[int]) -> Completion:
        end = next((i for i, token in enumerate(row) if token in self._ends), None)
        return Completion(
            request.key,
            self._tokenizer.decode(row[:end], skip_special_tokens=True),
            finished=end is not None,
            prompt_tokens=len(prompt),
            completion_tokens=len(row) if end is None else end + 1,
        )


class _Draw:
    """Turns taking the largest logit into sampling, each row by a seed of its own.

    The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel-max). The
    library's own sampling has one generator for the whole batch, so that a plan would depend on
    who shares it.
    """

    def __init__(self, seeds: list[int]) -> None:
        import torch

        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` [rows, vocabulary] plus noise; minus infinity stays."""
        import torch

        noise = torch.stack(
            [torch.empty(scores.shape[1]).exponential_(generator=g) for g in self._generators]
        )
        return scores.float() - noise.log().to(scores.device)


def _import_grammars(module: str) -> Any:
    return import_engine(module, "constrained", "--constrained on with --planner transformers")


class _SpareBlanks:
    """Forbids the tokens that are a lone blank, except where the grammar leaves nothing else."""

    def __init__(self, blanks: list[int]) -> None:
        self._blanks = blanks

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` [rows, vocabulary], masked already."""
        spared = scores.clone()
        spared[:, self._blanks] = -float("inf")
        stuck = spared.isneginf().all(1)
        spared[stuck] = scores[stuck]
        return spared


def _mask_maker(xgrammar: Any, tokenizer: Any, network: Any) -> Any:
    """A function that makes the logits processors of one batch."""
    vocabulary = network.config.get_text_config().vocab_size
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
    shape = xgrammar.GrammarCompiler(info).compile_regex(plan_regex())
    hf = _import_grammars("xgrammar.contrib.hf")
    blanks = lone_spaces(tokenizer.get_vocab())
    return lambda: [hf.LogitsProcessor(shape), _SpareBlanks(blanks)]
