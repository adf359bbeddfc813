"""``generate_gsm8k_plans.py`` / ``hbd3lm plans``: problems in, examples with plans out."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.arguments import count, number, positive
from hbd3lm.commands.next_step import command_line
from hbd3lm.errors import UserError

if TYPE_CHECKING:
    from hbd3lm.data.sources import ProblemSet
    from hbd3lm.plans.ask import Recipe

TEXT_PLANNERS = ("rules", "socratic")
# Flags of a planner with a language model, and their defaults. None: the engine's own.
_MODEL_FLAGS: dict[str, Any] = {
    "model": None,
    "temperature": 0.7,
    "top_p": 0.9,
    "max_tokens": 256,
    "constrained": "auto",
    "prompt_file": None,
    "question_only": False,
    "max_numbers": 0,
    "max_retries": 3,
    "min_words": 8,
    "max_words": 120,
}
# Further ones, by engine; all of them are options of the engine.
_ENGINE_FLAGS: dict[str, dict[str, Any]] = {
    "vllm": {
        "dtype": None,
        "max_model_len": None,
        "revision": None,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        "gpu_memory_utilization": None,
    },
    "openai": {"base_url": None, "api_key_env": None, "timeout": None},
    "llamacpp": {"max_model_len": None, "threads": None},
    "transformers": {"dtype": None, "revision": None},
}
PLANNERS = (*TEXT_PLANNERS, *_ENGINE_FLAGS)
# Where the work is done, not what comes out: a run may go on with other values.
_PLACE_FLAGS = ("base_url", "api_key_env", "timeout", "threads", "tensor_parallel_size",
                "pipeline_parallel_size", "data_parallel_size",
                "gpu_memory_utilization")  # fmt: skip
_LONGEST_WAIT = 7 * 86_400  # seconds; sockets count the milliseconds in 32 bits
_LONG = 10_000  # so many problems take seconds to generate
_DATASETS = ("gsm8k", "svamp", "multiarith", "embedded")
_EXAMPLES = """examples:
  %(prog)s --split train --data_dir DIR
  %(prog)s --planner socratic --split train
  %(prog)s --model meta-llama/Meta-Llama-3-8B-Instruct --split train \\
      --num_examples 100 --output_path data/gsm8k/test_100.json
  %(prog)s --base_url http://localhost:8000/v1 --split train --batch_size 64
"""


def build_parser(prog: str = "hbd3lm plans") -> argparse.ArgumentParser:
    """The command line; light, so that ``--help`` answers at once.

    Flags of language models default to None here: a flag that does nothing for the chosen planner
    is refused, so it matters whether it was given.
    """
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Write one abstract plan a problem: id, question, plan, execution and "
        "answer as JSON. Interrupted runs continue where they stopped.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    data = parser.add_argument_group("problems")
    data.add_argument("--dataset", choices=_DATASETS, default="gsm8k", help="default: gsm8k")
    data.add_argument("--split", default="train", help="train or test (default: train)")
    data.add_argument("--data_dir", help="folder with the data files (default: HBD3LM_DATA_DIR, "
                      "else the hub, else embedded problems)")  # fmt: skip
    data.add_argument(
        "--num_examples", type=positive, help="only the first N problems (default: all)"
    )
    data.add_argument("--shard", metavar="I/N",
                      help="only part I of N, from 1; hbd3lm plans merge joins them")  # fmt: skip
    data.add_argument("--keep_annotations", action="store_true",
                      help="leave the <<48/2=24>> annotations in the executions")  # fmt: skip
    plans = parser.add_argument_group("plans")
    plans.add_argument("--planner", choices=PLANNERS,
                       help="default: openai if --base_url is given, llamacpp if --model is a .gguf"
                       ", vllm for any other --model, else rules")  # fmt: skip
    plans.add_argument("--batch_size", type=positive, default=256,
                       help="problems in flight, at most (default: 256)")  # fmt: skip
    plans.add_argument("--seed", type=count, default=0,
                       help="of sampling and of embedded problems (default: 0)")  # fmt: skip

    model = parser.add_argument_group("language model (vllm, openai, llamacpp, transformers)")

    def add(flag: str, text: str, **options: Any) -> None:
        model.add_argument(f"--{flag}", help=text, default=None, **options)

    add("model", "hub name, local directory, .gguf file, or the name a server knows it by")
    add("temperature", "of the first attempt; each repair adds some (default: 0.7)", type=number)
    add("top_p", "nucleus sampling (default: 0.9)", type=number)
    add("max_tokens", "longest plan, in tokens (default: 256)", type=positive)
    add("constrained", "hold decoding to sentences without digits (default: auto: where the "
        "engine can)", choices=("auto", "on", "off"))  # fmt: skip
    add("prompt_file", "template to use instead of the shipped one", type=Path)
    add("question_only", "show the model no solution, which a plan could leak",
        action="store_true")  # fmt: skip
    repair = parser.add_argument_group("repair: a plan like this is asked for again")
    model = repair  # what add() adds to, from here on
    add(
        "max_numbers",
        "more numbers in digits (default: 0; constrained plans have none)",
        type=count,
    )
    add("min_words", "fewer words (default: 8)", type=count)
    add("max_words", "more words (default: 120)", type=positive)
    add("max_retries", "so many times; then the best attempt is kept and marked (default: 3)",
        type=count)  # fmt: skip
    model = parser.add_argument_group("engine")
    add("tensor_parallel_size", "vllm: GPUs per copy of the model (default: 1)", type=positive)
    add("pipeline_parallel_size", "vllm: stages of the model (default: 1)", type=positive)
    add("data_parallel_size", "vllm: copies of the model (default: 1)", type=positive)
    add("gpu_memory_utilization", "vllm: share of a GPU's memory to take", type=number)
    add("dtype", "vllm, transformers: of the weights, e.g. bfloat16 (default: the model's)")
    add("revision", "vllm, transformers: branch, tag or commit on the hub")
    add("max_model_len", "vllm, llamacpp: longest prompt and answer together", type=positive)
    add("threads", "llamacpp: CPU threads", type=positive)
    add("base_url", "openai: address of the server, e.g. http://localhost:8000/v1")
    add("api_key_env", "openai: environment variable that holds the key "
        "(default: OPENAI_API_KEY)")  # fmt: skip
    add("timeout", "openai: seconds to wait for an answer", type=number)
    out = parser.add_argument_group("output")
    out.add_argument("--output_path", type=Path,
                     help="default: data/DATASET/DATASET_hierarchical_SPLIT.json; an existing file "
                     "is replaced when the run is complete; with --shard I/N the name gains "
                     ".shard-I-of-N")  # fmt: skip
    out.add_argument("--overwrite", action="store_true",
                     help="discard an unfinished or finished run of this output")  # fmt: skip
    return parser


def main(argv: list[str] | None = None, prog: str = "hbd3lm plans") -> int:
    """Run the command. Returns 0.

    Raises:
        UserError: a flag out of range or without effect, missing data, a missing engine, an
            unfinished other run.
    """
    args = build_parser(prog).parse_args(argv)
    planner = choose_planner(args)
    _check_flags(args, planner)

    from hbd3lm.plans.generate import generate_plans, problems_digest
    from hbd3lm.plans.manifest import read_manifest
    from hbd3lm.plans.planner import load_planner
    from hbd3lm.plans.shards import Shard

    shard = None if args.shard is None else Shard.parse(args.shard)
    recipe = None if planner in TEXT_PLANNERS else _recipe(args)
    dataset = args.dataset
    if planner == "socratic" and dataset == "gsm8k":
        dataset = "gsm8k_socratic"  # the same problems, with their sub-questions
    if dataset == "embedded" and (args.num_examples or 0) > _LONG:
        print(f"generating {args.num_examples:,} problems", flush=True)
    problem_set = load_problem_set(
        dataset, args.split, args.data_dir, args.num_examples, seed=args.seed
    )
    problems = problem_set.problems
    if problem_set.fallback:
        dataset = "embedded"  # what the plans are of, for whoever reads their manifest
    about = {
        "problems": {
            "dataset": dataset,
            "split": args.split,
            "data_dir": args.data_dir,
            "num_examples": args.num_examples,
            "seed": args.seed,
            "origin": problem_set.origin,
            "count": len(problems),
            "sha256": problems_digest(problems),
        },
        "shard": None if shard is None else str(shard),
    }
    output = default_output(args)
    if shard is not None:
        output, problems = shard.path(output), shard.take(problems)
        print(f"shard {shard}: {len(problems)} problems")
        if not problems:
            raise UserError(f"--shard {shard}: there are only {len(problem_set.problems)} problems")
    if problem_set.fallback and not args.overwrite:
        _keep_real_plans(output, problem_set.origin)
    settings = {"planner": planner, "dataset": dataset, "split": args.split}
    if recipe is None:
        writer = load_planner(planner)
    else:
        options = engine_options(args, planner)
        settings |= {key: options[key] for key in options if key not in _PLACE_FLAGS}
        settings.pop("max_in_flight")

        def writer():
            from hbd3lm.plans.engines.registry import load_engine

            return load_engine(planner, **options)

    generate_plans(
        problems,
        writer,
        output,
        recipe=recipe,
        settings=settings,
        about=about,
        batch_size=args.batch_size,
        keep_annotations=args.keep_annotations,
        overwrite=args.overwrite,
        progress=sys.stderr.isatty(),
        say=lambda line: print(line, flush=True),
    )
    print_summary(output, read_manifest(output), getattr(writer, "sources", {}))
    if shard is not None:
        merge = ["hbd3lm", "plans", "merge", "--output_path", str(default_output(args))]
        print(f"when all {shard.count} shards are written: {shlex.join(merge)}")
    return 0


def choose_planner(args: argparse.Namespace) -> str:
    """``--planner``, or the one the other flags ask for."""
    if args.planner:
        return args.planner
    if args.base_url:
        return "openai"
    if args.model:
        return "llamacpp" if args.model.lower().endswith(".gguf") else "vllm"
    return "rules"


def default_output(args: argparse.Namespace) -> Path:
    """The whole file, shards or not."""
    name = args.dataset
    return args.output_path or Path(f"data/{name}/{name}_hierarchical_{args.split}.json")


def _keep_real_plans(output: Path, origin: str) -> None:
    """Refuse to put plans of problems that stand in for the real ones where real ones may be.

    Raises:
        UserError: ``output`` was not made of these same problems.
    """
    from hbd3lm.plans.manifest import manifest_path, read_manifest

    if not output.is_file():
        return
    if manifest_path(output).is_file():
        problems = read_manifest(output).get("problems")
        if isinstance(problems, dict) and problems.get("origin") == origin:
            return
    raise UserError(
        f"--output_path {output} exists and was not made of the embedded problems that would "
        "replace it; give --data_dir, another --output_path, or --overwrite"
    )


def load_problem_set(*arguments: Any, **options: Any) -> ProblemSet:
    """:func:`hbd3lm.data.sources.find_problems`, telling where they come from, loudly if not from
    where they should."""
    from hbd3lm.commands.problems import announce
    from hbd3lm.data.sources import find_problems

    problem_set = find_problems(*arguments, **options)
    if problem_set.fallback:
        announce(problem_set.fallback)
    print(f"problems: {problem_set.origin}")
    return problem_set


# --- flags --------------------------------------------------------------------------------------


def _check_flags(args: argparse.Namespace, planner: str) -> None:
    """Refuse what is out of range, what is missing, and what does nothing for the planner."""
    used = set()
    if planner not in TEXT_PLANNERS:
        used = {*_MODEL_FLAGS, *_ENGINE_FLAGS[planner]}
    for flag in [*_MODEL_FLAGS, *(flag for flags in _ENGINE_FLAGS.values() for flag in flags)]:
        value = getattr(args, flag)
        if value is not None and flag not in used:
            shown = f"--{flag}" if value is True else f"--{flag} {value}"
            raise UserError(f"{shown} does nothing with --planner {planner}; leave one of them out")
    if planner == "openai" and not args.base_url:
        raise UserError("--planner openai needs --base_url (the address of a server)")
    if planner not in (*TEXT_PLANNERS, "openai") and not args.model:
        kind = "a .gguf file" if planner == "llamacpp" else "a hub name or a local directory"
        raise UserError(f"--planner {planner} needs --model ({kind})")
    share = args.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise UserError(f"--gpu_memory_utilization {share}: more than 0 and at most 1 is needed")
    if args.timeout is not None and not 0 < args.timeout <= _LONGEST_WAIT:
        raise UserError(
            f"--timeout {args.timeout}: more than 0 seconds and at most {_LONGEST_WAIT} (a week) "
            "are needed"
        )


def _given(args: argparse.Namespace, flag: str, default: Any) -> Any:
    value = getattr(args, flag)
    return default if value is None else value


def _recipe(args: argparse.Namespace) -> Recipe:
    from hbd3lm.plans.ask import Recipe
    from hbd3lm.plans.judge import Limits
    from hbd3lm.plans.prompt import load_prompt

    flag = {name: _given(args, name, default) for name, default in _MODEL_FLAGS.items()}
    return Recipe(
        prompt=load_prompt(flag["prompt_file"], flag["question_only"]),
        limits=Limits(flag["max_numbers"], flag["min_words"], flag["max_words"]),
        temperature=flag["temperature"],
        top_p=flag["top_p"],
        max_tokens=flag["max_tokens"],
        seed=args.seed,
        max_retries=flag["max_retries"],
    )


def engine_options(args: argparse.Namespace, planner: str) -> dict[str, Any]:
    """Keywords for :func:`hbd3lm.plans.engines.registry.load_engine`; None is left to it."""
    flags = {"model": None, "constrained": "auto", **_ENGINE_FLAGS[planner]}
    options = {flag: _given(args, flag, default) for flag, default in flags.items()}
    options = {flag: value for flag, value in options.items() if value is not None}
    if planner != "openai":
        options["seed"] = args.seed
    return {**options, "max_in_flight": args.batch_size}


# --- printing -----------------------------------------------------------------------------------


def print_summary(output: Path, manifest: dict[str, Any], sources: dict[str, int]) -> None:
    """What was written, from its manifest: counts before and after repair, faults, speed."""
    from hbd3lm.plans.details import details_path, read_details
    from hbd3lm.plans.manifest import manifest_path

    report, settings = manifest["report"], manifest["settings"]
    count = report["plans"]
    rows = read_details(output)
    digits, spelled = (
        sum(row[kind] for row in rows) / count for kind in ("numbers", "spelled_numbers")
    )
    print(f"wrote {count} examples with {settings['planner']} plans to {output}")
    print(f"numbers per plan: {digits:.2f} in digits, {spelled:.2f} spelled out (mean)")
    if "max_retries" in settings:
        _print_repair(report, manifest, [row["id"] for row in rows if row["status"] == "failed"])
    generic = sources.get("question", 0)
    if generic:
        print(
            f"note: {generic} of {count} problems publish no solution steps; their plans only name "
            "the given amounts and the goal"
        )
    print(f"beside it: {manifest_path(output).name}, {details_path(output).name}")
    flags = ["--data_path", str(output), "--output_plot", "gsm8k_analysis.png"]
    print("next:", command_line("scripts/analysis/analyze_gsm8k_plans.py", "analyze", flags))


def _print_repair(report: dict[str, Any], manifest: dict[str, Any], failed: list[str]) -> None:
    from rich import box
    from rich.table import Table

    from hbd3lm.commands.console import make_console
    from hbd3lm.plans.judge import FAULTS
    from hbd3lm.plans.quality import CATEGORIES, EMPTY_PLAN

    console = make_console()
    table = Table("plans", box=box.SIMPLE_HEAD)
    table.add_column("first attempt", justify="right")
    table.add_column("after repair", justify="right")
    for label in [*(category.label for category in CATEGORIES), EMPTY_PLAN]:
        shares = [report[kind].get(label, 0) for kind in ("numbers_first", "numbers_final")]
        if label != EMPTY_PLAN or any(shares):
            table.add_row(label, *(f"{n} ({n / report['plans']:.1%})" for n in shares))
    for fault in FAULTS:
        first, final = (report[kind].get(fault, 0) for kind in ("faults_first", "faults_final"))
        if first or final:
            table.add_row(f"fault: {fault}", str(first), str(final))
    console.print(table)
    print(f"retries: {report['retries']}, repaired: {report['repaired']}")
    if report["completion_tokens"] is not None:
        speed = manifest["tokens_per_second"]
        print(
            f"tokens written: {report['completion_tokens']}"
            + (f", {speed:g} a second" if speed else "")
        )
    if failed:
        names = ", ".join(failed[:5]) + (", ..." if len(failed) > 5 else "")
        print(
            f"WARNING: {len(failed)} plans still have faults and keep their best attempt: "
            f"{names}; they are marked in the details. A stronger --model, a higher --max_retries "
            "or a --prompt_file of your own may mend them",
            file=sys.stderr,
        )
