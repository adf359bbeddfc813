"""Generate, extract, score: three steps, with one record kept for every problem."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hbd3lm.data.answers import (
    flexible_answer,
    normalize_number,
    same_answer,
    strict_answer,
)
from hbd3lm.data.encoding import Caps, encode_examples
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.tokenizer import ProblemTokenizer
from hbd3lm.errors import UserError
from hbd3lm.evaluate.trajectories import Trajectory, describe_trajectory
from hbd3lm.model.layout import Layout
from hbd3lm.model.transformer import Transformer
from hbd3lm.plans.quality import analyze_examples
from hbd3lm.sample.decoder import Decoder, Prompt, Sample, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig
from hbd3lm.sample.trajectory import Event

MODES = ("full", "plan_only", "exec_only")


@dataclass(frozen=True)
class Generation:
    """Texts sampled for one problem; a segment that was not sampled is None."""

    plan: str | None
    execution: str | None
    evaluations: int
    ended: dict[str, bool]
    trajectory: Trajectory | None = None


@dataclass(frozen=True)
class GenerationRun:
    """All generations and what they cost."""

    generations: list[Generation]
    seconds: float
    tokens: int
    passes: int
    evaluations: int

    def speed(self) -> dict[str, float]:
        """Tokens (text, without fill) and problems per second, network evaluations."""
        n = len(self.generations)
        return {
            "seconds": self.seconds,
            "problems_per_second": n / self.seconds,
            "tokens_per_second": self.tokens / self.seconds,
            "tokens_per_problem": self.tokens / n,
            "network_evaluations_per_problem": self.evaluations / n,
            "network_evaluations_per_token": self.evaluations / max(1, self.tokens),
            "batched_network_passes": self.passes,
        }


def generate(
    net: Transformer,
    layout: Layout,
    tokenizer: ProblemTokenizer,
    examples: Sequence[HierarchicalExample],
    config: SamplingConfig,
    mode: str = "full",
    autoregressive: bool = False,
    on_done: Callable[[Sample], None] | None = None,
    on_event: Callable[[int, Event], None] | None = None,
) -> GenerationRun:
    """Sample plans and executions for the questions of ``examples``.

    Args:
        mode: ``full``; ``plan_only``; ``exec_only`` (follows each example's own plan).
        on_done: called with each finished :class:`Sample`.
        on_event: called with an example's index and what a pass decided for it, as it happens.

    Raises:
        UserError: unknown mode, or one that needs a plan with a model that has none.
    """
    if mode not in MODES:
        raise UserError(f"sampling.mode={mode}: choose one of {', '.join(MODES)}")
    if mode != "full" and not layout.has_plan:
        raise UserError(f"sampling.mode={mode}: this model writes no plans; use sampling.mode=full")
    caps = {segment.name: segment.max_len for segment in layout.segments}
    encoded, truncation = encode_examples(
        examples,
        tokenizer,
        Caps(**({"plan": 1, "execution": 1} | caps), question=layout.question_len),
    )
    # Of what the model reads; gold segments that it does not read may be as long as they like.
    read = ("question", "plan") if mode == "exec_only" else ("question",)
    truncation.cut = {name: truncation.cut[name] for name in read}
    if truncation:
        print(f"truncated: {truncation}")
    prompts = [
        Prompt(i, item.question, {"plan": item.plan} if mode == "exec_only" else {})
        for i, item in enumerate(encoded)
    ]
    ids = SpecialIds(tokenizer.mask_id, tokenizer.fill_id, tokenizer.end_ids)
    decoder = Decoder(net, layout, ids, config, autoregressive)
    started = time.perf_counter()
    stop = "plan" if mode == "plan_only" else None
    samples = decoder.sample(prompts, stop_after=stop, on_done=on_done, on_event=on_event)
    seconds = time.perf_counter() - started
    return GenerationRun(
        [_to_text(sample, tokenizer) for sample in samples],
        seconds,
        sum(len(ids) for sample in samples for ids in sample.segments.values()),
        decoder.statistics.passes,
        sum(sample.evaluations for sample in samples),
    )


def _to_text(sample: Sample, tokenizer: ProblemTokenizer) -> Generation:
    texts = {name: tokenizer.decode(ids) for name, ids in sample.segments.items()}
    trajectory = sample.trajectory and describe_trajectory(sample.trajectory, tokenizer)
    return Generation(
        texts.get("plan"),
        texts.get("execution"),
        sample.evaluations,
        dict(sample.ended),
        trajectory,
    )


def check_gold_answers(examples: Sequence[HierarchicalExample]) -> None:
    """Refuse, before anything is sampled, examples that cannot be scored.

    Raises:
        UserError: an ``answer_numerical`` is not a number.
    """
    for example in examples:
        try:
            normalize_number(example.answer_numerical)
        except ValueError:
            raise UserError(
                f"record {example.id!r}: answer_numerical is {example.answer_numerical!r}, not a "
                "number; correct it, or use sampling.mode=plan_only"
            ) from None


def make_records(
    examples: Sequence[HierarchicalExample], run: GenerationRun, mode: str
) -> list[dict]:
    """One JSON-ready record per problem.

    The five fields of :class:`HierarchicalExample` hold what the model wrote (and the gold answer),
    so that ``analyze_gsm8k_plans.py`` reads a file of them; the gold texts stand beside. A segment
    that was not sampled (the plan of ``exec_only``, the execution of ``plan_only``) is the gold
    one, and an execution that was not sampled or has no gold answer is not scored: None.
    """
    records = []
    for example, generation in zip(examples, run.generations):
        plan = example.plan if mode == "exec_only" else (generation.plan or "")
        gold = example.answer_numerical
        scored = bool(gold) and mode != "plan_only"
        if mode == "plan_only":
            execution, answers = example.execution, {"strict": None, "flexible": None}
        else:
            execution = generation.execution or ""
            answers = {"strict": strict_answer(execution), "flexible": flexible_answer(execution)}
        records.append(
            {
                "id": example.id,
                "question": example.question,
                "plan": plan,
                "execution": execution,
                "answer_numerical": gold,
                "gold_plan": example.plan,
                "gold_execution": example.execution,
                **{f"predicted_{kind}": answer for kind, answer in answers.items()},
                **{
                    f"correct_{kind}": same_answer(answer, gold) if scored else None
                    for kind, answer in answers.items()
                },
                "ended": generation.ended,
                "network_evaluations": generation.evaluations,
            }
        )
    return records


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson, 1927)."""
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def score_records(records: Sequence[dict], mode: str) -> dict:
    """Accuracy by both extractions and the abstraction of the model's own plans, JSON-ready."""
    n = len(records)
    result: dict = {"problems": n}
    if mode != "plan_only":
        for kind in ("strict", "flexible"):
            correct = sum(record[f"correct_{kind}"] for record in records)
            low, high = wilson_interval(correct, n)
            result[f"accuracy_{kind}"] = {
                "correct": correct,
                "value": correct / n,
                "low": low,
                "high": high,
            }
        result["no_answer_line"] = sum(record["predicted_strict"] is None for record in records)
    if mode != "exec_only" and any("plan" in record["ended"] for record in records):
        examples = [
            HierarchicalExample(*(record[name] for name in HierarchicalExample.__slots__))
            for record in records
        ]
        result["plan_quality"] = analyze_examples(examples).to_dict()
    return result
