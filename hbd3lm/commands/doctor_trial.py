"""The checks of ``hbd3lm doctor`` that train: a few real steps, timed, and what they leave."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from omegaconf import DictConfig

from hbd3lm.commands.doctor_checks import FAIL, OK, WARN, Finding, counted
from hbd3lm.progress import track

if TYPE_CHECKING:
    import torch

    from hbd3lm.diffusion.objective import Objective
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.layout import Document
    from hbd3lm.model.transformer import Transformer

JOB_HOURS = 24
"""Time limit of scripts/train/train_gsm8k_hierarchical.sh."""
TRIAL_PROBLEMS = 8
"""Problems of the comparison of float32 with bf16."""
TRIAL_SECONDS = 20.0
"""After which no further step is timed."""


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
        self.net.activation_checkpoint = cfg.trainer.activation_checkpoint
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
        for step in track(range(min(4, len(batches))), "doctor's trial", "steps"):
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
        """One forward and backward pass in float32 and in bf16: same loss, same direction?

        In float32 alone where the run takes it because the machine would emulate bf16, a hundred
        times as slowly.
        """
        from hbd3lm.model.precision import has_bf16

        loss, exact = self._gradient(mixed=False)
        norm, detail = _norm(exact), f"loss {loss:.4f} in float32"
        if not math.isfinite(loss) or not math.isfinite(norm):
            return Finding("precision", FAIL, detail, "not finite even in float32: check the data")
        if not self.mixed and not has_bf16(self.device):
            return Finding("precision", OK, f"{detail}; this machine multiplies no bf16")
        mixed_loss, mixed = self._gradient(mixed=True)
        dot = sum(float((exact[n] * mixed[n]).sum()) for n in exact)
        norms = norm * _norm(mixed)
        cosine = dot / norms if norms > 0 else math.nan
        apart = abs(mixed_loss - loss) / abs(loss)
        detail += (
            f", {mixed_loss:.4f} in bf16 ({apart:.2%} apart); cosine of the gradients {cosine:.4f}"
        )
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


def _norm(gradient: dict[str, torch.Tensor]) -> float:
    """Of all weights together."""
    return math.sqrt(sum(float((g**2).sum()) for g in gradient.values()))


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
        return Finding("gradients", FAIL, f"{detail}; not finite: {counted(broken)}", remedy)
    if dead:
        remedy = "these weights would never learn: the network is not connected as it should be"
        return Finding("gradients", FAIL, f"{detail}; zero: {counted(dead)}", remedy)
    if losses[-1] > 2 * losses[0]:
        return Finding("gradients", WARN, detail, "the loss rises: lower training.learning_rate")
    return Finding("gradients", OK, detail)


def _ends(layers: dict[str, float]) -> list[tuple[str, float]]:
    """The layers with the smallest and the largest norm."""
    by_norm = sorted(layers.items(), key=lambda item: item[1])
    return [by_norm[0], by_norm[-1]]
