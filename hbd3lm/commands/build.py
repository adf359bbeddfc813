"""From a composed configuration to the objects of the rooms below; refusals name the key."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from hbd3lm.data.tokenizer import FILL, MASK, SEGMENT_END, SPECIAL_TOKENS
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.sources import ProblemSet
    from hbd3lm.data.tokenizer import ProblemTokenizer
    from hbd3lm.diffusion.objective import Objective
    from hbd3lm.model.checkpoint import ModelCard
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.families.pretrained import Pretrained
    from hbd3lm.model.layout import Document, Layout
    from hbd3lm.model.transformer import Transformer

T = TypeVar("T")


@dataclass(frozen=True)
class HierarchicalConfig:
    """The ``hierarchical`` group: segments, caps, blocks, modules."""

    enabled: bool = True
    """False: question -> execution, without a plan."""
    question_len: int = 128
    """Cap of the question in tokens."""
    plan_len: int = 128
    """Cap of the plan in tokens."""
    exec_len: int = 256
    """Cap of the execution in tokens."""
    total_len: int | None = None
    """Cap of all together; the caps above shrink in proportion to meet it."""
    plan_block_size: int = 16
    """Tokens of the plan denoised together."""
    exec_block_size: int = 16
    """Tokens of the execution denoised together."""
    modules: str = "shared"
    """``shared`` or ``separate`` weights for plan and execution."""
    match: str = "operations"
    """``separate``: two modules of the model's sizes, which cost a token as many ``operations`` as
    a shared one; or narrower ones that hold as many ``parameters``."""

    def __post_init__(self) -> None:
        if self.match not in ("operations", "parameters"):
            raise UserError(
                f"hierarchical.match={self.match}: choose one of operations, parameters"
            )
        if self.match == "parameters" and self.modules == "shared":
            raise UserError(
                "hierarchical.match=parameters is for hierarchical.modules=separate: a shared "
                "model has no other to be matched with"
            )


@dataclass(frozen=True)
class DataConfig:
    """The ``data`` group: where problems and plans come from."""

    name: str
    """A data set of :func:`hbd3lm.data.sources.load_problems`."""
    dir: str | None = None
    """Folder with its files."""
    train_path: str | None = None
    """Plan file to train on; None: problems of ``name`` with plans by the planner."""
    valid_path: str | None = None
    """Plan file to validate on; None: a slice held out of the training problems."""
    test_path: str | None = None
    """Plan file to test on."""
    valid_size: int = 256
    """Problems held out, at most a tenth of all."""
    num_train: int | None = None
    """Only the first so many training problems (the held-out ones among them)."""
    num_test: int = 400
    """``laboratory``: problems held out."""
    min_steps: int = 1
    """``laboratory``: fewest calculations of a solution."""
    max_steps: int = 2
    """``laboratory``: most calculations of a solution."""
    largest_number: int = 20
    """``laboratory``: no calculation has a larger number in it."""

    def __post_init__(self) -> None:
        for name in ("valid_size", "num_train", "num_test", "min_steps", "largest_number"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"data.{name} must be at least 1, got {value}")


@dataclass(frozen=True)
class EvalConfig:
    """The ``eval`` group: which problems are scored, and how thoroughly."""

    split: str = "test"
    """``test``, or ``valid``: the problems held out while training."""
    num_examples: int | None = None
    """Only the first so many problems."""
    samples: int = 16
    """``ppl_eval``: noise draws per problem (and turn)."""
    precision: float | None = None
    """``ppl_eval``: take turns of so many draws until the 95 % interval of the draws is within this
    share of the perplexity, 0.005 for half a percent; None: one turn."""
    max_samples: int = 256
    """``ppl_eval``: draws per problem after which to stop, whatever the precision."""
    output_dir: str = "eval"
    """Folder of results."""

    def __post_init__(self) -> None:
        if self.split not in ("test", "valid"):
            raise UserError(f"eval.split={self.split}: choose test or valid")
        if self.num_examples is not None and self.num_examples < 1:
            raise UserError(f"eval.num_examples must be at least 1, got {self.num_examples}")
        if self.samples < 1:
            raise UserError(f"eval.samples must be at least 1, got {self.samples}")
        if self.precision is not None and not 0 < self.precision < 1:
            raise UserError(
                f"eval.precision must lie between 0 and 1 (0.005: half a percent), got "
                f"{self.precision}"
            )
        if self.precision is not None and self.max_samples < 2 * self.samples:
            raise UserError(
                f"eval.precision compares turns of eval.samples={self.samples} draws: "
                f"eval.max_samples must be at least {2 * self.samples}, got {self.max_samples}"
            )


def typed(kind: type[T], values: Mapping[str, Any], group: str) -> T:
    """Fill a settings dataclass from a group; keys it does not have are left to others.

    Raises:
        UserError: a value of the wrong type, or one the dataclass refuses.
    """
    groups = {f.name: f.default_factory for f in fields(kind) if is_dataclass(f.default_factory)}
    nested = {
        name: typed(inner, values[name], f"{group}.{name}")
        for name, inner in groups.items()
        if name in values
    }
    names = [f.name for f in fields(kind) if f.name in values and f.name not in groups]
    chosen = {name: values[name] for name in names}
    try:
        filled = OmegaConf.merge(OmegaConf.structured(kind), chosen)
        content = {name: _plain(filled[name]) for name in names}
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{group}.{error.full_key}: {reason}") from None
    for name, value in content.items():
        # nan passes every comparison a dataclass makes to refuse what is out of bounds.
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{group}.{name}={value}: a finite number is needed")
    return kind(**content, **nested)


def _plain(value: Any) -> Any:
    return tuple(value) if OmegaConf.is_list(value) else value


def read_seed(cfg: DictConfig) -> int:
    """``seed``, a whole number that is not negative."""
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise UserError(f"seed={cfg.seed}: a whole number from 0 up is needed")
    return cfg.seed


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


def build_model_config(cfg: DictConfig, vocab_size: int) -> ModelConfig:
    """The network's sizes: those of ``model``, or matched ones (``hierarchical.match``)."""
    from hbd3lm.model.config import ModelConfig
    from hbd3lm.model.match import match_parameters

    h = typed(HierarchicalConfig, cfg.hierarchical, "hierarchical")
    extra = {"vocab_size": vocab_size, "modules": h.modules}
    config = typed(ModelConfig, {**cfg.model, **extra}, "model")
    return match_parameters(config) if h.match == "parameters" else config


def resolve_pretrained(cfg: DictConfig) -> Pretrained | None:
    """With ``model=pretrained``: write sizes and tokenizer of ``model.path`` into ``cfg``.

    Returns:
        where the weights are; None for any other model.

    Raises:
        UserError: no checkpoint there, one of an unknown kind, or problems too long for it.
    """
    if "path" not in cfg.model:
        return None
    from hbd3lm.data.hub import download_model
    from hbd3lm.model.families.pretrained import read_pretrained

    if not cfg.model.path:
        raise UserError(
            "model=pretrained needs model.path=...: a folder with config.json and weights, the id "
            "of a model on the hub, or a Lightning file of BD3-LM or MDLM"
        )
    path = Path(str(cfg.model.path))
    if not path.exists():
        if path.is_absolute() or str(cfg.model.path).startswith("."):
            raise UserError(f"model.path: no such file or folder: {path}")
        path = download_model(str(cfg.model.path), "model.path", pickles=True)
    source = read_pretrained(path)
    if source.note and not get_rank():
        print(f"model.path: {path}: {source.note}")
    total = build_layout(cfg).max_len
    if source.max_len is not None and total > source.max_len:
        raise UserError(
            f"model.path: the model in {path} reads at most {source.max_len} tokens (its "
            f"max_position_embeddings, sliding_window or model_length), and a problem may have "
            f"{total}; set training.hierarchical.total_len={source.max_len}"
        )
    # Models of next tokens predict the next position and see what stands before; those with a mask
    # token do neither.
    next_token = source.mask_id is None
    pretrained = {"shift": next_token, "causal_context": next_token}
    pretrained = {name: value for name, value in pretrained.items() if cfg.model[name] is None}
    with open_dict(cfg):
        cfg.model.update(source.fields | pretrained)
        cfg.tokenizer.name = str(source.tokenizer or path)
    return source


def check_vocabulary(source: Pretrained, tokenizer: ProblemTokenizer) -> None:
    """Refuse weights and a tokenizer that were not made for one another, as far as one can tell.

    Embeddings may have a few more rows than there are tokens (padding for fast products), never
    fewer; and what the configuration says ends a text must be a special token.

    Raises:
        UserError: they do not fit.
    """
    base = tokenizer.vocab_size - len(SPECIAL_TOKENS)
    where = f"model.path: {source.path}: the tokenizer {tokenizer.name!r}"
    remedy = "use the checkpoint with its own tokenizer files"
    if not base <= source.rows <= base + max(8, source.rows // 100):
        raise UserError(f"{where} has {base} tokens, the embedding {source.rows} rows; {remedy}")
    for index in source.end_ids:
        if index >= base or not tokenizer.is_special(index):
            raise UserError(
                f"{where} has no special token {index}, which ends a text for the network "
                f"(eos_token_id); {remedy}"
            )


def fill_pretrained(
    net: Transformer, source: Pretrained, tokenizer: ProblemTokenizer, seed: int
) -> dict[str, str]:
    """Give ``net`` the weights of ``source``; see :func:`fill_network`.

    The ends of question and plan start as a line end, that of the execution and the fill as the
    checkpoint's end of text, and the mask as the mean of all tokens: of the starts tried, those
    with the lowest loss before any training.

    Returns:
        for the run's card: ``path`` of the weights and their ``fingerprint``.
    """
    from hbd3lm.model.checkpoint import fingerprint_weights
    from hbd3lm.model.families.pretrained import fill_network

    end = source.end_ids[0] if source.end_ids else None
    line = tokenizer.encode("\n")
    line_end = line[0] if len(line) == 1 else end
    starts = {FILL: end, **dict.fromkeys(SEGMENT_END.values(), line_end), MASK: None}
    starts[SEGMENT_END["execution"]] = end
    fill_network(net, source, [starts[token] for token in SPECIAL_TOKENS], seed)
    return {"path": str(source.path), "fingerprint": fingerprint_weights(net)}


def build_training_objective(
    cfg: DictConfig, card: ModelCard, tokenizer: ProblemTokenizer
) -> Objective:
    """The objective of a run, with the schedule that ``algo`` names."""
    return build_objective(
        card.objective,
        card.layout,
        tokenizer.mask_id,
        card.model,
        cfg.algo.t_min,
        cfg.algo.t_max,
        cfg.algo.schedule,
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
        cfg.algo.objective,
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


def load_examples(cfg: DictConfig, split: str) -> list[HierarchicalExample]:
    """The examples of ``train``, ``valid`` or ``test``; see :func:`load_training_examples`."""
    data = typed(DataConfig, cfg.data, "data")
    if split == "test" or (split == "valid" and data.valid_path is not None):
        return _read_or_plan(cfg, data, split)
    train, valid = load_training_examples(cfg)
    return train if split == "train" else valid


def load_training_examples(
    cfg: DictConfig,
) -> tuple[list[HierarchicalExample], list[HierarchicalExample]]:
    """Examples to train on and to validate on, read or planned once for both.

    ``data.<split>_path`` if given, else problems of ``data.name`` with plans by ``planner``,
    written to ``run_dir/data``. Without ``data.valid_path``, validation is a fixed slice held
    out of the training examples; the test set is never used for it.
    """
    data = typed(DataConfig, cfg.data, "data")
    examples = _read_or_plan(cfg, data, "train")
    if data.valid_path is not None:
        return examples, _read_or_plan(cfg, data, "valid")
    if len(examples) == 1:
        print("data: one training problem; it is its own validation set")
        return examples, examples
    held_out = min(data.valid_size, max(1, len(examples) // 10))
    # A slice of the file alone: the same for every seed, model and method.
    order = np.random.default_rng(0).permutation(len(examples))
    train, valid = np.sort(order[held_out:]), order[:held_out]
    return [examples[i] for i in train], [examples[i] for i in valid]


def _read_or_plan(cfg: DictConfig, data: DataConfig, split: str) -> list[HierarchicalExample]:
    from hbd3lm.data.records import read_examples

    path = getattr(data, f"{split}_path")
    examples = read_examples(path, f"data.{split}_path") if path else _plan(cfg, data, split)
    return examples[: data.num_train] if split == "train" else examples


def _plan(cfg: DictConfig, data: DataConfig, split: str) -> list[HierarchicalExample]:
    from hbd3lm.plans.generate import generate_plans
    from hbd3lm.plans.planner import load_planner

    planner = cfg.planner.name
    name = _dataset_name(cfg)
    problems = load_problem_set(cfg, split)
    output = Path(cfg.run_dir) / "data" / f"{split}.json"
    print(f"data: {problems.origin}; plans by {planner} -> {output}")
    if problems.fallback:
        name = "embedded"  # what the plans are of, for whoever reads their manifest
    settings = {"planner": planner, "dataset": name, "split": split}
    with contextlib.ExitStack() as stack:
        if get_rank():  # every process of a training run plans; one of them writes the file
            output = Path(stack.enter_context(tempfile.TemporaryDirectory())) / output.name
        return generate_plans(
            problems.problems,
            load_planner(planner),
            output,
            settings=settings,
            overwrite=True,
            wait=True,
            progress=not get_rank(),
        )


def load_problem_set(cfg: DictConfig, split: str) -> ProblemSet:
    """The problems of ``data.name`` with their annotated solutions, as plans are made for them."""
    data = typed(DataConfig, cfg.data, "data")
    limit = data.num_train if split == "train" else cfg.eval.num_examples
    return _load_problems(_dataset_name(cfg), split, data, limit)


def _dataset_name(cfg: DictConfig) -> str:
    socratic = (cfg.data.name, cfg.planner.name) == ("gsm8k", "socratic")
    return "gsm8k_socratic" if socratic else cfg.data.name


def _load_problems(name: str, split: str, data: DataConfig, limit: int | None) -> ProblemSet:
    from hbd3lm.data.sources import ProblemSet, load_problems

    if name != "laboratory":
        return load_problems(name, split, data.dir, limit, seed=0)
    from hbd3lm.data.synthetic.laboratory import laboratory_problems

    train, test = laboratory_problems(
        data.num_train or 8000,
        data.num_test,
        0,
        data.min_steps,
        data.max_steps,
        data.largest_number,
    )
    problems = (train if split == "train" else test)[:limit]
    kind = f"{data.min_steps} to {data.max_steps} calculations, numbers up to {data.largest_number}"
    return ProblemSet(problems, f"laboratory problems, {split}: {len(problems)} of {kind}")


def get_rank() -> int:
    """Number of this process among those of a job; 0 outside of one."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID")  # as Lightning asks
    return next((int(os.environ[name]) for name in names if os.environ.get(name)), 0)


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with everything needed to use it."""

    net: Transformer
    card: ModelCard
    objective: Objective
    tokenizer: ProblemTokenizer
    path: Path


def load_model(cfg: DictConfig) -> LoadedModel:
    """``checkpoint``, or the run folder's best, or its last; with the tokenizer it was trained on.

    ``checkpoint`` may also be a folder that ``hbd3lm export`` wrote.

    The network is on the GPU where there is one, unless trainer.accelerator=cpu.

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
    tokenizer = load_trained_tokenizer(card, path, cfg.data.dir)
    objective = build_objective(card.objective, card.layout, tokenizer.mask_id, card.model)
    if torch.cuda.is_available() and cfg.trainer.accelerator != "cpu":
        net.cuda()
    return LoadedModel(net, card, objective, tokenizer, path)


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
