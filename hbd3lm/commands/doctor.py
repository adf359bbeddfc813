"""``hbd3lm doctor``: everything a training run depends on, checked in minutes before it is queued.

Takes the settings of ``hbd3lm train``. Every check says what it looked at, and what to change.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from hbd3lm.errors import UserError

if TYPE_CHECKING:
    import torch

    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.diffusion.objective import Objective
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.layout import Document, Layout
    from hbd3lm.model.transformer import Transformer

OK, WARN, FAIL = "ok", "warn", "FAIL"
JOB_HOURS = 24
"""Time limit of scripts/train/train_gsm8k_hierarchical.sh."""
ROUND_TRIPS = 2_000
"""Problems whose texts are encoded and decoded again."""
TRIAL_PROBLEMS = 8
"""Problems of the comparison of float32 with bf16."""
TRIAL_SECONDS = 20.0
"""After which no further step is timed."""


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


def examine(cfg: DictConfig) -> int:
    """Print the table of findings; 1 if one of them is a failure, else 0.

    Raises:
        UserError: settings or files that no run could start with.
    """
    from rich.console import Console
    from rich.table import Table

    findings = find(cfg)
    table = Table("check", "", "found", title="hbd3lm doctor", show_lines=True)
    for finding in findings:
        color = {OK: "green", WARN: "yellow", FAIL: "red"}[finding.status]
        detail = finding.detail + (f"\n-> {finding.remedy}" if finding.remedy else "")
        table.add_row(finding.check, f"[{color}]{finding.status}", detail.replace("[", r"\["))
    Console().print(table)
    counts = Counter(finding.status for finding in findings)
    print(", ".join(f"{counts[status]} {status}" for status in (OK, WARN, FAIL)))
    return 1 if counts[FAIL] else 0


def find(cfg: DictConfig) -> list[Finding]:
    """All checks, the cheap ones first."""
    from hbd3lm.commands import build
    from hbd3lm.commands.memory_advice import (
        count_processes,
        is_out_of_memory,
        resolve_device,
        training_needs,
    )
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.train.config import TrainerConfig, TrainingConfig, check_strategy
    from hbd3lm.train.lora import check_lora
    from hbd3lm.train.start import check_freeze

    config = build.typed(TrainingConfig, cfg.training, "training")
    where = build.typed(TrainerConfig, cfg.trainer, "trainer")
    check_strategy(config, where)
    device = resolve_device(where.accelerator)
    config = config.for_processes(count_processes(where, device))
    seed = build.read_seed(cfg)
    source = build.resolve_pretrained(cfg)
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    if source is not None:
        build.check_vocabulary(source, tokenizer)
    card = build.build_card(cfg, tokenizer)
    objective = build.build_training_objective(cfg, card, tokenizer)
    check_freeze(config, card)
    check_lora(config, card)
    findings = [*check_mask(card.layout)]
    train, valid = build.load_training_examples(cfg)
    findings += [
        check_examples(train, valid),
        check_leakage(train + valid, _test_problems(cfg)),
        check_lengths(train, tokenizer, card.layout),
        check_tokenizer(train, tokenizer, Path(cfg.run_dir)),
    ]
    documents = build.build_documents(train, tokenizer, card.layout, report=lambda text: None)
    needs = training_needs(cfg, card.model, card.layout, documents, device)
    findings += [check_memory(needs), check_disk(cfg, card)]
    if findings[-2].status == FAIL:
        return findings  # the steps below would only prove it
    try:
        fill = None
        if source is not None and not cfg.model.scratch:
            fill = partial(build.fill_pretrained, source=source, tokenizer=tokenizer, seed=seed)
        trial = Trial(cfg, card, objective, documents, config, seed, device, fill)
        findings += [
            trial.check_time(len(valid)),
            trial.check_precision(),
            trial.check_gradients(),
        ]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        findings.append(_steps_did_not_fit(needs, error))
    return findings


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
            return Finding("data", status, f"{detail}; {_some(problem)} {what}", remedy)
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
        remedy = f"remove {_some(leaked)} from data.train_path: scores on them say nothing"
        return Finding("test problems", FAIL, detail, remedy)
    return Finding("test problems", OK, detail)


def _test_problems(cfg: DictConfig) -> tuple[Sequence, str] | str:
    """The test problems and where they are from, or why there are none."""
    import warnings

    from hbd3lm.data.records import read_examples
    from hbd3lm.data.sources import load_problems

    if cfg.data.test_path:
        return read_examples(cfg.data.test_path, "data.test_path"), cfg.data.test_path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the same sentence is in fallback
            loaded = load_problems(cfg.data.name, "test", cfg.data.dir)
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


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


# --- memory and disk ----------------------------------------------------------------------------


def check_memory(needs) -> Finding:
    """Does the estimate for the largest batch fit into this machine?"""
    from hbd3lm.commands.memory_advice import FILL, device_memory, training_remedy
    from hbd3lm.model.memory import gib

    available = device_memory(needs.options["device"])
    estimate = needs.estimate()
    detail = (
        f"largest batch, {needs.shape.rows} problems: {estimate}; this machine's "
        f"{needs.options['device']} has {gib(available)}"
    )
    if estimate.total > available:
        return Finding("memory", FAIL, detail, training_remedy(needs, available).partition("; ")[2])
    if estimate.total > FILL * available:
        return Finding("memory", WARN, detail, training_remedy(needs, available).partition("; ")[2])
    return Finding("memory", OK, detail)


def _steps_did_not_fit(needs, error: BaseException) -> Finding:
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
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"checkpoints: 4 of {gib(size)} at most; {gib(free)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", FAIL, f"{folder} cannot be written to", "choose another run_dir")
    if free < 4 * size:
        return Finding("disk", FAIL, detail, "free some space, or choose another run_dir")
    if free < 8 * size:
        return Finding("disk", WARN, detail, "logs and evaluations need some as well")
    return Finding("disk", OK, detail)


# --- a few real steps ---------------------------------------------------------------------------


class Trial:
    """A network that takes a few real training steps, timed, and is then looked at."""

    def __init__(
        self,
        cfg: DictConfig,
        card: ModelCard,
        objective: Objective,
        documents: Sequence[Document],
        config,
        seed: int,
        device: str,
        fill: Callable[[Transformer], object] | None = None,
    ) -> None:
        import torch

        from hbd3lm.data.tokenizer import SPECIAL_TOKENS
        from hbd3lm.diffusion.objective import negative_log_likelihood
        from hbd3lm.model.precision import resolve_precision
        from hbd3lm.model.transformer import Transformer
        from hbd3lm.train.data import TrainingBatches
        from hbd3lm.train.lora import attach
        from hbd3lm.train.optim import make_optimizer
        from hbd3lm.train.start import freeze, start_from

        torch.manual_seed(seed)
        self.config, self.device, self.objective = config, device, objective
        self.documents, self.seed = documents, seed
        self.mixed = resolve_precision(cfg.trainer.precision) == "bf16-mixed"
        self.net: Transformer = Transformer(card.model, cfg.trainer.attention)
        if config.init_from is not None:
            start_from(config.init_from, self.net, card)
        elif fill is not None:
            fill(self.net)
        self.frozen = () if config.freeze is None else (config.freeze,)
        for module in self.frozen:
            freeze(self.net, module)
        attach(self.net, config.lora, len(SPECIAL_TOKENS))
        self.net.to(device)
        optimizer = make_optimizer(self.net, config)
        batches = TrainingBatches(documents, objective, config, seed)
        self.seconds: list[float] = []
        self.losses: list[float] = []
        started = time.perf_counter()
        # The first step warms up; a fresh network's branches are zero until it has taken two.
        for step in range(min(4, len(batches))):
            before = time.perf_counter()
            item = batches[step].to(device)
            with torch.autocast(device, torch.bfloat16, enabled=self.mixed):
                losses = negative_log_likelihood(self.net, item.batch, self.frozen)
                loss = losses.sum() / item.denominator
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), config.grad_clip or math.inf)
            optimizer.step()
            optimizer.zero_grad()
            self.losses.append(float(loss.detach()))  # waits for the device
            self.seconds.append(time.perf_counter() - before)
            if step >= 2 and time.perf_counter() - started > TRIAL_SECONDS:
                break

    def check_time(self, n_valid: int) -> Finding:
        """How long will the run take at the speed of the steps just taken?"""
        import torch

        config = self.config
        step = float(np.median(self.seconds[1:] or self.seconds)) * config.accumulate
        # A validation has no backward pass: about a third of a step for as many problems.
        passes = n_valid * (config.valid_samples if self.objective.is_bound else 1)
        validation = step / 3 * passes / (config.batch_size * config.accumulate)
        hours = config.max_steps * (step + validation / config.valid_interval) / 3600
        where = self.device if self.device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
        detail = (
            f"{step:.2f} s a step on this machine ({where}, {'bf16' if self.mixed else 'float32'})"
            f", {config.max_steps:,} steps: about {hours:.1f} hours with validations"
        )
        if hours > JOB_HOURS:
            steps = int(config.max_steps * JOB_HOURS / hours)
            remedy = (
                f"a job has {JOB_HOURS} hours: it goes on when submitted again, or set "
                f"training.max_steps={steps} or a smaller model"
            )
            return Finding("time", WARN, detail, remedy)
        return Finding("time", OK, detail)

    def _gradient(self, mixed: bool) -> tuple[float, dict[str, torch.Tensor]]:
        import torch

        from hbd3lm.diffusion.objective import negative_log_likelihood

        documents = list(self.documents[:TRIAL_PROBLEMS])
        noises = self.objective.training_noise(documents, np.random.default_rng([self.seed, 5]))
        batch = self.objective.assemble(documents, noises).to(self.device)
        tokens = float(batch.real_tokens.sum())
        self.net.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=mixed):
            losses = negative_log_likelihood(self.net.eval(), batch, self.frozen)
            loss = losses.sum() / tokens
        loss.backward()
        learning = [(n, p) for n, p in self.net.named_parameters() if p.requires_grad]
        found = {n: p.grad.detach().double() for n, p in learning}
        self.net.zero_grad()
        return float(loss.detach()), found

    def check_precision(self) -> Finding:
        """One forward and backward pass in float32 and in bf16: same loss, same direction?"""
        loss, exact = self._gradient(mixed=False)
        mixed_loss, mixed = self._gradient(mixed=True)
        dot = sum(float((exact[n] * mixed[n]).sum()) for n in exact)
        norms = [math.sqrt(sum(float((g**2).sum()) for g in g_.values())) for g_ in (exact, mixed)]
        cosine = dot / (norms[0] * norms[1]) if min(norms) > 0 else math.nan
        apart = abs(mixed_loss - loss) / abs(loss)
        detail = (
            f"loss {loss:.4f} in float32, {mixed_loss:.4f} in bf16 ({apart:.2%} apart); cosine of "
            f"the gradients {cosine:.4f}"
        )
        if not math.isfinite(loss) or not math.isfinite(norms[0]):
            return Finding("precision", FAIL, detail, "not finite even in float32: check the data")
        good = apart < 0.01 and cosine > 0.98
        usable = apart < 0.05 and cosine > 0.9  # False for nan
        if good or not self.mixed:
            return Finding("precision", OK, detail)
        return Finding(
            "precision", WARN if usable else FAIL, detail, "set trainer.precision=32-true"
        )

    def check_gradients(self) -> Finding:
        """Does every weight get a finite gradient that is not zero, after a few steps?"""
        _, gradient = self._gradient(mixed=self.mixed)
        return judge_gradients({n: float(g.norm()) for n, g in gradient.items()}, self.losses)


def judge_gradients(norms: dict[str, float], losses: Sequence[float]) -> Finding:
    """A finding about the gradient norm of every weight and the losses of the steps before."""
    broken = [name for name, norm in norms.items() if not math.isfinite(norm)]
    dead = [name for name, norm in norms.items() if norm == 0]
    layers: dict[str, float] = {}
    for name, norm in norms.items():
        found = re.search(r"stacks\.(\w+)\.(blocks\.\d+|\w+)", name)
        key = f"{found[1]} {found[2].replace('blocks.', 'block ')}" if found else name
        layers[key] = math.hypot(layers.get(key, 0.0), norm)
    total = math.sqrt(sum(norm**2 for norm in norms.values()))
    shown = ", ".join(f"{name} {norm:.2g}" for name, norm in _ends(layers))
    detail = f"norm {total:.3g} after {len(losses)} steps, loss {losses[-1]:.2f}; {shown}"
    if broken or not all(map(math.isfinite, losses)):
        remedy = "lower training.learning_rate, or set trainer.precision=32-true"
        return Finding("gradients", FAIL, f"{detail}; not finite: {_some(broken)}", remedy)
    if dead:
        remedy = "these weights would never learn: the network is not connected as it should be"
        return Finding("gradients", FAIL, f"{detail}; zero: {_some(dead)}", remedy)
    if losses[-1] > 2 * losses[0]:
        return Finding("gradients", WARN, detail, "the loss rises: lower training.learning_rate")
    return Finding("gradients", OK, detail)


def _ends(layers: dict[str, float]) -> list[tuple[str, float]]:
    """The layers with the smallest and the largest norm."""
    by_norm = sorted(layers.items(), key=lambda item: item[1])
    return [by_norm[0], by_norm[-1]]
