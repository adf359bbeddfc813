"""The ``vllm`` planner: plans written by a chat model, offline, in large batches.

vLLM is an optional extra and heavy, so it is imported when a planner is built, not before.
"""

from __future__ import annotations

from collections.abc import Sequence

from hbd3lm.data.records import Problem
from hbd3lm.errors import UserError
from hbd3lm.plans.prompt import clean_plan, plan_messages


class VLLMPlanner:
    """Asks ``model`` for plans through :meth:`vllm.LLM.chat` (the model's own chat template).

    Args:
        model: hub name or local directory of an instruction-tuned model.
        temperature: 0 is greedy.
        top_p: nucleus, in (0, 1].
        max_tokens: longest plan, in tokens of the model.
        tensor_parallel_size: how many GPUs share one copy of the model.
        seed: of sampling; the same seed, model and batch give the same plans.

    Raises:
        UserError: vLLM is not installed, or it cannot load ``model``.
    """

    name = "vllm"

    def __init__(
        self,
        model: str,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_tokens: int = 256,
        tensor_parallel_size: int = 1,
        seed: int = 0,
    ) -> None:
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise UserError(
                "--model needs vLLM: pip install 'hbd3lm[vllm]' (or -e '.[vllm]'); without it use "
                f"--planner rules or --planner socratic, which need nothing ({error})"
            ) from None
        self._sampling = SamplingParams(
            temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed
        )
        try:
            self._llm = LLM(model=model, tensor_parallel_size=tensor_parallel_size, seed=seed)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"--model: vLLM cannot load {model!r}: {reason}; give a local directory or a hub "
                "name this machine can reach, and check --tensor_parallel_size"
            ) from error

    def plan(self, problems: Sequence[Problem]) -> list[str]:
        """One plan a problem, as the model wrote it (empty if it wrote none)."""
        chats = [plan_messages(problem) for problem in problems]
        answers = self._llm.chat(chats, sampling_params=self._sampling, use_tqdm=False)
        return [clean_plan(answer.outputs[0].text) for answer in answers]
