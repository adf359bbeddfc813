"""Plan first, then execution: many problems at once, each at its own length.

One engine for block diffusion and next-token models. A problem owns a row of the KV cache; it
starts with a prompt (question, or question and a given plan), writes its segments block by
block, leaves when the last one has ended, and the next problem takes its row.

A finished block enters the cache with the keys and values of its *clean* tokens. That costs no
extra pass: the pass that commits it is also the first denoising step of the next block, since
under the mask rule [finished block (clean), next block (noisy)] is just more tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hbd3lm.model.batch import Tokens
from hbd3lm.model.layout import Layout, SegmentSpec
from hbd3lm.model.mask import Tags
from hbd3lm.model.precision import resolve_precision
from hbd3lm.model.transformer import Transformer
from hbd3lm.sample.cache import KVCache
from hbd3lm.sample.strategies import (
    BlockState,
    SamplingConfig,
    make_strategy,
    pick_tokens,
    token_uniforms,
)
from hbd3lm.sample.trajectory import Event


@dataclass(frozen=True)
class SpecialIds:
    """The ids a sampler must know: the absorbing state, fill, and each segment's end."""

    mask: int
    fill: int
    ends: dict[str, int]


@dataclass(frozen=True)
class Prompt:
    """What a sample starts from.

    Attributes:
        problem: the id its random numbers are tied to (its index in the data set).
        question: token ids, end token included.
        given: segments that are not sampled, by name; token ids, end token included.
    """

    problem: int
    question: Sequence[int]
    given: dict[str, Sequence[int]] = field(default_factory=dict)


@dataclass
class Sample:
    """What came out.

    Attributes:
        problem: as in the prompt.
        segments: token ids of each sampled segment, without end token and fill.
        ended: whether the segment wrote its end token (False: it ran into its cap).
        evaluations: network passes this problem took part in.
        trajectory: what each of them decided, if that was recorded.
    """

    problem: int
    segments: dict[str, list[int]] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    evaluations: int = 0
    trajectory: list[Event] | None = None


@dataclass
class Statistics:
    """What a run of the decoder cost."""

    passes: int = 0
    """Network passes over a batch."""
    rows: int = 0
    """Rows in those passes: evaluations summed over problems."""
    positions: int = 0
    """Token positions computed, padding included."""


@dataclass
class _Row:
    """A problem in flight."""

    sample: Sample
    segments: list[SegmentSpec]  # still to be written, the current one first
    pending: list[tuple[str, np.ndarray, np.ndarray]]  # (module, ids, blocks) to commit
    position: int  # of the first token after the pending ones
    ordinal: int  # of the current block
    written: list[int] = field(default_factory=list)  # of the current segment


class Decoder:
    """Samples plans and executions.

    Args:
        net: the network, in evaluation mode, on the device to use.
        layout: the one it was trained with.
        ids: special token ids.
        config: how to sample.
        autoregressive: decode token by token (a network of the ``ar`` method).
    """

    def __init__(
        self,
        net: Transformer,
        layout: Layout,
        ids: SpecialIds,
        config: SamplingConfig,
        autoregressive: bool = False,
    ) -> None:
        self.net, self.layout, self.ids, self.config = net, layout, ids, config
        self.autoregressive = autoregressive
        self.strategy = make_strategy(config)
        self.device = next(net.parameters()).device
        self.mixed = resolve_precision(config.precision) == "bf16-mixed"
        self.statistics = Statistics()

    @torch.no_grad()  # under inference_mode autocast would round the weights anew in every pass
    def sample(
        self,
        prompts: Sequence[Prompt],
        stop_after: str | None = None,
        on_done: Callable[[Sample], None] | None = None,
        on_event: Callable[[int, Event], None] | None = None,
    ) -> list[Sample]:
        """One sample per prompt, in the order of the prompts.

        Args:
            prompts: any number; ``config.batch_size`` of them are in flight at a time.
            stop_after: name of the last segment to write (``"plan"`` for plans only).
            on_done: called with each sample as it is finished.
            on_event: called with the problem and what a pass decided for it, as it happens.
        """
        if not prompts:
            return []
        self.on_event = on_event
        self.recording = self.config.trajectory or on_event is not None
        # One context for all passes: weights are rounded once.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
            return self._sample(prompts, stop_after, on_done)

    def _sample(
        self,
        prompts: Sequence[Prompt],
        stop_after: str | None,
        on_done: Callable[[Sample], None] | None,
    ) -> list[Sample]:
        queue = list(range(len(prompts)))[::-1]
        results: dict[int, Sample] = {}
        n_rows = min(self.config.batch_size, len(prompts))
        widest = max(segment.block_size for segment in self.layout.segments)
        self.cache = KVCache(n_rows, self.layout.max_len + widest, self.device)
        self.block = np.full((n_rows, widest), self.ids.mask)  # current block's ids
        self.size = np.zeros(n_rows, dtype=np.int64)  # its length; 0: no block yet
        self.step = np.zeros(n_rows, dtype=np.int64)
        self.rows: list[_Row | None] = [None] * n_rows
        owner = [-1] * n_rows
        while True:
            for r, row in enumerate(self.rows):
                if row is None and queue:
                    owner[r] = queue.pop()
                    self._start(r, prompts[owner[r]], stop_after)
            groups = self._group_rows()
            if not groups:
                break
            for rows in groups:
                self._advance(np.array(rows))
            for r in self._finished_blocks():
                sample = self._end_block(r)
                if sample is not None:
                    results[owner[r]] = sample
                    if on_done is not None:
                        on_done(sample)
        return [results[i] for i in range(len(prompts))]

    # -- rows -------------------------------------------------------------------------------

    def _start(self, r: int, prompt: Prompt, stop_after: str | None) -> None:
        """Lay the prompt into row ``r``: question and given segments are clean tokens."""
        self.cache.clear(r)
        question = np.asarray(prompt.question)
        n_question = len(question)
        blocks = np.zeros(n_question, dtype=np.int64)
        pending = [(self.net.module_of(self.layout.segments[0].name), question, blocks)]
        position, ordinal, to_write = n_question, 1, []
        for spec in self.layout.segments:
            if spec.name in prompt.given and not to_write:
                ids = np.asarray(prompt.given[spec.name])
                n_blocks = -(-len(ids) // spec.block_size)
                fill = np.full(n_blocks * spec.block_size - len(ids), self.ids.fill)
                ids = np.concatenate([ids, fill]).astype(np.int64)
                blocks = ordinal + np.arange(len(ids)) // spec.block_size
                pending.append((self.net.module_of(spec.name), ids, blocks))
                position, ordinal = position + len(ids), ordinal + n_blocks
            else:
                to_write.append(spec)
                if spec.name == stop_after:
                    break
        if self.autoregressive:
            # Every token is a block of its own: the mask rule is then the causal mask.
            everything = np.concatenate([ids for _, ids, _ in pending])
            pending = [(pending[0][0], everything, np.arange(len(everything)))]
        sample = Sample(prompt.problem, trajectory=[] if self.recording else None)
        self.rows[r] = _Row(sample, to_write, pending, position, ordinal)
        self._open_block(r)

    def _open_block(self, r: int) -> None:
        self.size[r] = self.rows[r].segments[0].block_size
        self.block[r] = self.ids.mask
        self.step[r] = 0

    def _group_rows(self) -> list[list[int]]:
        """Rows that can share a pass: same module and, for little padding, same kind of tokens."""
        groups: dict[tuple, list[int]] = {}
        for r, row in enumerate(self.rows):
            if row is None:
                continue
            if row.pending:
                new = row.sample.evaluations == 0  # prompts are longer than blocks
                kind = (row.pending[0][0], "prompt" if new else "commit")
            else:
                kind = (self.net.module_of(row.segments[0].name), "denoise")
            groups.setdefault(kind, []).append(r)
        return list(groups.values())

    def _finished_blocks(self) -> list[int]:
        columns = np.arange(self.block.shape[1])
        masked = (self.block == self.ids.mask) & (columns < self.size[:, None])
        done = ~masked.any(1)
        return [r for r, row in enumerate(self.rows) if row is not None and done[r]]

    def _end_block(self, r: int) -> Sample | None:
        """Take over row ``r``'s finished block; the sample if that was the last one."""
        row = self.rows[r]
        spec, size = row.segments[0], self.size[r]
        ids = self.block[r, :size].copy()
        row.written.extend(ids.tolist())
        end = self.ids.ends[spec.name]
        ended = end in ids
        if ended or len(row.written) >= spec.max_len:
            text = row.written[: row.written.index(end)] if ended else row.written
            row.sample.segments[spec.name] = [i for i in text if i != self.ids.fill]
            row.sample.ended[spec.name] = ended
            row.written = []
            row.segments = row.segments[1:]
        if not row.segments:
            self.rows[r] = None
            return row.sample
        blocks = np.full(size, row.position if self.autoregressive else row.ordinal)
        row.pending = [(self.net.module_of(spec.name), ids, blocks)]
        row.position += int(size)
        row.ordinal += 1
        self._open_block(r)
        return None

    # -- one pass ---------------------------------------------------------------------------

    def _advance(self, rows: np.ndarray) -> None:
        """One network pass over some rows: commit what is pending, denoise the current block."""
        first = self.rows[rows[0]]
        module = (
            first.pending[0][0] if first.pending else self.net.module_of(first.segments[0].name)
        )
        committed = [self._take_pending(r, module) for r in rows]
        denoise = np.array(
            [
                not self.rows[r].pending
                and self.net.module_of(self.rows[r].segments[0].name) == module
                for r in rows
            ]
        )
        n_pending = np.array([len(ids) for ids, _ in committed])
        state, asked = None, None
        n_block = 0
        if not self.autoregressive and denoise.any():
            state = self._block_state(rows)
            asked = self.strategy.choose(state) & denoise[:, None]
            self.step[rows] = np.where(denoise, state.step, self.step[rows])
            n_block = state.masked.shape[1]
        width = int(n_pending.max(initial=0))
        ids = np.zeros((len(rows), width + n_block), dtype=np.int64)
        block, position = np.zeros_like(ids), np.zeros_like(ids)
        noisy, real = np.zeros(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool)
        for i, (r, (pending, blocks)) in enumerate(zip(rows, committed)):
            n, end = len(pending), self.rows[r].position
            # Whatever is still pending for the other module lies between these and `end`.
            end -= sum(len(later) for _, later, _ in self.rows[r].pending)
            ids[i, :n], block[i, :n], real[i, :n] = pending, blocks, True
            position[i, :n] = np.arange(end - n, end)
        if n_block:
            here = slice(width, None)
            offset = np.arange(n_block)
            start = np.array([self.rows[r].position for r in rows])
            ids[:, here] = self.block[rows, :n_block]
            position[:, here] = start[:, None] + offset
            block[:, here] = np.array([self.rows[r].ordinal for r in rows])[:, None]
            noisy[:, here] = True
            real[:, here] = (offset < self.size[rows][:, None]) & denoise[:, None]
        hidden, select = self._run(
            rows, module, ids, position, noisy, block, real, asked, n_pending
        )
        self.cache.commit(self._tensor(rows), self._tensor(n_pending))
        for r in rows:
            self.rows[r].sample.evaluations += 1
        if hidden is None:
            return
        logits = self.net.logits(hidden, module)
        if self.autoregressive:
            self._write_next(rows[select.any(1)], logits)
        else:
            self._write_block(rows, state, asked, logits, n_pending > 0)

    def _take_pending(self, r: int, module: str) -> tuple[np.ndarray, np.ndarray]:
        """Ids and block ordinals of row ``r``'s pending tokens that ``module`` runs."""
        row = self.rows[r]
        mine = []
        while row.pending and row.pending[0][0] == module:
            mine.append(row.pending.pop(0))
        if not mine:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        return tuple(np.concatenate([entry[i] for entry in mine]) for i in (1, 2))

    def _block_state(self, rows: np.ndarray) -> BlockState:
        widest = int(self.size[rows].max())
        masked = self.block[rows, :widest] == self.ids.mask
        masked &= np.arange(widest) < self.size[rows][:, None]
        return BlockState(
            masked,
            np.array([self.rows[r].sample.problem for r in rows]),
            np.array([self.rows[r].ordinal for r in rows]),
            self.step[rows].copy(),
            self.size[rows],
        )

    def _run(
        self, rows, module, ids, position, noisy, block, real, asked, n_pending
    ) -> tuple[Tensor | None, np.ndarray]:
        """The pass itself. Returns hidden states at the selected places, and which those are."""
        select = np.zeros(ids.shape, dtype=bool)
        if asked is not None:
            select[:, ids.shape[1] - asked.shape[1] :] = asked
        elif self.autoregressive:
            # The last pending token predicts the next one.
            ready = np.array([not self.rows[r].pending for r in rows])
            select[np.arange(len(rows)), n_pending - 1] = ready
        # Padding asks as the question would (its keys are never seen): no softmax is empty.
        tags = Tags(
            torch.zeros(ids.shape, dtype=torch.long, device=self.device),
            self._tensor(noisy),
            self._tensor(np.where(real, block, 0)),
        )
        tokens = Tokens(self._tensor(ids), self._tensor(position), tags)
        memory = self.cache.open(self._tensor(rows), self._tensor(real))
        self.statistics.passes += 1
        self.statistics.rows += len(rows)
        self.statistics.positions += ids.size
        if not select.any():
            self.net(tokens, memory, module, keys_only=True)
            return None, select
        hidden, _ = self.net(tokens, memory, module, select=self._tensor(select))
        return hidden, select

    def _write_block(
        self, rows, state: BlockState, asked: np.ndarray, logits: Tensor, commits: np.ndarray
    ) -> None:
        """Turn predictions into tokens, where the strategy decides so."""
        place = np.nonzero(asked)
        u = token_uniforms(
            self.config.seed, state.problem[place[0]], state.ordinal[place[0]], place[1]
        )
        tokens, probability = pick_tokens(logits, self.config.temperature, self.config.top_p, u)
        confidence = np.zeros(asked.shape)
        confidence[place] = probability.cpu().numpy()
        picked = np.zeros(asked.shape, dtype=np.int64)
        picked[place] = tokens.cpu().numpy()
        decided = self.strategy.decide(state, asked, confidence)
        n_block = asked.shape[1]
        self.block[rows, :n_block] = np.where(decided, picked, self.block[rows, :n_block])
        if self.recording:
            for i in np.flatnonzero(decided.any(1)):
                self._record(
                    rows[i], state.step[i], decided[i].nonzero()[0], confidence[i], commits[i]
                )

    def _write_next(self, rows: np.ndarray, logits: Tensor) -> None:
        problem = np.array([self.rows[r].sample.problem for r in rows])
        ordinal = np.array([self.rows[r].ordinal for r in rows])
        u = token_uniforms(self.config.seed, problem, ordinal, np.zeros_like(ordinal))
        tokens, probability = pick_tokens(logits, self.config.temperature, self.config.top_p, u)
        self.block[rows, 0] = tokens.cpu().numpy()
        if self.recording:
            # The token before is always committed by the pass that predicts from it.
            for r, p in zip(rows, probability.cpu().numpy()):
                self._record(r, 1, np.zeros(1, dtype=np.int64), np.atleast_1d(p), True)

    def _record(
        self, r: int, step: int, places: np.ndarray, confidence: np.ndarray, commits: bool
    ) -> None:
        """Note what the pass just made decided at ``places`` of row ``r``'s block."""
        row = self.rows[r]
        start = len(row.written)
        event = Event(
            row.segments[0].name,
            start // int(self.size[r]),
            int(step),
            tuple((start + places).tolist()),
            tuple(self.block[r, places].tolist()),
            tuple(confidence[places].tolist()),
            row.sample.evaluations,
            bool(commits),
        )
        row.sample.trajectory.append(event)
        if self.on_event is not None:
            self.on_event(row.sample.problem, event)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)
