"""``generate_gsm8k_plans.py`` / ``hbd3lm generate-plans``: problems in, examples with plans out."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from hbd3lm.errors import UserError

_DATASETS = ("gsm8k", "svamp", "multiarith", "embedded")
_EXAMPLES = """examples:
  generate_gsm8k_plans.py --split train --data_dir DIR
  generate_gsm8k_plans.py --planner socratic --split train
  generate_gsm8k_plans.py --model meta-llama/Meta-Llama-3-8B-Instruct --split train \\
      --num_examples 100 --output_path data/gsm8k/test_100.json
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line; light, so that ``--help`` answers at once."""
    parser = argparse.ArgumentParser(
        prog="generate_gsm8k_plans.py",
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
    data.add_argument("--num_examples", type=int, help="only the first N problems (default: all)")
    data.add_argument("--keep_annotations", action="store_true",
                      help="leave the <<48/2=24>> annotations in the executions")  # fmt: skip
    plans = parser.add_argument_group("plans")
    plans.add_argument("--planner", choices=("rules", "socratic", "vllm"),
                       help="default: vllm if --model is given, else rules")  # fmt: skip
    plans.add_argument("--model", help="model for --planner vllm: hub name or local directory")
    plans.add_argument("--batch_size", type=int, default=256,
                       help="problems handed to the planner at a time (default: 256)")  # fmt: skip
    plans.add_argument("--temperature", type=float, default=0.7, help="vllm only (default: 0.7)")
    plans.add_argument("--top_p", type=float, default=0.9, help="vllm only (default: 0.9)")
    plans.add_argument("--max_tokens", type=int, default=256,
                       help="vllm only: longest plan, in tokens (default: 256)")  # fmt: skip
    plans.add_argument("--tensor_parallel_size", type=int, default=1,
                       help="vllm only: GPUs per copy of the model (default: 1)")  # fmt: skip
    plans.add_argument("--seed", type=int, default=0,
                       help="of vllm's sampling and of embedded problems (default: 0)")  # fmt: skip
    out = parser.add_argument_group("output")
    out.add_argument("--output_path", type=Path,
                     help="default: data/gsm8k/gsm8k_hierarchical_SPLIT.json; "
                     "an existing file is replaced when the run is complete")  # fmt: skip
    out.add_argument("--overwrite", action="store_true",
                     help="discard an unfinished run instead of continuing it")  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0.

    Raises:
        UserError: a flag out of range, missing data, a missing engine, an unfinished other run.
    """
    args = build_parser().parse_args(argv)
    planner = args.planner or ("vllm" if args.model else "rules")
    _check_flags(args, planner)

    from hbd3lm.data.sources import load_problems
    from hbd3lm.plans.generate import generate_plans, journal_path
    from hbd3lm.plans.planner import load_planner

    dataset = args.dataset
    if planner == "socratic" and dataset == "gsm8k":
        dataset = "gsm8k_socratic"  # the same problems, with their sub-questions
    with warnings.catch_warnings():
        # The fallback is announced below, once and in full.
        warnings.simplefilter("ignore", UserWarning)
        problem_set = load_problems(
            dataset, args.split, args.data_dir, args.num_examples, seed=args.seed
        )
    if problem_set.fallback:
        print(f"\nWARNING: {problem_set.fallback}\n", file=sys.stderr)
    print(f"problems: {problem_set.origin}")

    options = _planner_options(args) if planner == "vllm" else {}
    settings = {"planner": planner, "dataset": dataset, "split": args.split, **options}
    output = args.output_path or Path(f"data/gsm8k/gsm8k_hierarchical_{args.split}.json")
    if output.is_file():
        print(f"note: {output} exists and is replaced when all plans are written")
    if journal_path(output).is_file() and not args.overwrite:
        print(f"continuing the unfinished run in {journal_path(output)}")
    # Built before the first problem: a missing engine must not wait for an hour of other work.
    engine = load_planner(planner, **options)
    examples = generate_plans(
        problem_set.problems,
        engine,
        output,
        settings=settings,
        batch_size=args.batch_size,
        keep_annotations=args.keep_annotations,
        overwrite=args.overwrite,
        progress=sys.stderr.isatty(),
    )
    _print_summary(examples, output, planner, getattr(engine, "sources", {}))
    return 0


def _check_flags(args: argparse.Namespace, planner: str) -> None:
    if args.num_examples is not None and args.num_examples < 1:
        raise UserError(
            f"--num_examples {args.num_examples}: at least 1 is needed; leave it out for all"
        )
    if args.batch_size < 1:
        raise UserError(f"--batch_size {args.batch_size}: at least 1 problem a batch is needed")
    if planner != "vllm":
        if args.model:
            raise UserError(
                f"--model {args.model} does nothing with --planner {planner}; leave one of them out"
            )
        return
    if not args.model:
        raise UserError("--planner vllm needs --model (a hub name or a local directory)")
    if args.temperature < 0:
        raise UserError(f"--temperature {args.temperature}: 0 (greedy) or more is needed")
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top_p {args.top_p}: more than 0 and at most 1 is needed")
    if args.max_tokens < 1:
        raise UserError(f"--max_tokens {args.max_tokens}: at least 1 is needed")
    if args.tensor_parallel_size < 1:
        raise UserError(f"--tensor_parallel_size {args.tensor_parallel_size}: at least 1 is needed")


def _planner_options(args: argparse.Namespace) -> dict[str, object]:
    names = ("model", "temperature", "top_p", "max_tokens", "tensor_parallel_size", "seed")
    return {name: getattr(args, name) for name in names}


def _print_summary(examples: list, output: Path, planner: str, sources: dict[str, int]) -> None:
    from hbd3lm.plans.numbers import count_numbers, count_spelled_numbers

    count = len(examples)
    digits = sum(count_numbers(example.plan) for example in examples) / count
    spelled = sum(count_spelled_numbers(example.plan) for example in examples) / count
    print(f"wrote {count} examples with {planner} plans to {output}")
    print(f"numbers per plan: {digits:.2f} in digits, {spelled:.2f} spelled out (mean)")
    generic = sources.get("question", 0)
    if generic:
        print(
            f"note: {generic} of {count} problems publish no solution steps; their plans only name "
            "the given amounts and the goal"
        )
    print(
        "next: python scripts/analysis/analyze_gsm8k_plans.py "
        f"--data_path {output} --output_plot gsm8k_analysis.png"
    )
