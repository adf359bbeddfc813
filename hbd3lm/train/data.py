"""Batches for Lightning: training steps as a pure function of their number, fixed validation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lightning as L
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from hbd3lm.data.batching import WINDOW_STEPS, StepBatches, pack_rows
from hbd3lm.diffusion.corruption import Noise
from hbd3lm.diffusion.likelihood import EvaluationBatch, EvaluationBatches
from hbd3lm.diffusion.objective import Objective
from hbd3lm.diffusion.schedule import SearchedSchedule
from hbd3lm.errors import UserError
from hbd3lm.model.batch import Batch
from hbd3lm.model.layout import Document
from hbd3lm.model.static import count_tokens, fill_up, plan_capacity, round_up, row_sizes
from hbd3lm.train.config import TrainingConfig
from hbd3lm.train.preemption import ignore_in_worker


@dataclass(frozen=True)
class TrainingBatch:
    """A micro-batch of one process.

    Attributes:
        batch: the tokens.
        denominator: real tokens of the whole optimiser step, over all processes and
            micro-batches. Summed losses are divided by it once, so that 1 and N processes, and
            any accumulation, take the same step.
    """

    batch: Batch
    denominator: float

    def to(self, device, **kwargs) -> TrainingBatch:
        return TrainingBatch(self.batch.to(device), self.denominator)


class TrainingBatches(Dataset):
    """Micro-batch ``i`` of this process; depends on (seed, i, rank) and nothing else.

    The noise is drawn for the documents of the whole optimiser step and then divided, so it
    does not depend on how many processes share the step.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        objective: Objective,
        config: TrainingConfig,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        tiles: bool = False,
    ) -> None:
        self.documents, self.objective, self.config = documents, objective, config
        self.seed, self.rank, self.world_size, self.tiles = seed, rank, world_size, tiles
        self.slices = config.accumulate * world_size  # of an optimiser step
        self.packed = config.batching == "pack"
        lengths = [len(document) for document in documents]
        step_size = config.batch_size * self.slices
        self.steps = StepBatches(lengths, step_size, seed, alike=self.packed)
        self.real_tokens = np.array([int(document.real.sum()) for document in documents])
        if self.packed:
            self._plan_shape()

    def __len__(self) -> int:
        return self.config.max_steps * self.config.accumulate

    def __getitem__(self, index: int) -> TrainingBatch:
        step, micro = divmod(index, self.config.accumulate)
        chosen, noises = self._step(step)
        batch = self._slice(chosen, noises, micro * self.world_size + self.rank)
        if self.packed:
            batch = fill_up(batch, self.capacity, self.tiles)
        else:
            batch = round_up(batch)
        return TrainingBatch(batch, float(self.real_tokens[chosen].sum()))

    def _step(self, step: int) -> tuple[np.ndarray, list[Noise]]:
        """Indices of the documents of an optimiser step, and their noise."""
        chosen = self.steps[step]
        documents = [self.documents[i] for i in chosen]
        rng = np.random.default_rng([self.seed, 2, step])
        return chosen, self.objective.training_noise(documents, rng, step)

    def _slice(self, chosen: np.ndarray, noises: list[Noise], number: int) -> Batch:
        """One of the slices that processes and micro-batches divide a step into."""
        size = self.config.batch_size
        mine = slice(number * size, (number + 1) * size)
        rows = None
        if self.packed:
            mine = slice(number, None, self.slices)  # every slice with short and long documents
            rows = pack_rows(self.sizes[chosen[mine]], self.row_sizes)
        return self.objective.assemble(
            [self.documents[i] for i in chosen[mine]], noises[mine], rows
        )

    def _plan_shape(self) -> None:
        """The shape of all packed batches: from the documents and the first steps.

        The same in every process, and after every interruption.
        """
        sizes = []
        for document in self.documents:
            n = len(document.targets)
            # Everything masked: no draw of the noise has more tokens.
            noise = Noise(np.ones(n, dtype=bool), np.ones(n, dtype=np.float32))
            sizes.append(count_tokens(self.objective.assemble([document], [noise])))
        self.sizes = np.array(sizes)  # [documents, streams]
        length = self.config.pack_len or 2 * self.objective.layout.max_len
        self.row_sizes = row_sizes(self.sizes.mean(0).tolist(), self.sizes.max(0).tolist(), length)
        steps = [self._step(step) for step in range(min(WINDOW_STEPS, self.config.max_steps))]
        self.capacity = plan_capacity(
            self.row_sizes,
            (self._slice(*step, number) for step in steps for number in range(self.slices)),
        )


class RemainingSteps(Sampler[int]):
    """Micro-batch numbers from where the trainer stands, asked for when iteration begins.

    The length is that of the whole run: Lightning goes on counting batches where the interrupted
    run stopped, and would take a shorter loader for one that ends early.
    """

    def __init__(self, trainer: L.Trainer, accumulate: int, length: int) -> None:
        self.trainer, self.accumulate, self.length = trainer, accumulate, length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.trainer.global_step * self.accumulate, self.length))


class EvenBatches(Dataset):
    """Evaluation batches, as many for each process: copies that weigh nothing fill up.

    Where weights are divided among the processes, a process without a batch keeps the others
    waiting for its share.
    """

    def __init__(self, batches: EvaluationBatches, processes: int) -> None:
        self.batches, self.processes = batches, processes

    def __len__(self) -> int:
        return -(-len(self.batches) // self.processes) * self.processes

    def __getitem__(self, index: int) -> EvaluationBatch:
        batch, indices, shares = self.batches[index % len(self.batches)]
        return batch, indices, shares if index < len(self.batches) else [0.0] * len(shares)


PREFETCH = 2
"""Micro-batches that each process which prepares some holds ready; torch's."""


def prefetch_factor(objective: Objective, config: TrainingConfig, num_workers: int) -> int | None:
    """Micro-batches that each of ``num_workers`` may hold ready; None without workers.

    While micro-batch i is computed, up to i + num_workers * prefetch_factor are being prepared.
    With a searched schedule none of them may be of a step at which a change that is found now is
    in force: which noise it got would depend on how quick the workers were.

    Raises:
        UserError: too many workers for a searched schedule.
    """
    if num_workers == 0:
        return None
    if getattr(objective, "searched", None) is None:
        return PREFETCH
    most = SearchedSchedule.DELAY * config.accumulate
    if num_workers > most:
        raise UserError(
            f"trainer.num_workers={num_workers}: with algo.schedule=searched at most {most} "
            f"processes may prepare batches ({SearchedSchedule.DELAY} steps of "
            f"training.accumulate={config.accumulate} micro-batches, after which a found interval "
            f"is in force); set trainer.num_workers={most} or fewer"
        )
    return min(PREFETCH, most // num_workers)


class ProblemData(L.LightningDataModule):
    """Training batches from where the trainer stands, and the fixed validation batches.

    Raises:
        UserError: see :func:`prefetch_factor`.
    """

    def __init__(
        self,
        train: Sequence[Document],
        valid: Sequence[Document],
        objective: Objective,
        config: TrainingConfig,
        seed: int,
        num_workers: int = 0,
        tiles: bool = False,
    ) -> None:
        super().__init__()
        self.tiles = tiles
        self.train, self.valid, self.objective = train, valid, objective
        self.config, self.seed, self.num_workers = config, seed, num_workers
        self.prefetch_factor = prefetch_factor(objective, config, num_workers)

    def train_dataloader(self) -> DataLoader:
        trainer = self.trainer
        batches = TrainingBatches(
            self.train,
            self.objective,
            self.config,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            self.tiles,
        )
        return DataLoader(
            batches,
            batch_size=None,
            sampler=RemainingSteps(trainer, self.config.accumulate, len(batches)),
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch_factor,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=ignore_in_worker,
        )

    def val_dataloader(self) -> DataLoader:
        batches = EvaluationBatches(
            self.valid,
            self.objective,
            self.config.valid_samples,
            self.config.batch_size,
            self.seed,
        )
        rank, world = self.trainer.global_rank, self.trainer.world_size
        even = EvenBatches(batches, world)
        return DataLoader(even, batch_size=None, sampler=range(rank, len(even), world))
