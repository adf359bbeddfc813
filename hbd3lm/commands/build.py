"""From a composed configuration to layout, card, objective, documents; and a trained model back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from hbd3lm.commands.settings import AlgoConfig, HierarchicalConfig, typed
from hbd3lm.errors import UserError, some_of

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.diffusion.objective import Objective
    from hbd3lm.evaluate.answers import GenerationRun
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.layout import Document, Layout
    from hbd3lm.model.transformer import Transformer
    from hbd3lm.sample.decoder import Sample
    from hbd3lm.sample.strategies import SamplingConfig


def build_layout(cfg: DictConfig) -> Layout:
    """Caps and blocks; with ``total_len`` below their sum the caps shrink in proportion."""
    from hbd3lm.model.layout import plan_execution_layout

    h = typed(HierarchicalConfig, cfg.hierarchical, "hierarchical")
    blocks = {"question_len": 1, "plan_len": h.plan_block_size, "exec_len": h.exec_block_size}
    names = ("question_len", "plan_len", "exec_len") if h.enabled else ("question_len", "exec_len")
    lengths = {name: getattr(h, name) for name in names}
    total = sum(lengths.values())
    if h.total_len is not None and total > h.total_len:
        for name, length in lengths.items():
            shrunk = length * h.total_len // total
            if blocks[name] == length:  # one block a segment (mdlm): the block shrinks with it
                blocks[name] = max(1, shrunk)
            lengths[name] = shrunk // max(1, blocks[name]) * blocks[name]
            if lengths[name] < 1:
                raise UserError(
                    f"hierarchical.total_len={h.total_len} leaves no whole block of "
                    f"{blocks[name]} tokens for {name}; raise it, or lower block_size"
                )
    return plan_execution_layout(
        **lengths,
        plan_block_size=blocks["plan_len"],
        exec_block_size=blocks["exec_len"],
        with_plan=h.enabled,
    )


def describe_layout(layout: Layout) -> str:
    """Its segments, caps and blocks in a line, to print."""
    segments = ", ".join(f"{s.name} {s.max_len} by {s.block_size}" for s in layout.segments)
    return f"question {layout.question_len}, {segments}"


def build_model_config(cfg: DictConfig, vocab_size: int) -> ModelConfig:
    """The network's sizes: those of ``model``, or matched ones (``hierarchical.match``)."""
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.match import match_parameters

    h = typed(HierarchicalConfig, cfg.hierarchical, "hierarchical")
    extra = {"vocab_size": vocab_size, "modules": h.modules}
    config = typed(ModelConfig, {**cfg.model, **extra}, "model")
    return match_parameters(config) if h.match == "parameters" else config


def build_training_objective(
    cfg: DictConfig, card: ModelCard, tokenizer: ProblemTokenizer
) -> Objective:
    """The objective of a run, with the schedule that ``algo`` names."""
    algo = typed(AlgoConfig, cfg.algo, "algo")
    return build_objective(
        card.objective,
        card.layout,
        tokenizer.mask_id,
        card.model,
        algo.t_min,
        algo.t_max,
        algo.schedule,
    )


def build_objective(
    name: str,
    layout: Layout,
    mask_id: int,
    model: ModelConfig,
    t_min: float = 1e-3,
    t_max: float = 1.0,
    schedule: str = "loglinear",
) -> Objective:
    """The objective called ``diffusion`` or ``autoregressive`` for a network of ``model``."""
    from hbd3lm.diffusion.objective import Autoregressive, BlockDiffusion
    from hbd3lm.diffusion.schedule import LogLinearSchedule, SearchedSchedule

    if schedule not in ("loglinear", "searched"):
        raise UserError(f"algo.schedule={schedule}: choose loglinear or searched")
    if name == "autoregressive":
        if schedule == "searched":
            raise UserError("algo.schedule=searched: next-token prediction has no noise to search")
        return Autoregressive(layout, model.modules)
    if name == "diffusion":
        base = LogLinearSchedule(t_min, t_max)
        searched = None
        if schedule == "searched":
            searched = SearchedSchedule(base, len(layout.segments))
        return BlockDiffusion(
            layout, mask_id, model.modules, base, searched, model.shift, model.causal_context
        )
    raise UserError(f"algo.objective={name}: choose diffusion or autoregressive")


def build_card(cfg: DictConfig, tokenizer: ProblemTokenizer) -> ModelCard:
    """The description of the model a configuration asks for."""
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.train.config import LoraConfig

    model = build_model_config(cfg, tokenizer.vocab_size)
    lora = typed(LoraConfig, cfg.training.lora, "training.lora")
    return ModelCard(
        model,
        build_layout(cfg),
        typed(AlgoConfig, cfg.algo, "algo").objective,
        {"name": tokenizer.name, "fingerprint": tokenizer.fingerprint},
        OmegaConf.to_container(cfg, resolve=True),
        lora.scales(model.modules),
    )


def build_documents(
    examples: list[HierarchicalExample],
    tokenizer: ProblemTokenizer,
    layout: Layout,
    report: Callable[[str], None] = print,
) -> list[Document]:
    """Examples as documents; what the caps cut is reported, never silent."""
    from hbd3lm.data.encoding import Caps, encode_examples
    from hbd3lm.model.layout import build_document

    caps = {segment.name: segment.max_len for segment in layout.segments}
    encoded, truncation = encode_examples(
        examples, tokenizer, Caps(**({"plan": 10**9} | caps), question=layout.question_len)
    )
    if truncation:
        report(f"truncated: {truncation}")
    return [
        build_document(
            item.question,
            {segment.name: getattr(item, segment.name) for segment in layout.segments},
            layout,
            tokenizer.fill_id,
        )
        for item in encoded
    ]


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with everything needed to use it."""

    net: Transformer
    card: ModelCard
    objective: Objective
    tokenizer: ProblemTokenizer
    path: Path

    def generate(
        self,
        examples: Sequence[HierarchicalExample],
        config: SamplingConfig,
        mode: str,
        on_done: Callable[[Sample], None] | None = None,
    ) -> GenerationRun:
        """See :func:`hbd3lm.evaluate.answers.generate`."""
        from hbd3lm.evaluate.answers import generate

        return generate(
            self.net,
            self.card.layout,
            self.tokenizer,
            examples,
            config,
            mode,
            self.card.objective == "autoregressive",
            on_done,
        )


def load_model(cfg: DictConfig, given: Sequence[str] = ()) -> LoadedModel:
    """``checkpoint``, or the run folder's best, or its last; with the tokenizer it was trained on.

    ``checkpoint`` may also be a folder that ``hbd3lm export`` wrote.

    The network is on the GPU where there is one, unless trainer.accelerator=cpu.

    Args:
        given: the user's overrides; a warning names those that contradict the checkpoint.

    Raises:
        UserError: no checkpoint, a damaged one, or a tokenizer that is not the trained one.
    """
    import torch

    from hbd3lm.model.checkpoint import load_network

    if cfg.checkpoint is not None:
        path = Path(cfg.checkpoint)
    else:
        folder = Path(cfg.run_dir) / "checkpoints"
        path = folder / "best.ckpt"
        if not path.exists():
            path = folder / "last.ckpt"
    what = "checkpoint" if cfg.checkpoint is not None else "run_dir"
    net, card = load_network(path, cfg.trainer.attention, what)
    ignored = _contradictions(cfg, given, card)
    if ignored:
        print(
            f"warning: {path} is used as it was trained, with {some_of(ignored)}",
            file=sys.stderr,
        )
    tokenizer = load_trained_tokenizer(card, path, cfg.data.dir)
    objective = build_objective(card.objective, card.layout, tokenizer.mask_id, card.model)
    if torch.cuda.is_available() and cfg.trainer.accelerator != "cpu":
        net.cuda()
    return LoadedModel(net, card, objective, tokenizer, path)


_TRAINED = ("model", "algo", "tokenizer", "hierarchical", "training.block_size")
"""What a checkpoint decides, whatever an evaluation says."""


def _contradictions(cfg: DictConfig, given: Sequence[str], card: ModelCard) -> list[str]:
    """Overrides that a checkpoint was not trained with, as ``key=value (not VALUE)``."""
    trained, found = OmegaConf.create(card.settings), []
    for override in given:
        key = override.lstrip("+~").partition("=")[0].removeprefix("training.")
        if key == "block_size":  # the name that older checkpoints have right, too
            key = "training.block_size"
        if not any(key == name or key.startswith(f"{name}.") for name in _TRAINED):
            continue
        if OmegaConf.is_dict(OmegaConf.select(cfg, key)):
            key += ".name"  # model=small
        wanted, is_there = OmegaConf.select(cfg, key), OmegaConf.select(trained, key)
        if is_there is not None and wanted != is_there:
            found.append(f"{key}={is_there} (not {wanted})")
    return found


def load_trained_tokenizer(
    card: ModelCard, checkpoint: Path, data_dir: str | None = None
) -> ProblemTokenizer:
    """The tokenizer saved beside the checkpoint, else by name; refused unless it is the same."""
    from hbd3lm.data.tokenizer import load_tokenizer

    if checkpoint.is_dir():  # an exported model
        saved = checkpoint
        if not (saved / "tokenizer.json").is_file():
            raise UserError(f"checkpoint: {saved} has no tokenizer.json; export the model again")
    else:
        saved = checkpoint.parent.parent / "tokenizer"
    tokenizer = load_tokenizer(saved if saved.is_dir() else card.tokenizer["name"], data_dir)
    if tokenizer.fingerprint != card.tokenizer["fingerprint"]:
        raise UserError(
            f"checkpoint: {checkpoint} was trained with the tokenizer {card.tokenizer['name']!r} "
            f"({card.tokenizer['fingerprint']}), found {tokenizer.fingerprint}; put the run's "
            f"tokenizer folder at {saved}"
        )
    if tokenizer.vocab_size != card.model.vocab_size:
        raise UserError(
            f"checkpoint: the network in {checkpoint} has {card.model.vocab_size} ids, its "
            f"tokenizer {tokenizer.vocab_size}; use another checkpoint of that run"
        )
    return tokenizer
