"""The Lightning module: one training step, one validation pass, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from hbd3lm.diffusion.likelihood import EvaluationBatch, add_shares
from hbd3lm.diffusion.objective import BlockDiffusion, Objective, negative_log_likelihood
from hbd3lm.diffusion.schedule import SearchedSchedule
from hbd3lm.diffusion.variance import BlockMoments, block_losses
from hbd3lm.model.checkpoint import KEY, ModelCard
from hbd3lm.model.transformer import Transformer
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.data import TrainingBatch
from hbd3lm.train.metrics_log import MetricsLog
from hbd3lm.train.optim import learning_rate_factor, make_optimizer
from hbd3lm.train.schedule_search import finish_search, measure_gradient

SCHEDULE_KEY = "hbd3lm_schedule"
"""Where a checkpoint keeps the intervals that a searched schedule has found."""


class BrokenLossError(Exception):
    """The gradient of a step is not finite; raised before the optimiser uses it."""


class TrainingModule(L.LightningModule):
    """Trains a network on an objective.

    Args:
        net: the network, randomly initialised or loaded.
        objective: how documents become losses.
        config: training settings.
        card: stored in every checkpoint.
        n_valid: number of validation documents.
        compiled_losses: :func:`negative_log_likelihood` compiled; None: as it is.
    """

    def __init__(
        self,
        net: Transformer,
        objective: Objective,
        config: TrainingConfig,
        card: ModelCard,
        seed: int,
        n_valid: int,
        compiled_losses: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.compiled_losses = compiled_losses
        self.net, self.objective, self.config = net, objective, config
        self.card, self.seed, self.n_valid = card, seed, n_valid
        self.frozen = () if config.freeze is None else (config.freeze,)
        # Segments whose loss is computed in training: none in which constants alone take part.
        names = [segment.name for segment in objective.layout.segments]
        free = [net.module_of(name) not in self.frozen for name in names]
        self.learnt = range(free.index(True), len(names))
        self.train()

    def train(self, mode: bool = True) -> TrainingModule:
        """As ever, but frozen modules stay in evaluation mode: constants have no dropout."""
        super().train(mode)
        for name in self.frozen:
            self.net.stacks[name].eval()
        return self

    def on_train_batch_start(self, batch: TrainingBatch, batch_idx: int) -> None:
        micro = batch_idx % self.config.accumulate
        # Dropout, too, is a function of (seed, step, rank): a resumed run repeats it.
        keys = [self.seed, self.trainer.global_step, micro, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(keys).generate_state(1)[0]))
        if micro == 0:
            # Of the whole optimiser step: [loss in nats, real tokens] x [segments].
            self.sums = torch.zeros(2, len(self.objective.layout.segments), device=self.device)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        # [documents, segments], nats
        compute = self.compiled_losses or negative_log_likelihood
        losses = compute(self.net, batch.batch, self.frozen)
        self.sums += torch.stack([losses.detach().sum(0), batch.batch.real_tokens.sum(0)])
        if self._is_logged and (batch_idx + 1) % self.config.accumulate == 0:
            self._log_training(batch)
        # DDP averages the gradients of the processes and Lightning those of the micro-batches;
        # the denominator is that of the whole step already, so both means become sums again.
        return losses.sum() / batch.denominator * self.trainer.world_size * self.config.accumulate

    @property
    def _is_logged(self) -> bool:
        """Does Lightning write this step's values? (It counts from one.)"""
        return (self.trainer.global_step + 1) % self.config.log_interval == 0

    def _log_training(self, batch: TrainingBatch) -> None:
        """Log the loss of the whole step: every process and micro-batch has other lengths."""
        losses, tokens = self.trainer.strategy.reduce(self.sums, reduce_op="sum")
        learnt = slice(self.learnt.start, self.learnt.stop)
        values = {"train/loss": losses[learnt].sum() / tokens[learnt].sum()}
        for i in self.learnt:
            name = self.objective.layout.segments[i].name
            values[f"train/{name}_loss"] = losses[i] / tokens[i]
        values["train/padding_share"] = batch.batch.padding_share()
        values["train/head_padding_share"] = batch.batch.head_padding_share()
        values["train/lr"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict(values, batch_size=1)
        self.log("loss", values["train/loss"], prog_bar=True, logger=False, batch_size=1)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        # Lightning refuses to clip for fused optimisers under mixed precision, because of loss
        # scaling; bf16 needs none, so the plain function is right.
        limit = self.config.grad_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), limit)
        if isinstance(norm, DTensor):  # of shares
            norm = norm.full_tensor()
        # The gradient is that of all processes and micro-batches: all processes stop, or none.
        if not torch.isfinite(norm):
            loss = float(self.sums[0].sum() / self.sums[1].sum())
            raise BrokenLossError(f"training loss {loss}, gradient norm {float(norm)}")
        if self._is_logged:
            self.log("train/grad_norm", norm, batch_size=1)

    def on_validation_epoch_start(self) -> None:
        n_segments = len(self.objective.layout.segments)
        self.nll = torch.zeros(self.n_valid, n_segments, device=self.device, dtype=torch.float64)
        self.real_tokens = torch.zeros_like(self.nll)
        self.moments = None
        if isinstance(self.objective, BlockDiffusion):
            self.moments = BlockMoments(self.objective.layout, self.device)

    def validation_step(self, item: EvaluationBatch, batch_idx: int) -> None:
        batch, indices, shares = item
        if self.moments is None:
            losses = negative_log_likelihood(self.net, batch)
        else:
            by_block = block_losses(self.net, batch)
            if any(shares):  # else a batch made up so that all processes have equally many
                self.moments.add(by_block)
            losses = by_block.by_segment(self.nll.shape[1])
        add_shares(self.nll, losses, indices, shares)
        # Draws of one document write the same count again, on purpose.
        self.real_tokens[torch.tensor(indices, device=self.device)] = batch.real_tokens.to(self.nll)

    def on_validation_epoch_end(self) -> None:
        nll = self.trainer.strategy.reduce(self.nll, reduce_op="sum").sum(0)
        tokens = self.trainer.strategy.reduce(self.real_tokens, reduce_op="max").sum(0)
        values = {"valid/nelbo": nll.sum() / tokens.sum()}
        for i, segment in enumerate(self.objective.layout.segments):
            values[f"valid/{segment.name}_nelbo"] = nll[i] / tokens[i]
        values["valid/ppl"] = values["valid/nelbo"].exp()
        values = {name: value.float() for name, value in values.items()}
        if self.moments is not None:
            values |= finish_search(self, self.moments)
            if self.config.gradient_draws:
                values |= measure_gradient(self)
        self.log_dict(values, batch_size=1)
        self.log("valid", values["valid/nelbo"], prog_bar=True, logger=False, batch_size=1)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = make_optimizer(self.net, self.config)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.config)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def flush_logs(self) -> None:
        """Write what is logged up to this step, which Lightning itself hands over a moment later.

        A checkpoint that is on disk while its step's values are not would leave a gap for good.
        """
        trainer, step = self.trainer, self.trainer.global_step
        logged = trainer.logged_metrics if step % self.config.log_interval == 0 else {}
        values = {name: float(v) for name, v in logged.items() if name.startswith("train/")}
        for logger in trainer.loggers:
            if isinstance(logger, MetricsLog):
                if values:
                    logger.log_metrics({**values, "epoch": trainer.current_epoch}, step - 1)
                logger.flush()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = self.card.to_dict()
        if self._searched is not None:
            checkpoint[SCHEDULE_KEY] = self._searched.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._searched is not None:
            self._searched.load_state_dict(checkpoint[SCHEDULE_KEY])
        # Lightning counts micro-batches; with another accumulation there are more or fewer.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        done = checkpoint["global_step"] * self.config.accumulate
        for counts in (progress["total"], progress["current"]):
            shift = done - counts["processed"]
            counts.update({name: count + shift for name, count in counts.items() if count})

    @property
    def _searched(self) -> SearchedSchedule | None:
        return getattr(self.objective, "searched", None)
