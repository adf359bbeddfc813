"""``mode=ppl_eval``, ``sample_eval`` and ``sample``: a trained model scored, or asked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from hbd3lm.commands import build
from hbd3lm.commands.next_step import command_line
from hbd3lm.commands.settings import EvalConfig, read_sampling, read_seed, typed
from hbd3lm.errors import UserError
from hbd3lm.files import atomic_write, check_output, writing

if TYPE_CHECKING:
    from hbd3lm.commands.build import LoadedModel
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import GenerationRun

_OUTPUT_DIR = "eval.output_dir"


def ppl_eval(cfg: DictConfig, given: Sequence[str] = ()) -> None:
    """NELBO per token and perplexity of plan and execution, and of every problem.

    Args:
        given: the user's overrides, which a checkpoint may contradict; so in the other modes.
    """
    from hbd3lm.evaluate.perplexity import likelihoods
    from hbd3lm.progress import track
    from hbd3lm.train.config import TrainingConfig

    config = typed(TrainingConfig, cfg.training, "training")
    scoring = typed(EvalConfig, cfg.eval, "eval")
    seed = read_seed(cfg)
    loaded, examples, token_set = _load_for_evaluation(cfg, given)
    path, metrics = _outputs(cfg, "perplexity.jsonl", "perplexity.json")
    documents = build.build_documents(examples, loaded.tokenizer, loaded.card.layout)
    with _explain_memory(loaded, "training.batch_size", config.batch_size):
        found = likelihoods(
            loaded.net,
            loaded.objective,
            documents,
            scoring.samples,
            config.batch_size,
            seed,
            lambda batches: track(batches, "scoring", "batches"),
            scoring.precision,
            scoring.max_samples,
        )
    result = {"token_set": token_set, **found.summary()}
    # The files first: they are complete even if nobody reads the printout to its end.
    _write_lines(path, [{"id": e.id, **row} for e, row in zip(examples, found.rows())])
    _write_result(metrics, result, loaded)
    _print_perplexities(result)
    print(f"metrics: {metrics}")
    print(f"of every problem: {path}")


def _print_perplexities(result: dict) -> None:
    from rich.table import Table

    from hbd3lm.commands.console import make_console

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
    make_console().print(table)
    if any(part["perplexity_noise_high"] is None for part in result["segments"].values()):
        print("draws ?: one turn of draws does not tell; with eval.precision=0.005 they are told")
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


def sample_eval(cfg: DictConfig, given: Sequence[str] = ()) -> None:
    """Plans and executions for a split: accuracy, abstraction of own plans, speed, records."""
    from hbd3lm.evaluate.answers import check_gold_answers, make_records, score_records
    from hbd3lm.progress import Progress

    config = read_sampling(cfg)
    mode = cfg.sampling.mode
    loaded, examples, token_set = _load_for_evaluation(cfg, given)
    if mode != "plan_only":
        check_gold_answers(examples)
    names = [f"samples_{mode}.jsonl", f"sample_eval_{mode}.json", f"trajectories_{mode}.jsonl"]
    path, metrics, trajectories = _outputs(cfg, *names)
    with (
        _explain_memory(loaded, "sampling.batch_size", config.batch_size),
        Progress("sampling", len(examples), "problems") as progress,
    ):
        run = loaded.generate(examples, config, mode, lambda _: progress.advance())
    records = make_records(examples, run, mode)
    result = {
        "problem_set": token_set,
        "mode": mode,
        "sampling": OmegaConf.to_container(cfg.sampling, resolve=True),
        **score_records(records, mode),
        "speed": run.speed(),
    }
    _write_lines(path, records)
    _write_result(metrics, result, loaded)
    if config.trajectory:
        _write_trajectories(cfg, trajectories, loaded, token_set, records, run)
    _print_scores(result)
    print(f"metrics: {metrics}")
    print(f"records: {path}")
    if config.trajectory:
        _print_trajectories(trajectories)
    if loaded.card.layout.has_plan and mode != "exec_only":
        flags = ["--data_path", str(path)]
        print("next:", command_line("scripts/analysis/analyze_gsm8k_plans.py", "analyze", flags))


def _write_trajectories(
    cfg: DictConfig,
    path: Path,
    loaded: LoadedModel,
    problem_set: str,
    records: list[dict],
    run: GenerationRun,
) -> None:
    """The file that ``hbd3lm view`` makes a page of, beside the other results."""
    from hbd3lm.evaluate.trajectories import describe_run, write_trajectories

    settings = OmegaConf.to_container(cfg.sampling, resolve=True) | {"seed": cfg.seed}
    about = describe_run(loaded.card.layout, loaded.path, problem_set, settings)
    with writing(path, _OUTPUT_DIR):
        write_trajectories(path, about, records, [g.trajectory for g in run.generations])


def _print_trajectories(path: Path) -> None:
    print(f"trajectories: {path}")
    print(f"next: hbd3lm view {shlex.quote(str(path))}")


def _print_scores(result: dict) -> None:
    from rich.table import Table

    from hbd3lm.commands.console import make_console

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
    make_console().print(table)


def sample(cfg: DictConfig, given: Sequence[str] = ()) -> None:
    """Solve one problem given as ``sampling.question=...``."""
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.evaluate.answers import make_records

    question, plan, mode = cfg.sampling.question, cfg.sampling.plan, cfg.sampling.mode
    if not question:
        raise UserError("mode=sample needs sampling.question='...'")
    if mode == "exec_only" and not plan:
        raise UserError("sampling.mode=exec_only needs sampling.plan='...'")
    if plan and mode != "exec_only":
        raise UserError("sampling.plan is followed with sampling.mode=exec_only only")
    config = read_sampling(cfg)
    loaded = build.load_model(cfg, given)
    if config.trajectory:
        (path,) = _outputs(cfg, "trajectories_sample.jsonl")
    example = HierarchicalExample("question", question, plan or "", "", "")
    run = loaded.generate([example], config, mode)
    if config.trajectory:
        records = make_records([example], run, mode)
        _write_trajectories(cfg, path, loaded, "one question", records, run)
    generation = run.generations[0]
    for name, text in (("question", question), ("plan", generation.plan or plan)):
        if text:
            print(f"{name}:\n{text}\n")
    if generation.execution is not None:
        print(f"execution:\n{generation.execution}\n")
    print(f"({generation.evaluations} network evaluations)")
    if config.trajectory:
        _print_trajectories(path)


def _load_for_evaluation(
    cfg: DictConfig, given: Sequence[str] = ()
) -> tuple[LoadedModel, list[HierarchicalExample], str]:
    """Model, examples and the name of the problems they are."""
    from hbd3lm.commands.problems import load_examples

    config = typed(EvalConfig, cfg.eval, "eval")
    loaded = build.load_model(cfg, given)
    model, kind = loaded.card.model, loaded.card.objective
    # The checkpoint decides, whatever model=... or block_size=... say here.
    print(
        f"model: {loaded.path}: {model.n_layers} layers of {model.dim}, {kind}, "
        f"{build.describe_layout(loaded.card.layout)}"
    )
    if config.split == "valid":
        _check_same_slice(cfg, loaded)
    elif cfg.data.test_path is None:
        _check_same_laboratory(cfg, loaded)
    examples = load_examples(cfg, config.split)[: config.num_examples]
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


def _check_same_laboratory(cfg: DictConfig, loaded: LoadedModel) -> None:
    """Refuse to test on generated problems that this model was trained on.

    The laboratory's test problems are those drawn after the training problems.
    """
    trained = loaded.card.settings.get("data", {})
    if cfg.data.name == trained.get("name") == "laboratory":
        count = trained["num_train"]
        if cfg.data.num_train != count:
            raise UserError(
                f"data.num_train={cfg.data.num_train}: some of the test problems that follow so "
                f"many training problems were among those {loaded.path} was trained on; repeat "
                f"data.num_train={count}"
            )


def _outputs(cfg: DictConfig, *names: str) -> list[Path]:
    """Files in ``eval.output_dir``; asked for before the network works for nothing.

    Raises:
        UserError: one of them cannot be written.
    """
    paths = [Path(cfg.eval.output_dir) / name for name in names]
    for path in paths:
        check_output(path, _OUTPUT_DIR)
    return paths


def _write_lines(path: Path, rows: Iterable[dict]) -> None:
    from hbd3lm.json_values import json_ready

    with atomic_write(path, what=_OUTPUT_DIR) as file:
        for row in rows:
            file.write(json.dumps(json_ready(row), ensure_ascii=False, allow_nan=False) + "\n")


def _write_result(path: Path, result: dict, loaded: LoadedModel) -> None:
    from hbd3lm.json_values import json_ready

    about = {"checkpoint": str(loaded.path), "tokenizer": loaded.card.tokenizer}
    with atomic_write(path, what=_OUTPUT_DIR) as file:
        json.dump(json_ready({**result, **about}), file, indent=2, allow_nan=False)
        file.write("\n")
