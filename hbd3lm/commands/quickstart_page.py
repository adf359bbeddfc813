"""The last stage of the quickstart: its results, read from their files, as one page."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.report import page as p
from hbd3lm.report.values import duration, number, percent

if TYPE_CHECKING:
    from hbd3lm.commands.quickstart import Work
    from hbd3lm.evaluate.chance import ChanceAccuracy

SHOWN = 5  # problems on the page: the first of the test file, not chosen ones
_OURS = "--output_dir"  # the flag that names the folder of what is read here


def write_quickstart_page(work: Work, seconds: Mapping[str, float]) -> str:
    """Write ``work.page``, with how long each stage took; return what came out, in a sentence."""
    results = read_results(work)
    verdict = describe(work, results)
    p.write_page(
        work.page,
        p.Page(
            title="Plan, then execute: hbd3lm quickstart",
            lead="A block-diffusion language model that first writes a plan without numbers and "
            "then the calculation, trained from nothing in minutes.",
            facts=_facts(results),
            sections=_sections(work, results, seconds, verdict),
            notice=work.fallback or "",
            footer=_footer(work),
        ),
    )
    return verdict


# --- results ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Results:
    """What the stages left behind; dictionaries as in their JSON files."""

    training: dict
    perplexity: dict
    scores: dict
    records: list[dict]
    gold_analysis: dict
    lengths: dict
    chance: ChanceAccuracy

    @property
    def beats_chance(self) -> bool:
        """Whether the whole interval of the accuracy lies above the best guesser's."""
        return self.scores["accuracy_strict"]["low"] > self.chance.best


def read_results(work: Work) -> Results:
    """Read what the stages wrote; the chance accuracy is computed here, and written, too."""
    from hbd3lm.data.records import read_examples, read_records
    from hbd3lm.evaluate.chance import chance_accuracy
    from hbd3lm.files import atomic_write

    folder = work.run_dir
    _, records = read_records(folder / "eval" / "samples_full.jsonl", _OURS)
    scored = {record["id"] for record in records}
    test = [example for example in read_examples(work.data("test")) if example.id in scored]
    chance = chance_accuracy(read_examples(work.data("train")), test)
    with atomic_write(folder / "eval" / "chance.json") as file:
        json.dump(chance.to_dict(), file, indent=2)
        file.write("\n")
    return Results(
        training=_read_json(folder / "train_summary.json"),
        perplexity=_read_json(folder / "eval" / "perplexity.json"),
        scores=_read_json(folder / "eval" / "sample_eval_full.json"),
        records=records,
        gold_analysis=_read_json(folder / "analysis.json"),
        lengths=_read_json(folder / "lengths.json"),
        chance=chance,
    )


def _read_json(path: Path) -> dict[str, Any]:
    from hbd3lm.files import read_json

    return read_json(path, _OURS, "give --overwrite to make it anew")


def describe(work: Work, results: Results) -> str:
    """Accuracy beside chance, and whether the one is clearly above the other."""
    score = results.scores["accuracy_strict"]
    text = (
        f"{score['correct']} of {len(results.records)} held-out problems answered: "
        f"{percent(score['value'])} (95% interval {percent(score['low'])} to "
        f"{percent(score['high'])}); guessing reaches {percent(results.chance.best)}"
    )
    if results.beats_chance:
        return f"{text}: clearly more than chance."
    if work.name == "gsm8k":
        return (
            f"{text}: not clearly more. Real GSM8K needs a larger network and hours of training; "
            "minutes of a small one show that the pipeline works."
        )
    return f"{text}: not clearly more. Train longer with --steps."


# --- the page ---------------------------------------------------------------------------------


def _facts(results: Results) -> list[p.Fact]:
    score, training = results.scores["accuracy_strict"], results.training
    sitting = ", last sitting" if training["resumed_from"] else ""
    facts = [
        p.Fact(
            "held-out problems answered",
            percent(score["value"]),
            f"95% interval {percent(score['low'])} to {percent(score['high'])}",
        ),
        p.Fact(
            "chance", percent(results.chance.best), "the best guess without understanding"
        ),
        p.Fact(
            "perplexity a token",
            number(results.perplexity["segments"]["all"]["perplexity"]),
            f"held-out problems, {results.perplexity['kind']}",
        ),
        p.Fact(
            "training",
            duration(training["seconds"]),
            f"{training['steps']:,} steps, {training['parameters']:,} parameters{sitting}",
        ),
    ]  # fmt: skip
    if "plan_quality" in results.scores:
        mean = results.scores["plan_quality"]["plan"]["numbers"]["mean"]
        facts.append(p.Fact("numbers in a plan", number(mean), "in digits, of its own plans"))
    return facts


def _sections(
    work: Work, results: Results, seconds: Mapping[str, float], verdict: str
) -> list[p.Section]:
    guesses = dict(results.chance.rows())
    shown = results.records[:SHOWN]
    return [
        p.Section(
            "Result", [p.accuracy_table(results.scores, guesses, len(results.records))], verdict
        ),
        p.Section(
            "Problems",
            [p.problem_card(record) for record in shown],
            f"The first {len(shown)} held-out problems in the order of their file, not chosen. The "
            "model sees the question only; it writes the plan, then the execution.",
        ),
        _plans_section(work, results),
        _training_section(work, results),
        p.Section(
            "Perplexity",
            [p.perplexity_table(results.perplexity)],
            "The loss of all predicted tokens, divided by the number of text and end tokens.",
        ),
        p.Section(
            "Mask",
            [
                p.picture(
                    work.run_dir / "mask.png",
                    "Square of query tokens against key tokens; colour marks what is visible",
                    "A few blocks of the size trained with.",
                )
            ],
            "One rule makes the hierarchy: the plan never sees the execution.",
        ),
        _speed_section(results, seconds),
        p.Section(
            "Repeat it", [p.Commands(_commands(work))], f"Commands as typed in {Path.cwd()}."
        ),
        p.Section("Files", [p.links(work.page, _files(work))], "Where everything is."),
    ]


def _plans_section(work: Work, results: Results) -> p.Section:
    columns = {"training file": results.gold_analysis}
    if "plan_quality" in results.scores:
        columns["the model's own"] = results.scores["plan_quality"]
    return p.Section(
        "Plans",
        [
            p.plan_table(columns),
            p.picture(
                work.run_dir / "analysis.png",
                "Four panels comparing numbers, operations and lengths of plans and executions",
                "The training file: a plan says what to do, its execution does it in numbers.",
            ),
            p.length_table(results.lengths),
        ],
        f"Problems: {work.origins[0]}; {work.origins[1]}. Their plans are written by rules from "
        "the annotated solutions.",
    )


def _training_section(work: Work, results: Results) -> p.Section:
    training = results.training
    rows = [
        ("network", work.training_config.model.name),
        ("parameters", f"{training['parameters']:,}"),
        ("training problems", f"{training['train_problems']:,}"),
        ("validation problems", f"{training['valid_problems']:,}"),
        ("optimiser steps", f"{training['steps']:,}"),
        ("problems a step", str(work.training_config.training.batch_size)),
        ("precision", training["precision"]),
        ("lowest validation loss, nats a token", number(training["best_valid_nelbo"], 3)),
    ]
    figure = p.picture(
        work.run_dir / "loss.png", "Loss of plan and execution over the steps of training"
    )
    return p.Section("Training", [figure, p.Table(("", "value"), rows)])


def _speed_section(results: Results, seconds: Mapping[str, float]) -> p.Section:
    stages = p.Table(
        ("stage", "time"),
        [(name, duration(value)) for name, value in seconds.items()],
        "Of this call; a finished training is not repeated.",
    )
    sampling = p.Table(
        ("sampling", "value"),
        [(name.replace("_", " "), number(v)) for name, v in results.scores["speed"].items()],
    )
    return p.Section("Speed", [stages, sampling])


def _footer(work: Work) -> str:
    from hbd3lm import __version__

    return f"Made by hbd3lm {__version__} with seed {work.args.seed}."


# --- commands and files -----------------------------------------------------------------------


def _commands(work: Work) -> list[tuple[str, str]]:
    """Each stage as a command of its own."""

    def command(verb: str, arguments: Sequence[str]) -> str:
        return shlex.join([*_program(), verb, *arguments])

    steps = [("All of it; a finished training is kept", command("quickstart", _arguments(work)))]
    if work.name == "gsm8k":  # embedded ones of this difficulty come from the quickstart only
        for split in ("train", "test"):
            arguments = ["--split", split, "--num_examples", str(len(getattr(work, split)))]
            if work.data_dir:
                arguments += ["--data_dir", work.data_dir]
            arguments += ["--planner", "rules", "--output_path", str(work.data(split))]
            steps.append((f"Problems and plans, {split}", command("plans", arguments)))
    steps += [
        ("Analyse the plans", command("analyze", work.analysis_arguments())),
        ("Measure token lengths", command("lengths", work.lengths_arguments())),
        ("Check the mask and draw it", command("mask", work.mask_arguments())),
    ]
    for mode, what in (
        ("train", "Train; goes on where it stopped"),
        ("ppl_eval", "Perplexity of held-out problems"),
        ("sample_eval", "Answers to held-out problems"),
    ):
        settings = [s for s in work.settings_of(mode) if not s.startswith("mode=")]
        steps.append((what, command(mode, settings)))
    samples = ["--data_path", str(work.run_dir / "eval" / "samples_full.jsonl")]
    figure = ["--output_plot", str(work.run_dir / "own_plans.png")]
    steps.append(("Analyse the plans the model wrote", command("analyze", samples + figure)))
    return steps


def _program() -> list[str]:
    """How to start this package with the Python that runs it now."""
    python = Path(sys.executable)
    with contextlib.suppress(ValueError):  # outside this folder the full path is needed
        python = python.relative_to(Path.cwd())
    return [str(python), "-m", "hbd3lm.cli"]


def _arguments(work: Work) -> list[str]:
    """The flags of this call, with the problems it found named."""
    args = work.args
    words = ["--dataset", work.name, "--output_dir", str(args.output_dir)]
    if work.data_dir:
        words += ["--data_dir", work.data_dir]
    for flag in ("steps", "num_train", "num_test"):
        if getattr(args, flag) is not None:
            words += [f"--{flag}", str(getattr(args, flag))]
    return [*words, "--seed", str(args.seed), *args.overrides]


def _files(work: Work) -> list[tuple[str, Path]]:
    folder = work.run_dir
    return [
        ("training problems with plans", work.data("train")),
        ("held-out problems with plans", work.data("test")),
        ("plan analysis", folder / "analysis.json"),
        ("its figure", folder / "analysis.png"),
        ("its page: the plans, to read and judge", folder / "analysis.html"),
        ("token lengths", folder / "lengths.json"),
        ("mask", folder / "mask.png"),
        ("configuration of the training", folder / "config.yaml"),
        ("checkpoints", folder / "checkpoints"),
        ("losses as CSV", folder / "logs"),
        ("loss curve", folder / "loss.png"),
        ("perplexity", folder / "eval" / "perplexity.json"),
        ("accuracy, own plans, speed", folder / "eval" / "sample_eval_full.json"),
        ("chance", folder / "eval" / "chance.json"),
        ("every problem with what the model wrote", folder / "eval" / "samples_full.jsonl"),
    ]
