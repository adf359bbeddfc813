"""``hbd3lm plans merge``: the files of all shards in, one plan file out."""

from __future__ import annotations

import argparse
from pathlib import Path

_EXAMPLES = """examples:
  hbd3lm plans merge --output_path data/gsm8k/gsm8k_hierarchical_train.json
  hbd3lm plans merge a.shard-1-of-2.json b/a.shard-2-of-2.json --output_path a.json
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm plans merge",
        description="Join what generate_gsm8k_plans.py --shard I/N wrote into the file a single "
        "run would have written. Missing, repeated and foreign problems, and shards of different "
        "models, prompts or settings are refused by name.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "shards", nargs="*", type=Path, help="the files (default: those beside --output_path)"
    )
    parser.add_argument(
        "--output_path", type=Path, required=True, help="the whole file, as given with --shard"
    )
    parser.add_argument(
        "--data_dir", help="folder with the data files (default: the one the shards were made with)"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0.

    Raises:
        UserError: shards that are missing, unfinished, damaged, or do not belong together.
    """
    args = build_parser().parse_args(argv)
    from hbd3lm.commands.generate_plans import load_problem_set, print_summary
    from hbd3lm.plans.manifest import read_manifest
    from hbd3lm.plans.shards import find_shards, merge_shards, read_shard_manifests

    paths = args.shards or find_shards(args.output_path)
    made = read_shard_manifests(paths)[0]["problems"]
    problem_set = load_problem_set(
        made["dataset"],
        made["split"],
        args.data_dir or made["data_dir"],
        made["num_examples"],
        seed=made["seed"],
    )
    merge_shards(paths, problem_set.problems, args.output_path)
    print(f"merged {len(paths)} shards")
    print_summary(args.output_path, read_manifest(args.output_path), {})
    return 0
