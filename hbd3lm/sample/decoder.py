"""Plan first, then execution: many problems at once, each at its own length.

One engine for block diffusion and next-token models. A problem owns a row of the KV cache; it
starts with a prompt (question, or question and a given plan), writes its segments block by
block, leaves when the last one has ended, and the next problem takes its row.

A finished block enters the cache with the keys and values of its *clean* tokens. That costs no
extra pass: the pass that commits it is also the first denoising step of the next block, since
under the mask rule [finished block (clean), next block (noisy)] is just more tokens.

Under a shifted head a position predicts the token after it, and the clean token before a block its
first one. That token is committed once, so its hidden state is kept while the block lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hbd3lm.model.batch import Tokens
from hbd3lm.model.layout import Layout, SegmentSpec
from hbd3lm.model.mask import Tags
from hbd3lm.model.precision import resolve_precision
from hbd3lm.model.transformer import UNCOMPILED, Transformer
from hbd3lm.sample.cache import KVCache
from hbd3lm.sample.compiled import compile_blocks
from hbd3lm.sample.strategies import (
    BlockState,
    SamplingConfig,
    make_strategy,
)
from hbd3lm.sample.tokens import draw_tokens, most_probable, token_uniforms
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


@dataclass(frozen=True)
class _Clean:
    """Tokens to be committed: the module that runs them; ids, positions and ordinals, each [n]."""

    module: str
    ids: np.ndarray
    position: np.ndarray
    ordinal: np.ndarray


@dataclass
class _Row:
    """A problem in flight."""

    sample: Sample
    segments: list[SegmentSpec]  # still to be written, the current one first
    pending: list[_Clean]
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
        self.shift = net.config.shift and not autoregressive
        # Every clean token is then a block of its own: the mask rule is the causal mask.
        self.causal = net.config.causal_context or autoregressive
        self.strategy = make_strategy(config)
        self.device = next(net.parameters()).device
        self.calls = compile_blocks(self.device) if config.compile else UNCOMPILED
        self.mixed = resolve_precision(config.precision) == "bf16-mixed"
        self.heads: dict[str, tuple[Tensor, Tensor | None]] = {}  # weight and bias of each module
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
        self.before: Tensor | None = None  # shifted: [n_rows, D] hidden states before the blocks
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
        position, ordinal, to_write = len(question), 1, []
        module = self.net.module_of(self.layout.segments[0].name)
        pending = [self._clean(module, question, 0, np.zeros(position, dtype=np.int64))]
        for spec in self.layout.segments:
            if spec.name in prompt.given and not to_write:
                ids = np.asarray(prompt.given[spec.name])
                n_blocks = -(-len(ids) // spec.block_size)
                fill = np.full(n_blocks * spec.block_size - len(ids), self.ids.fill)
                ids = np.concatenate([ids, fill]).astype(np.int64)
                blocks = ordinal + np.arange(len(ids)) // spec.block_size
                module = self.net.module_of(spec.name)
                pending += self._lead(pending[-1], module)
                pending.append(self._clean(module, ids, position, blocks))
                position, ordinal = position + len(ids), ordinal + n_blocks
            else:
                to_write.append(spec)
                if spec.name == stop_after:
                    break
        pending += self._lead(pending[-1], self.net.module_of(to_write[0].name))
        sample = Sample(prompt.problem, trajectory=[] if self.recording else None)
        self.rows[r] = _Row(sample, to_write, pending, position, ordinal)
        self._open_block(r)

    def _clean(self, module: str, ids: np.ndarray, start: int, block: np.ndarray) -> _Clean:
        """Tokens from position ``start`` on, of the blocks ``block``."""
        position = start + np.arange(len(ids))
        return _Clean(module, ids, position, position if self.causal else block)

    def _lead(self, last: _Clean, module: str) -> list[_Clean]:
        """What ``module`` reads itself of the tokens before its first: under a shifted head the
        last one, which predicts it."""
        if last.module == module or not (self.shift or self.autoregressive):
            return []
        return [_Clean(module, last.ids[-1:], last.position[-1:], last.ordinal[-1:])]

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
                kind = (row.pending[0].module, "prompt" if new else "commit")
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
        module = self.net.module_of(spec.name)
        done = self._clean(module, ids, row.position, np.full(size, row.ordinal))
        row.pending = [done, *self._lead(done, self.net.module_of(row.segments[0].name))]
        row.position += int(size)
        row.ordinal += 1
        self._open_block(r)
        return None

    # -- one pass ---------------------------------------------------------------------------

    def _advance(self, rows: np.ndarray) -> None:
        """One network pass over some rows: commit what is pending, denoise the current block."""
        first = self.rows[rows[0]]
        module = (
            first.pending[0].module if first.pending else self.net.module_of(first.segments[0].name)
        )
        committed = [self._take_pending(r, module) for r in rows]
        denoise = np.array(
            [
                not self.rows[r].pending
                and self.net.module_of(self.rows[r].segments[0].name) == module
                for r in rows
            ]
        )
        n_pending = np.array([len(ids) for ids, _, _ in committed])
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
        for i, (pending, places, ordinals) in enumerate(committed):
            n = len(pending)
            ids[i, :n], position[i, :n], block[i, :n] = pending, places, ordinals
            real[i, :n] = True
        if n_block:
            here = slice(width, None)
            offset = np.arange(n_block)
            start = np.array([self.rows[r].position for r in rows])
            ids[:, here] = self.block[rows, :n_block]
            position[:, here] = start[:, None] + offset
            ordinal = start if self.causal else np.array([self.rows[r].ordinal for r in rows])
            block[:, here] = ordinal[:, None]
            noisy[:, here] = True
            real[:, here] = (offset < self.size[rows][:, None]) & denoise[:, None]
        select = self._select(ids.shape, asked, denoise, n_pending)
        hidden = self._run(rows, module, ids, position, noisy, block, real, select)
        self.cache.commit(self._tensor(rows), self._tensor(n_pending))
        for r in rows:
            self.rows[r].sample.evaluations += 1
        if self.shift and asked is not None:
            hidden = self._hidden_before(rows, hidden, select, asked, n_pending)
        if hidden is None:
            return
        if self.autoregressive:
            self._write_next(rows[select.any(1)], hidden, module)
        else:
            self._write_block(rows, state, asked, hidden, module, n_pending > 0)

    def _take_pending(self, r: int, module: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ids, positions and ordinals of row ``r``'s pending tokens that ``module`` runs."""
        row = self.rows[r]
        mine = []
        while row.pending and row.pending[0].module == module:
            entry = row.pending.pop(0)
            mine.append((entry.ids, entry.position, entry.ordinal))
        if not mine:
            return (np.empty(0, dtype=np.int64),) * 3
        return tuple(map(np.concatenate, zip(*mine)))

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

    def _select(
        self, shape: tuple[int, int], asked: np.ndarray | None, denoise, n_pending
    ) -> np.ndarray:
        """Bool ``shape``: the tokens of a pass whose hidden states are wanted."""
        select = np.zeros(shape, dtype=bool)
        if asked is not None:
            here = select[:, shape[1] - asked.shape[1] :]
            if self.shift:
                here[:, :-1] = asked[:, 1:]
            else:
                here[:] = asked
        if self.autoregressive or self.shift:
            # The last pending token predicts the next one, if all before that are there.
            rows = np.flatnonzero(denoise & (n_pending > 0))
            select[rows, n_pending[rows] - 1] = True
        return select

    def _hidden_before(self, rows, hidden: Tensor | None, select, asked, n_pending) -> Tensor:
        """Hidden states [M, D] that predict the asked tokens: of the tokens before them."""
        n_block = asked.shape[1]
        width = select.shape[1] - n_block
        if hidden is None:  # the first tokens alone are asked, whose predictions are known
            return self.before[self._tensor(rows[np.nonzero(asked)[0]])]
        table = hidden.new_zeros(*select.shape, hidden.shape[-1])
        table[self._tensor(select)] = hidden
        if self.before is None:
            self.before = hidden.new_zeros(len(self.rows), hidden.shape[-1])
        ends = np.flatnonzero(select[:, :width].any(1))
        self.before[self._tensor(rows[ends])] = table[
            self._tensor(ends), self._tensor(n_pending[ends] - 1)
        ]
        first = self.before[self._tensor(rows)][:, None]
        shifted = torch.cat([first, table[:, width : width + n_block - 1]], 1)
        return shifted[self._tensor(asked)]

    def _run(self, rows, module, ids, position, noisy, block, real, select) -> Tensor | None:
        """The pass itself: hidden states at the selected places; None where there are none."""
        # Padding asks as the question would, and is never noisy: no softmax is empty. (Its keys
        # are not seen, but a NaN among them would go through a weight of zero.)
        tags = Tags(
            torch.zeros(ids.shape, dtype=torch.long, device=self.device),
            self._tensor(noisy & real),
            self._tensor(np.where(real, block, 0)),
        )
        tokens = Tokens(self._tensor(ids), self._tensor(position), tags)
        memory = self.cache.open(self._tensor(rows), self._tensor(real))
        self.statistics.passes += 1
        self.statistics.rows += len(rows)
        self.statistics.positions += ids.size
        if not select.any():
            self.net(tokens, memory, module, keys_only=True, calls=self.calls)
            return None
        # As places in each row: the last block then makes no other queries.
        count = select.sum(1)
        most = int(count.max())
        places = self._tensor(np.argsort(~select, axis=1, kind="stable")[:, :most])
        # [n, most, D]
        hidden, _ = self.net(tokens, memory, module, select=places, calls=self.calls)
        if count.min() == most:
            return hidden.flatten(0, 1)
        return hidden[self._tensor(np.arange(most) < count[:, None])]

    def _pick(
        self, hidden: Tensor, module: str, problem: np.ndarray, ordinal: np.ndarray, place
    ) -> tuple[np.ndarray, np.ndarray]:
        """A token for each of some positions, and its probability: [M] each, hidden [M, D]."""
        config, stack = self.config, self.net.stacks[module]
        if module not in self.heads:
            # Rounded once: autocast would round this part of a table in every pass.
            table, bias = stack.output_table[: stack.n_classes], stack.output_bias
            dtype = torch.bfloat16 if self.mixed else table.dtype
            self.heads[module] = table.to(dtype), None if bias is None else bias.to(dtype)
        table, bias = self.heads[module]
        hidden = hidden.to(table.dtype)
        if config.temperature == 0:
            found = most_probable(hidden, table, bias)
        else:
            u = token_uniforms(config.seed, problem, ordinal, place)
            logits = F.linear(hidden, table, bias)
            found = draw_tokens(logits, config.temperature, config.top_p, u)
        tokens, probability = (x.cpu().numpy() for x in found)
        return tokens, probability

    def _write_block(
        self,
        rows: np.ndarray,
        state: BlockState,
        asked: np.ndarray,
        hidden: Tensor,
        module: str,
        commits: np.ndarray,
    ) -> None:
        """Turn predictions into tokens, where the strategy decides so."""
        place = np.nonzero(asked)
        about = (state.problem[place[0]], state.ordinal[place[0]], place[1])
        tokens, probability = self._pick(hidden, module, *about)
        confidence = np.zeros(asked.shape)
        confidence[place] = probability
        picked = np.zeros(asked.shape, dtype=np.int64)
        picked[place] = tokens
        decided = self.strategy.decide(state, asked, confidence)
        n_block = asked.shape[1]
        self.block[rows, :n_block] = np.where(decided, picked, self.block[rows, :n_block])
        if self.recording:
            for i in np.flatnonzero(decided.any(1)):
                self._record(
                    rows[i], state.step[i], decided[i].nonzero()[0], confidence[i], commits[i]
                )

    def _write_next(self, rows: np.ndarray, hidden: Tensor, module: str) -> None:
        problem = np.array([self.rows[r].sample.problem for r in rows])
        ordinal = np.array([self.rows[r].ordinal for r in rows])
        tokens, probability = self._pick(hidden, module, problem, ordinal, np.zeros_like(ordinal))
        self.block[rows, 0] = tokens
        if self.recording:
            # The token before is always committed by the pass that predicts from it.
            for r, p in zip(rows, probability):
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
