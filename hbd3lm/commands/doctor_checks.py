"""The checks of ``hbd3lm doctor`` that read: mask, data, tokenizer, memory, disk."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.layout import Layout
    from hbd3lm.train.config import TrainerConfig, TrainingConfig

OK, WARN, FAIL = "ok", "warn", "FAIL"
ROUND_TRIPS = 2_000
"""Problems whose texts are encoded and decoded again."""


@dataclass(frozen=True)
class Finding:
    """The result of a check.

    Attributes:
        status: ``OK``, ``WARN`` or ``FAIL``.
        detail: what was looked at, and what was found.
        remedy: what to change; empty if all is well.
    """

    check: str
    status: str
    detail: str
    remedy: str = ""


# --- mask ---------------------------------------------------------------------------------------


def check_mask(layout: Layout) -> list[Finding]:
    """The rule on this run's layout against brute force; the network against the rule."""
    from hbd3lm.commands import check_mask
    from hbd3lm.model.mask import dense_mask
    from hbd3lm.report.mask_figure import picture_tags

    specs = {segment.name: segment for segment in layout.segments}
    plan, execution = specs.get("plan"), specs["execution"]
    sizes = (
        layout.question_len,
        plan.max_len if plan else 0,
        execution.max_len,
        plan.block_size if plan else 1,
        execution.block_size,
    )
    tags = picture_tags(*sizes)
    wrong = int((dense_mask(tags, tags).numpy() != check_mask.brute_force(*sizes)).sum())
    remedy = "the model is broken: run python test_hierarchical_mask.py, and mend model/mask.py"
    findings = [
        Finding(
            "mask",
            FAIL if wrong else OK,
            f"this run's layout against brute force: {wrong:,} of {len(tags.block) ** 2:,} pairs "
            "of tokens differ",
            remedy if wrong else "",
        )
    ]
    for check in check_mask.CHECKS[1:]:
        result = check()
        if not result.passed:
            findings.append(Finding("mask", FAIL, f"{result.promise} ({result.detail})", remedy))
    return findings


def check_compilation(
    training: TrainingConfig, trainer: TrainerConfig, device: str
) -> list[Finding]:
    """Is the compiled step asked for where it has been seen to work?

    Raises:
        UserError: it does not go with the other settings.
    """
    from hbd3lm.train.compiled import compile_losses

    if not trainer.compile:
        return []
    compile_losses(training, trainer)  # compiles nothing yet
    known = {
        "cpu": "right, but no faster than the plain step where it was measured",
        "cuda": "never run on a GPU by its authors",
    }
    detail = f"trainer.compile=true, mode {trainer.compile_mode}, on {device}: {known[device]}"
    return [Finding("compilation", WARN, detail, "time a short run with and without it")]


# --- data ---------------------------------------------------------------------------------------


def check_examples(
    train: Sequence[HierarchicalExample], valid: Sequence[HierarchicalExample]
) -> Finding:
    """Are there problems, once each, and are held-out ones not trained on?"""
    ids = Counter(example.id for example in train)
    doubled = [name for name, count in ids.items() if count > 1]
    held_out = {normalised(e.question) for e in valid}
    shared = [e.id for e in train if normalised(e.question) in held_out]
    empty = [e.id for e in [*train, *valid] if not (e.question.strip() and e.execution.strip())]
    detail = f"{len(train):,} problems to train on, {len(valid):,} held out"
    for problem, status, what, remedy in (
        (empty, FAIL, "without question or execution", "write the data file anew"),
        (doubled, WARN, "ids more than once", "remove the repeated records of the data file"),
        (shared, WARN, "training questions also held out: validation flatters",
         "remove repeated questions, or give data.valid_path"),
    ):  # fmt: skip
        if problem and len(train) > 1:
            return Finding("data", status, f"{detail}; {counted(problem)} {what}", remedy)
    if len(train) < 100:
        return Finding("data", WARN, detail, "few problems are learnt by heart: use more")
    return Finding("data", OK, detail)


def check_leakage(
    training: Sequence[HierarchicalExample], test: tuple[Sequence, str] | str
) -> Finding:
    """Is any test problem, by id or by question, among the training problems?"""
    if isinstance(test, str):
        return Finding(
            "test problems", WARN, f"not compared: {test}", "give data.test_path or data.dir"
        )
    problems, origin = test
    ids, questions = {p.id for p in problems}, {normalised(p.question) for p in problems}
    leaked = [e.id for e in training if e.id in ids or normalised(e.question) in questions]
    detail = f"{len(problems):,} of {origin} against the training file: {len(leaked)} found in it"
    if leaked:
        remedy = f"remove {counted(leaked)} from data.train_path: scores on them say nothing"
        return Finding("test problems", FAIL, detail, remedy)
    return Finding("test problems", OK, detail)


def read_test_problems(cfg: DictConfig) -> tuple[Sequence, str] | str:
    """The test problems and where they are from, or why there are none."""
    from hbd3lm.data.records import read_examples
    from hbd3lm.data.sources import find_problems

    if cfg.data.test_path:
        return read_examples(cfg.data.test_path, "data.test_path"), cfg.data.test_path
    try:
        loaded = find_problems(cfg.data.name, "test", cfg.data.dir)
    except UserError as error:
        return str(error)
    return loaded.fallback or (loaded.problems, f"{cfg.data.name} test")


def normalised(question: str) -> str:
    """A question without differences of case, space and punctuation."""
    return " ".join(re.findall(r"\w+", question.casefold()))


def check_lengths(
    examples: Sequence[HierarchicalExample], tokenizer: ProblemTokenizer, layout: Layout
) -> Finding:
    """How many problems do the caps cut?"""
    from hbd3lm.data.encoding import Caps
    from hbd3lm.data.lengths import measure_lengths

    caps = {segment.name: segment.max_len for segment in layout.segments}
    block = max(segment.block_size for segment in layout.segments)
    stats = measure_lengths(
        examples, tokenizer, Caps(**({"plan": 10**9} | caps), question=layout.question_len), block
    )
    total = stats.pop("total")
    detail = f"{total.truncated_share:.1%} of the problems cut; tokens, 99th percentile of cap: "
    detail += ", ".join(
        f"{name} {s.p99:.0f} of {s.cap}" for name, s in stats.items() if s.cap < 10**9
    )
    if total.truncated_share <= 0.05:
        return Finding("lengths", OK, detail)
    keys = {"question": "question_len", "plan": "plan_len", "execution": "exec_len"}
    remedy = "set " + " ".join(
        f"training.hierarchical.{keys[name]}={s.recommended}"
        for name, s in stats.items()
        if s.truncated_share > 0.02
    )
    return Finding("lengths", FAIL if total.truncated_share > 0.25 else WARN, detail, remedy)


def check_tokenizer(
    examples: Sequence[HierarchicalExample], tokenizer: ProblemTokenizer, run_dir: Path
) -> Finding:
    """Do all texts come back, and is it the tokenizer this run folder began with?"""
    texts = [
        text for e in examples[:ROUND_TRIPS] for text in (e.question, e.plan, e.execution) if text
    ]
    lost = [t for t, ids in zip(texts, tokenizer.encode_batch(texts)) if tokenizer.decode(ids) != t]
    detail = (
        f"{tokenizer.name}, {tokenizer.vocab_size:,} ids, fingerprint {tokenizer.fingerprint}; "
        f"{len(texts) - len(lost):,} of {len(texts):,} texts come back as they were"
    )
    if lost:
        remedy = f"use tokenizer=gsm or gpt2; lost, for example, {lost[0][:60]!r}"
        return Finding("tokenizer", FAIL, detail, remedy)
    saved = run_dir / "tokenizer" / "tokenizer.json"
    if saved.exists():
        from hbd3lm.data.tokenizer import load_tokenizer

        before = load_tokenizer(saved.parent).fingerprint
        if before != tokenizer.fingerprint:
            remedy = f"the run in {run_dir} began with {before}: choose another run_dir"
            return Finding("tokenizer", FAIL, detail, remedy)
    return Finding("tokenizer", OK, detail)


def counted(names: Sequence[str]) -> str:
    """How many, and the first three."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


# --- memory and disk ----------------------------------------------------------------------------


def check_memory(needs) -> Finding:
    """Does the estimate for the largest batch fit into this machine?"""
    from hbd3lm.commands.memory_advice import (
        FILL,
        HELD,
        device_memory,
        free_memory,
        training_remedy,
    )
    from hbd3lm.model.memory import gib

    device = needs.options["device"]
    available, free, estimate = device_memory(device), free_memory(device), needs.estimate()
    held = HELD[device] * estimate.total
    detail = f"largest batch, {needs.shape.rows} problems: {estimate}"
    if held > estimate.total:
        detail += f"; a long run may come to hold {gib(held)}"
    detail += f"; this machine's {device} has {gib(available)}"
    if free < estimate.total <= available:
        # Trying it would have the kernel end this program, or another.
        detail += f", of which {gib(free)} are free now"
        return Finding("memory", FAIL, detail, "end the other programs, or wait for them")
    if held <= FILL * available:
        return Finding("memory", OK, detail)
    status = FAIL if estimate.total > available else WARN
    return Finding("memory", status, detail, training_remedy(needs, available).partition("; ")[2])


def steps_did_not_fit(needs, error: BaseException) -> Finding:
    from hbd3lm.commands.memory_advice import device_memory, training_remedy

    remedy = training_remedy(needs, device_memory(needs.options["device"]))
    return Finding("memory", FAIL, f"a real step ran out of it: {str(error)[:200]}", remedy)


def check_disk(cfg: DictConfig, card: ModelCard) -> Finding:
    """Is there room for the last checkpoint, the one before, the best, and one being written?"""
    from hbd3lm.model.memory import count_weights, gib

    weights, matrices = count_weights(card.model)
    moments = 2 * weights - (matrices if cfg.training.optimizer == "muon" else 0)
    size = 4 * (weights * (2 if cfg.training.ema_decay else 1) + moments)
    folder = Path(cfg.run_dir).absolute()
    try:
        while not folder.exists():
            folder = folder.parent
    except OSError as error:  # a name that is too long, for one
        return Finding("disk", FAIL, f"{folder}: {error.strerror}", "choose another run_dir")
    if not folder.is_dir():
        return Finding("disk", FAIL, f"{folder} is a file, no folder", "choose another run_dir")
    free = shutil.disk_usage(folder).free
    detail = f"checkpoints: 4 of {gib(size)} at most; {gib(free)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", FAIL, f"{folder} cannot be written to", "choose another run_dir")
    if free < 4 * size:
        return Finding("disk", FAIL, detail, "free some space, or choose another run_dir")
    if free < 8 * size:
        return Finding("disk", WARN, detail, "logs and evaluations need some as well")
    return Finding("disk", OK, detail)
