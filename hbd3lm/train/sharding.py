"""Fully sharded data parallelism: weights, gradients, optimiser and average in equal shares.

``trainer.strategy=fsdp`` is torch's ``fully_shard`` (FSDP2) under Lightning's strategy for it,
which runs on GPUs and, unlike Lightning's older FSDP strategy, on CPUs. Checkpoints are whole, as
those of other strategies: the shares are put together in the first process.
"""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.optim.swa_utils import AveragedModel

from hbd3lm.train.callbacks import WarmEMA
from hbd3lm.train.module import TrainingModule

WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class ShardedStrategy(ModelParallelStrategy):
    """One share for every process of the job."""

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(module: nn.Module, strategy: ShardedStrategy) -> None:
    """Divide the parameters of ``module`` among the processes; between steps each has its share."""
    # Parameters are asked for between steps, too (average, norm): there they are shares always.
    fully_shard(module, mesh=strategy.device_mesh["data_parallel"], reshard_after_forward=True)


class ShardedModule(TrainingModule):
    """The training module, divided among the processes.

    A step calls the network twice and its head apart from it, so what gathers the weights is the
    whole step, not the network's ``forward``.
    """

    def configure_model(self) -> None:
        shard(self, self.trainer.strategy)
        for name in ("training_step", "validation_step"):
            register_fsdp_forward_method(self, name)


class ShardedEMA(WarmEMA):
    """:class:`WarmEMA` of shares: every process averages its own."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Called while the module is still whole; a divided one cannot be copied.
        self._average_model = AveragedModel(pl_module, use_buffers=True, **self._kwargs)
        shard(self._average_model.module, trainer.strategy)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["current_model_state"] = checkpoint["state_dict"]
        checkpoint["state_dict"] = get_model_state_dict(self._average_model.module, options=WHOLE)
        checkpoint["averaging_state"] = {"n_averaged": self._average_model.n_averaged.clone()}

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # The strategy has read ``state_dict``, the average, into the module.
        self._average_model.n_averaged.copy_(checkpoint["averaging_state"]["n_averaged"])
        for average, current in zip(
            self._average_model.module.parameters(), pl_module.parameters(), strict=True
        ):
            average.data.copy_(current.data)
        set_model_state_dict(
            pl_module,
            checkpoint["current_model_state"],
            options=StateDictOptions(full_state_dict=True),
        )
