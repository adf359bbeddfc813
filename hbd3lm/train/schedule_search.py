"""What a validation learns about the noise of training: the search for clipped schedules, its log.

The search itself is in ``diffusion/variance.py``; here it meets the run: processes, metrics, file.
"""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import torch

from hbd3lm.diffusion.objective import BlockDiffusion
from hbd3lm.diffusion.variance import (
    BlockMoments,
    SearchResult,
    estimator_variance,
    gradient_variance,
    search_intervals,
)
from hbd3lm.files import atomic_write

FILE = "schedule_search.jsonl"


def finish_search(module: L.LightningModule, moments: BlockMoments) -> dict[str, float]:
    """Search with the draws of all processes, apply it where the run asks for it, and log it.

    Returns:
        metrics: for every segment the variance of a block's NELBO estimate (square nats) under the
        interval in force and under the best one, and the best one's ends.
    """
    objective: BlockDiffusion = module.objective
    trainer, layout = module.trainer, objective.layout
    moments.sums = module.all_gather(moments.sums).view(-1, *moments.sums.shape).sum(0)
    step = trainer.global_step
    results = search_intervals(moments, layout, objective.schedule)
    if objective.searched is None:
        in_force = [objective.schedule] * len(results)
    else:
        in_force = objective.searched.at(step)
        objective.searched.change(step, [r.intervals[r.best] for r in results])
    values = {}
    for index, (result, interval) in enumerate(zip(results, in_force)):
        name, best = f"valid/{result.segment}", result.intervals[result.best]
        values[f"{name}_variance"] = estimator_variance(moments.of(index), interval)
        values[f"{name}_best_variance"] = result.variances[result.best]
        values[f"{name}_best_beta"], values[f"{name}_best_omega"] = best.low, best.high
    if trainer.is_global_zero:
        _write(Path(trainer.default_root_dir) / FILE, step, results)
    return values


def _write(path: Path, step: int, results: list[SearchResult]) -> None:
    """Put this validation's tables after those of earlier steps; later ones will be repeated."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < step]
    with atomic_write(path) as file:
        for line in kept:
            file.write(line + "\n")
        for result in results:
            line = json.dumps({"step": step, **result.to_dict()}, allow_nan=False)
            file.write(line + "\n")


def measure_gradient(module: L.LightningModule) -> dict[str, float]:
    """Variance of the gradient over ``training.gradient_draws`` draws of the noise, as metrics.

    On the first validation problems (a batch of them), with the weights validation runs with;
    relative to the squared norm of the mean gradient, where that stands out of the noise.
    """
    config = module.config
    documents = module.trainer.datamodule.valid[: config.batch_size]
    found = gradient_variance(
        module.net,
        module.objective,
        documents,
        config.gradient_draws,
        module.seed,
        module.trainer.global_step,
        module.frozen,
    )
    values = {"valid/gradient_variance": found.trace}
    if found.squared_norm > 0:
        values["valid/gradient_noise_to_signal"] = found.trace / found.squared_norm
    return {name: torch.tensor(value) for name, value in values.items()}
