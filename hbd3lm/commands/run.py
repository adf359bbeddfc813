"""``main.py``: train, evaluate and sample, configured by Hydra overrides."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hbd3lm.allocator import keep_freed_memory
from hbd3lm.errors import UserError, run_command

if TYPE_CHECKING:
    from hbd3lm.commands.build import LoadedModel
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import GenerationRun
    from hbd3lm.model.layout import Layout

CONFIGS = str(Path(__file__).resolve().parents[1] / "configs")
MODES = ("train", "ppl_eval", "sample_eval", "sample", "doctor")


_PLAIN = re.compile(r"(?!(null|true|false|nan|inf)$)[A-Za-z_./][\w./-]*|\d+-[a-z]+", re.IGNORECASE)
"""Text that Hydra reads as text without quotes: names, paths, ``32-true``."""
FREE_TEXT = ("sampling.question", "sampling.plan")


def main() -> None:
    """Check the overrides on the command line, then hand over to Hydra."""
    sys.argv[1:] = arguments = [quote_text(argument) for argument in sys.argv[1:]]
    others = [argument for argument in arguments if not argument.startswith("mode=")]
    if others and set(others) <= {"-h", "--help"}:
        print(usage())
        return
    overrides = [argument for argument in arguments if not argument.startswith("-")]
    if len(overrides) == len(arguments):  # flags such as --multirun or --help are Hydra's own
        if "mode=experiment" in overrides:
            from hbd3lm.commands.experiment import run_mode

            # It composes a configuration for every run of its own, with settings of its own before
            # the user's: data.max_steps=2 is known where the experiment says data=laboratory.
            sys.exit(run_command(lambda: run_mode(overrides)))
        status = run_command(lambda: check_overrides(overrides))
        if status:
            sys.exit(status)
    _hydra_main()


@hydra.main(version_base=None, config_path=CONFIGS, config_name="config")
def _hydra_main(cfg: DictConfig) -> None:
    # Once more, for --multirun: with flags of Hydra's own main() leaves the check to it.
    overrides = list(HydraConfig.get().overrides.task)
    status = run_command(lambda: refuse_contradictions(cfg, overrides) or dispatch(cfg))
    if status:
        sys.exit(status)


def usage() -> str:
    """What ``--help`` prints: every key with its default and meaning, as the files have them.

    Hydra's own help says less and takes a second.
    """
    text = Path(CONFIGS, "config.yaml").read_text(encoding="utf-8")
    defaults = [d for d in OmegaConf.create(text).defaults if OmegaConf.is_dict(d)]
    chosen = {group: name for d in defaults for group, name in d.items() if " " not in group}
    settings = re.split(r"\n(?=\S)", text)
    lines = [
        "usage: python main.py KEY=VALUE ...       (or hbd3lm VERB KEY=VALUE ...)",
        "",
        "Train, evaluate and sample.",
        "",
        "== groups: GROUP=NAME picks a file of hbd3lm/configs/ ==",
        "",
    ]
    for group in sorted(chosen):
        lines.append(f"{group}: {', '.join(_options(group))}")
    lines += ["", "== settings and their defaults: KEY=VALUE, e.g. training.max_steps=1000 ==", ""]
    lines += [s.rstrip() for s in settings if not s.startswith(("#", "defaults:", "hydra:"))]
    for group, name in sorted(chosen.items()):
        if name is None:  # experiment: a group that is chosen by its own mode
            continue
        content = Path(CONFIGS, group, f"{name}.yaml").read_text(encoding="utf-8")
        lines += ["", f"{group}:", *(f"  {line}" for line in content.splitlines())]
    lines += ["", "With settings of yours: main.py KEY=VALUE ... --cfg job. Hydra's own flags:",
              "--hydra-help."]  # fmt: skip
    return "\n".join(lines)


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in Path(CONFIGS, group).glob("*.yaml"))


def quote_text(override: str) -> str:
    """Quote the text of ``sampling.question=...``: commas and brackets are Hydra's grammar."""
    key, _, value = override.partition("=")
    if key not in FREE_TEXT or value in ("", "null") or value[0] + value[-1] in ('""', "''"):
        return override
    return f"{key}={quote(value)}"


def quote(text: str) -> str:
    """Any text as a quoted value of Hydra's grammar."""
    # Only a backslash before a quote escapes; "${" would be an interpolation.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text).replace("${", "\\${")
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f'"{escaped}{chr(92) * trailing}"'


def override_value(value: Any) -> str:
    """A value as Hydra's grammar wants it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return quote(value)
    return str(value)


def check_overrides(overrides: list[str]) -> None:
    """Refuse, in words a user can act on, what :func:`compose_settings` refuses."""
    compose_settings(overrides)


def compose_settings(overrides: list[str]) -> DictConfig:
    """The configuration, with what does not fit refused in words a user can act on.

    Raises:
        UserError: an unknown key (with the nearest known one), group option or bad syntax.
    """
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        try:
            cfg = hydra.compose("config", overrides=overrides)
            OmegaConf.to_container(cfg, resolve=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(_explain(error, overrides)) from None
    refuse_contradictions(cfg, overrides)
    return cfg


def refuse_contradictions(cfg: DictConfig, overrides: list[str]) -> None:
    """Refuse ``hierarchical.X`` beside another ``training.hierarchical.X`` (and ``block_size``
    beside another ``training.block_size``): one is the other's short name, and neither may win in
    silence.

    Args:
        cfg: what the overrides composed to.
        overrides: as on the command line.

    Raises:
        UserError: both are given, with different values.
    """
    given = {override.lstrip("+~").partition("=")[0]: override for override in overrides}
    for short in ("block_size", *(f"hierarchical.{name}" for name in cfg.hierarchical)):
        long = f"training.{short}"
        different = OmegaConf.select(cfg, short) != OmegaConf.select(cfg, long)
        if short in given and long in given and different:
            raise UserError(
                f"{given[short]} contradicts {given[long]}: {short} is the short name of {long}; "
                "give one of them"
            )


def _explain(error: Exception, overrides: list[str]) -> str:
    groups = [path.name for path in Path(CONFIGS).iterdir() if path.is_dir()]
    # A key may belong to the option that was chosen of a group: data.max_steps to data=laboratory.
    chosen = [o for o in overrides for g, _, name in [o.partition("=")] if g in groups
              and name in _options(g)]  # fmt: skip
    composed = hydra.compose("config", overrides=chosen)
    known = _known_keys(OmegaConf.to_container(composed, resolve=False))
    for override in overrides:
        key, separator, value = override.lstrip("+~").partition("=")
        if not separator:
            return f"{override!r} is no override; write KEY=VALUE, e.g. training.max_steps=1000"
        if key in groups:
            options = _options(key)
            if value not in options:
                return f"{key}={value}: there is no such {key}; choose from {', '.join(options)}"
        elif key not in known:
            near = _nearest(key, value, [*known, *groups])
            tails = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
            hint = (tails or near)[:1]
            suggestion = f"; did you mean {hint[0]}?" if hint else ""
            return f"unknown key {key!r} in {override!r}{suggestion} (all keys: main.py --cfg job)"
    return " ".join(str(error).split())


def _nearest(key: str, value: str, known: list[str]) -> list[str]:
    """The known keys most like ``key``, the likeliest first.

    Likeness alone would take ``modle=nano`` for ``mode``, which shares as many letters in order as
    ``model`` but in a shorter word; a group that has such an option, or a key of the same letters,
    is what was meant.
    """

    def rank(name: str) -> tuple[bool, bool]:
        return Path(CONFIGS, name, f"{value}.yaml").is_file(), sorted(name) == sorted(key)

    near = difflib.get_close_matches(key, dict.fromkeys(known), n=5, cutoff=0.5)
    return sorted(near, key=rank, reverse=True)  # stable: of equals the more alike


def _known_keys(tree: dict, prefix: str = "") -> list[str]:
    keys = []
    for name, value in tree.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys += _known_keys(value, f"{prefix}{name}.")
    return keys


def dispatch(cfg: DictConfig) -> int | None:
    """Run the mode the configuration names; the exit status if it is not 0."""
    keep_freed_memory()  # before torch is imported
    modes = {
        "train": train,
        "ppl_eval": ppl_eval,
        "sample_eval": sample_eval,
        "sample": sample,
        "doctor": doctor,
    }
    if cfg.mode == "experiment":
        raise UserError("mode=experiment has seeds and runs of its own: leave --multirun out")
    if cfg.mode not in modes:
        raise UserError(f"mode={cfg.mode}: choose one of {', '.join([*modes, 'experiment'])}")
    return modes[cfg.mode](cfg)


# -- modes ----------------------------------------------------------------------------------


def train(cfg: DictConfig) -> int | None:
    """Train into ``run_dir``, or go on where it stopped.

    Of several processes the first one speaks for all.
    """
    from hbd3lm.commands.build import get_rank

    if get_rank() == 0:
        return _train(cfg)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            _train(cfg)
        except UserError:
            return 1
    return 0  # also when preempted: Lightning kills the others if one of them ends otherwise


def _train(cfg: DictConfig) -> int | None:
    from hbd3lm.commands import build
    from hbd3lm.commands.memory_advice import explain_training
    from hbd3lm.data.tokenizer import load_tokenizer
    from hbd3lm.files import atomic_write
    from hbd3lm.train.config import TrainerConfig, TrainingConfig, check_strategy
    from hbd3lm.train.lora import check_lora
    from hbd3lm.train.start import check_freeze

    config = build.typed(TrainingConfig, cfg.training, "training")
    where = build.typed(TrainerConfig, cfg.trainer, "trainer")
    check_strategy(config, where)
    seed = build.read_seed(cfg)
    run_dir = Path(cfg.run_dir)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"run_dir: cannot make {run_dir}: {error.strerror}") from None
    source = build.resolve_pretrained(cfg)
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    if source is not None:
        build.check_vocabulary(source, tokenizer)
    card = build.build_card(cfg, tokenizer)
    objective = build.build_training_objective(cfg, card, tokenizer)
    check_freeze(config, card)
    check_lora(config, card)
    documents = {}
    for split, examples in zip(("train", "valid"), build.load_training_examples(cfg)):
        documents[split] = build.build_documents(examples, tokenizer, card.layout)

    import torch

    from hbd3lm.model.cost import pass_operations
    from hbd3lm.model.transformer import Transformer
    from hbd3lm.train.preemption import EXIT_STATUS, Preempted, leave_processes
    from hbd3lm.train.run import train as run_training

    torch.manual_seed(seed)
    with explain_training(cfg, card.model, card.layout, documents["train"]):
        net = Transformer(card.model, where.attention)
    print(
        f"model: {_name_model(cfg)}, {net.count_parameters():,} parameters "
        f"({net.count_parameters(embeddings=False):,} without embeddings), "
        f"{pass_operations(card.model, 1, 0, 1).total / 1e6:,.1f} million operations a token "
        "(attention's aside); "
        f"{len(documents['train'])} problems, {len(documents['valid'])} held out; "
        f"layout {_describe(card.layout)}"
    )

    fill = None
    if source is not None and not cfg.model.scratch:
        fill = partial(build.fill_pretrained, net, source, tokenizer, seed)

    def describe_run() -> None:
        tokenizer.save(run_dir / "tokenizer")
        with atomic_write(run_dir / "config.yaml") as file:
            file.write(OmegaConf.to_yaml(cfg, resolve=True))

    try:
        with explain_training(cfg, card.model, card.layout, documents["train"]):
            summary = run_training(
                net,
                objective,
                documents["train"],
                documents["valid"],
                config,
                where,
                card,
                run_dir,
                seed,
                describe_run,
                fill,
            )
    except Preempted as stop:
        print(
            f"stopped after step {stop.step} of {config.max_steps}, as asked by a signal, and "
            f"saved to {run_dir / 'checkpoints'}. The same command goes on from there "
            f"(exit status {EXIT_STATUS})",
            flush=True,
        )
        return EXIT_STATUS
    finally:
        leave_processes()
    if build.get_rank():
        return None
    if "csv" in where.loggers:
        from hbd3lm.report.loss_figure import draw_loss_figure

        draw_loss_figure(run_dir / "logs", run_dir / "loss.png")
    print(json.dumps(summary, indent=2))
    print("next:", shlex.join(["python", "main.py", "mode=sample_eval", *_same_place(cfg)]))
    return None


def _same_place(cfg: DictConfig) -> list[str]:
    """Overrides with which another mode finds this run and its data."""
    found = [f"data={cfg.data.name}"] if cfg.data.name != "gsm8k" else []
    places = {
        "data.dir": cfg.data.dir, "data.test_path": cfg.data.test_path, "run_dir": cfg.run_dir
    }  # fmt: skip
    return found + [f"{key}={override_value(str(p))}" for key, p in places.items() if p is not None]


def _name_model(cfg: DictConfig) -> str:
    """Its name, and of separate modules in what they equal the shared model of that name."""
    h, freeze = cfg.hierarchical, cfg.training.freeze
    text = cfg.model.name
    if h.modules == "separate":
        text += f" with separate modules (as many {h.match} as shared)"
    return text + (f", {freeze} frozen" if freeze else "")


def _describe(layout: Layout) -> str:
    segments = ", ".join(f"{s.name} {s.max_len} by {s.block_size}" for s in layout.segments)
    return f"question {layout.question_len}, {segments}"


def ppl_eval(cfg: DictConfig) -> None:
    """NELBO per token and perplexity of plan and execution, and of every problem."""
    from rich.progress import track

    from hbd3lm.commands import build
    from hbd3lm.evaluate.perplexity import likelihoods
    from hbd3lm.files import atomic_write
    from hbd3lm.train.config import TrainingConfig

    config = build.typed(TrainingConfig, cfg.training, "training")
    seed = build.read_seed(cfg)
    loaded, examples, token_set = _load_for_evaluation(cfg)
    documents = build.build_documents(examples, loaded.tokenizer, loaded.card.layout)
    with _explain_memory(loaded, "training.batch_size", config.batch_size):
        found = likelihoods(
            loaded.net,
            loaded.objective,
            documents,
            cfg.eval.samples,
            config.batch_size,
            seed,
            lambda batches: track(
                batches, "scoring", transient=True, disable=not sys.stdout.isatty()
            ),
            cfg.eval.precision,
            cfg.eval.max_samples,
        )
    result = {"token_set": token_set, **found.summary()}
    path = Path(cfg.eval.output_dir) / "perplexity.jsonl"
    with atomic_write(path) as file:
        for example, row in zip(examples, found.rows()):
            file.write(json.dumps({"id": example.id, **row}) + "\n")
    _print_perplexities(result)
    _write_result(cfg, "perplexity.json", result, loaded)
    print(f"of every problem: {path}")


def _print_perplexities(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "", "of", "nats/token", "perplexity", "95 % interval", "draws", "tokens",
        title=f"Perplexity, {result['kind']}, {result['token_set']}",
    )  # fmt: skip
    for name, part in result["segments"].items():
        table.add_row(
            name,
            part["of"],
            f"{part['nats_per_token']:.4f} ± {_number(part['standard_error'], 4)}",
            f"{part['perplexity']:.3f}",
            f"{_number(part['perplexity_low'])} - {_number(part['perplexity_high'])}",
            _share(part["perplexity_noise_high"], part["perplexity"]),
            f"{part['tokens']:,}",
        )
    Console().print(table)
    if "precision" in result:
        reached = "within" if result["precision_reached"] else "NOT yet within"
        remedy = "" if result["precision_reached"] else "; raise eval.max_samples"
        print(
            f"draws of the noise: {result['noise_draws']} a problem, {reached} "
            f"eval.precision={result['precision']} (95 %){remedy}"
        )


def _share(high: float | None, value: float) -> str:
    """Half of the 95 % interval of the draws, relative to the perplexity."""
    return "?" if high is None else f"±{high / value - 1:.2%}"


def _number(value: float | None, digits: int = 3) -> str:
    """``value`` to so many digits; what too little data cannot give is a question mark."""
    return "?" if value is None else f"{value:.{digits}f}"


def sample_eval(cfg: DictConfig) -> None:
    """Plans and executions for a split: accuracy, abstraction of own plans, speed, records."""
    from rich.progress import Progress

    from hbd3lm.commands import build
    from hbd3lm.evaluate.answers import (
        check_gold_answers,
        generate,
        make_records,
        score_records,
    )
    from hbd3lm.files import atomic_write
    from hbd3lm.sample.strategies import SamplingConfig

    config = build.typed(SamplingConfig, {**cfg.sampling, "seed": build.read_seed(cfg)}, "sampling")
    mode = cfg.sampling.mode
    loaded, examples, token_set = _load_for_evaluation(cfg)
    if mode != "plan_only":
        check_gold_answers(examples)
    with (
        _explain_memory(loaded, "sampling.batch_size", config.batch_size),
        Progress(transient=True) as progress,
    ):
        task = progress.add_task("sampling", total=len(examples))
        run = generate(
            loaded.net,
            loaded.card.layout,
            loaded.tokenizer,
            examples,
            config,
            mode,
            loaded.card.objective == "autoregressive",
            lambda _: progress.advance(task),
        )
    records = make_records(examples, run, mode)
    result = {
        "problem_set": token_set,
        "mode": mode,
        "sampling": OmegaConf.to_container(cfg.sampling, resolve=True),
        **score_records(records, mode),
        "speed": run.speed(),
    }
    path = Path(cfg.eval.output_dir) / f"samples_{mode}.jsonl"
    with atomic_write(path) as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    _print_scores(result)
    _write_result(cfg, f"sample_eval_{mode}.json", result, loaded)
    print(f"records: {path}")
    if config.trajectory:
        _write_trajectories(cfg, mode, loaded, token_set, records, run)
    if loaded.card.layout.has_plan and mode != "exec_only":
        program = "python scripts/analysis/analyze_gsm8k_plans.py"
        print(f"next: {program} --data_path {shlex.quote(str(path))}")


def _write_trajectories(
    cfg: DictConfig,
    name: str,
    loaded: LoadedModel,
    problem_set: str,
    records: list[dict],
    run: GenerationRun,
) -> None:
    """The file that ``hbd3lm view`` makes a page of, beside the other results."""
    from hbd3lm.evaluate.trajectories import describe_run, write_trajectories

    settings = OmegaConf.to_container(cfg.sampling, resolve=True) | {"seed": cfg.seed}
    about = describe_run(loaded.card.layout, loaded.path, problem_set, settings)
    path = Path(cfg.eval.output_dir) / f"trajectories_{name}.jsonl"
    write_trajectories(path, about, records, [g.trajectory for g in run.generations])
    print(f"trajectories: {path}")
    print(f"next: hbd3lm view {shlex.quote(str(path))}")


def _print_scores(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "metric", "value", title=f"sample_eval, {result['mode']}, {result['problem_set']}"
    )
    for kind in ("strict", "flexible"):
        if f"accuracy_{kind}" in result:
            score = result[f"accuracy_{kind}"]
            table.add_row(
                f"exact match, {kind}",
                f"{score['value']:.1%}  [{score['low']:.1%}, {score['high']:.1%}]  "
                f"({score['correct']})",
            )
    if "plan_quality" in result:
        plan = result["plan_quality"]["plan"]
        table.add_row("numbers in own plans (mean)", _number(plan["numbers"]["mean"]))
        for label, category in result["plan_quality"]["categories"].items():
            table.add_row(label, f"{category['share']:.1%}")
    for name, value in result["speed"].items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}")
    Console().print(table)


def sample(cfg: DictConfig) -> None:
    """Solve one problem given as ``sampling.question=...``."""
    from hbd3lm.commands import build
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import generate, make_records
    from hbd3lm.sample.strategies import SamplingConfig

    question, plan, mode = cfg.sampling.question, cfg.sampling.plan, cfg.sampling.mode
    if not question:
        raise UserError("mode=sample needs sampling.question='...'")
    if mode == "exec_only" and not plan:
        raise UserError("sampling.mode=exec_only needs sampling.plan='...'")
    if plan and mode != "exec_only":
        raise UserError("sampling.plan is followed with sampling.mode=exec_only only")
    config = build.typed(SamplingConfig, {**cfg.sampling, "seed": build.read_seed(cfg)}, "sampling")
    loaded = build.load_model(cfg)
    example = HierarchicalExample("question", question, plan or "", "", "")
    run = generate(
        loaded.net,
        loaded.card.layout,
        loaded.tokenizer,
        [example],
        config,
        mode,
        loaded.card.objective == "autoregressive",
    )
    generation = run.generations[0]
    for name, text in (("question", question), ("plan", generation.plan or plan)):
        if text:
            print(f"{name}:\n{text}\n")
    if generation.execution is not None:
        print(f"execution:\n{generation.execution}\n")
    print(f"({generation.evaluations} network evaluations)")
    if config.trajectory:
        records = make_records([example], run, mode)
        _write_trajectories(cfg, "sample", loaded, "one question", records, run)


def doctor(cfg: DictConfig) -> int:
    """Check everything a training run with these settings depends on; 1 if something fails."""
    from hbd3lm.commands.doctor import examine

    return examine(cfg)


def _load_for_evaluation(cfg: DictConfig) -> tuple[LoadedModel, list[HierarchicalExample], str]:
    """Model, examples and the name of the problems they are."""
    from hbd3lm.commands import build

    config = build.typed(build.EvalConfig, cfg.eval, "eval")
    loaded = build.load_model(cfg)
    model, kind = loaded.card.model, loaded.card.objective
    # The checkpoint decides, whatever model=... or block_size=... say here.
    print(
        f"model: {loaded.path}: {model.n_layers} layers of {model.dim}, {kind}, "
        f"{_describe(loaded.card.layout)}"
    )
    if config.split == "valid":
        _check_same_slice(cfg, loaded)
    examples = build.load_examples(cfg, config.split)[: config.num_examples]
    source = cfg.data[f"{config.split}_path"] or f"{cfg.data.name} {config.split}"
    if source.startswith("gsm8k ") and examples[0].id.startswith("embedded_"):
        source = f"embedded {config.split} (GSM8K could not be had)"
    return loaded, examples, f"{source}, {len(examples)} problems"


def _explain_memory(loaded: LoadedModel, key: str, batch_size: int):
    from hbd3lm.commands.memory_advice import explain_evaluation

    device = next(loaded.net.parameters()).device.type
    return explain_evaluation(loaded.card.model, loaded.card.layout, key, batch_size, device)


def _check_same_slice(cfg: DictConfig, loaded: LoadedModel) -> None:
    """Refuse to validate on problems that this model was trained on.

    What is held out depends on what the training problems were.
    """
    if cfg.data.valid_path is not None:
        return
    trained = loaded.card.settings["data"]
    for key in ("name", "train_path", "valid_path", "valid_size", "num_train"):
        if cfg.data[key] != trained[key]:
            override = f"data={trained[key]}" if key == "name" else f"data.{key}={trained[key]}"
            raise UserError(
                f"eval.split=valid: the problems held out while training {loaded.path} were "
                f"chosen with {override}; repeat that, or use eval.split=test"
            )


def _write_result(cfg: DictConfig, name: str, result: dict, loaded: LoadedModel) -> None:
    from hbd3lm.files import atomic_write

    path = Path(cfg.eval.output_dir) / name
    about = {"checkpoint": str(loaded.path), "tokenizer": loaded.card.tokenizer}
    with atomic_write(path) as file:
        json.dump({**result, **about}, file, indent=2)
        file.write("\n")
    print(f"metrics: {path}")
