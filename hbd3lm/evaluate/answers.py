"""Generate, extract, score: three steps, with one record kept for every problem."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from hbd3lm.data.answers import flexible_answer, same_answer, strict_answer
from hbd3lm.data.encoding import Caps, encode_examples
from hbd3lm.data.records import HierarchicalExample
from hbd3lm.data.tokenizer import ProblemTokenizer
from hbd3lm.errors import UserError
from hbd3lm.model.layout import Layout
from hbd3lm.model.transformer import Transformer
from hbd3lm.plans.quality import analyze_examples
from hbd3lm.sample.decoder import Decoder, Prompt, Sample, SpecialIds
from hbd3lm.sample.strategies import SamplingConfig

MODES = ("full", "plan_only", "exec_only")


@dataclass(frozen=True)
class Generation:
    """Texts sampled for one problem; a segment that was not sampled is None."""

    plan: str | None
    execution: str | None
    evaluations: int
    ended: dict[str, bool]


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
    on_done=None,
) -> GenerationRun:
    """Sample plans and executions for the questions of ``examples``.

    Args:
        mode: ``full``; ``plan_only``; ``exec_only`` (follows each example's own plan).
        on_done: called with each finished :class:`Sample`.

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
    questions_cut = len(truncation.cut["question"])
    if questions_cut:
        print(f"truncated: {questions_cut} questions over {layout.question_len} tokens")
    prompts = [
        Prompt(i, item.question, {"plan": item.plan} if mode == "exec_only" else {})
        for i, item in enumerate(encoded)
    ]
    ids = SpecialIds(tokenizer.mask_id, tokenizer.fill_id, tokenizer.end_ids)
    decoder = Decoder(net, layout, ids, config, autoregressive)
    started = time.perf_counter()
    stop = "plan" if mode == "plan_only" else None
    samples = decoder.sample(prompts, stop_after=stop, on_done=on_done)
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
    return Generation(
        texts.get("plan"), texts.get("execution"), sample.evaluations, dict(sample.ended)
    )


def make_records(
    examples: Sequence[HierarchicalExample], run: GenerationRun, mode: str
) -> list[dict]:
    """One JSON-ready record per problem.

    The five fields of :class:`HierarchicalExample` hold what the model wrote (and the gold answer),
    so that ``analyze_gsm8k_plans.py`` reads a file of them; the gold texts stand beside.
    """
    records = []
    for example, generation in zip(examples, run.generations):
        plan = example.plan if mode == "exec_only" else (generation.plan or "")
        execution = generation.execution or ""
        strict, flexible = strict_answer(execution), flexible_answer(execution)
        gold = example.answer_numerical
        records.append(
            {
                "id": example.id,
                "question": example.question,
                "plan": plan,
                "execution": execution,
                "answer_numerical": gold,
                "gold_plan": example.plan,
                "gold_execution": example.execution,
                "predicted_strict": strict,
                "predicted_flexible": flexible,
                "correct_strict": strict is not None and same_answer(strict, gold),
                "correct_flexible": flexible is not None and same_answer(flexible, gold),
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
