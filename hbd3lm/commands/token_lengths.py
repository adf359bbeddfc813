"""Show a data file as training sees it, or measure how many tokens its segments take."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from hbd3lm.commands.arguments import positive
from hbd3lm.errors import UserError, printable

if TYPE_CHECKING:
    from hbd3lm.data.encoding import Caps, EncodedExample
    from hbd3lm.data.lengths import LengthStats
    from hbd3lm.data.records import HierarchicalExample
    from hbd3lm.data.tokenizer import ProblemTokenizer

_IDS_SHOWN = 8


def build_parser(prog: str = "hbd3lm lengths") -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Without --analyze: load a data file as training does and print its first "
        "examples as tokens. With --analyze: the table of token lengths, the share cut off by the "
        "caps, and recommended caps.",
    )
    parser.add_argument(
        "--data_path", required=True, metavar="FILE", help="examples: JSON array or JSON Lines"
    )
    parser.add_argument("--analyze", action="store_true", help="measure token lengths")
    parser.add_argument(
        "--tokenizer",
        default="gsm",
        metavar="NAME",
        help="gsm (ships with the package), gpt2, a local folder or a hub id (default: gsm)",
    )
    parser.add_argument(
        "--data_dir",
        metavar="DIR",
        help="folder in which gpt2/ is looked for (default: HBD3LM_DATA_DIR)",
    )
    for flag, cap, what in (
        ("question", 128, "question"),
        ("plan", 128, "plan"),
        ("exec", 256, "execution"),
    ):
        parser.add_argument(
            f"--{flag}_len",
            type=positive,
            default=cap,
            metavar="N",
            help=f"most tokens of the {what}, its end token included (default: {cap})",
        )
    parser.add_argument(
        "--block_size",
        type=positive,
        default=16,
        metavar="N",
        help="recommended caps are multiples of it (default: 16)",
    )
    parser.add_argument(
        "--num_samples",
        type=positive,
        default=10,
        metavar="N",
        help="examples to print without --analyze (default: 10)",
    )
    parser.add_argument(
        "--output_json", metavar="FILE", help="with --analyze: write the table as JSON, too"
    )
    return parser


def main(argv: list[str] | None = None, prog: str = "hbd3lm lengths") -> int:
    """Print the examples or the table. Returns 0.

    Raises:
        UserError: unreadable data, no such tokenizer, ``--output_json`` without ``--analyze``.
    """
    args = build_parser(prog).parse_args(argv)
    if args.output_json and not args.analyze:
        raise UserError("--output_json writes the table of token lengths: give --analyze, too")

    from hbd3lm.data.encoding import Caps
    from hbd3lm.data.records import read_examples, tell_empty
    from hbd3lm.data.tokenizer import load_tokenizer

    caps = Caps(question=args.question_len, plan=args.plan_len, execution=args.exec_len)
    examples = read_examples(args.data_path)
    if args.analyze:  # without plans there are lengths for algo=flat, which has no use for them
        tell_empty(examples, f"--data_path {args.data_path}", needed=("question", "execution"))
    tokenizer = load_tokenizer(args.tokenizer, data_dir=args.data_dir)
    if args.analyze:
        _analyze(args, examples, tokenizer, caps)
    else:
        _show(args, examples, tokenizer, caps)
    return 0


def _analyze(
    args: argparse.Namespace,
    examples: list[HierarchicalExample],
    tokenizer: ProblemTokenizer,
    caps: Caps,
) -> None:
    from hbd3lm.data.lengths import measure_lengths
    from hbd3lm.files import atomic_write, check_output

    if args.output_json:
        check_output(args.output_json, "--output_json")
    table = measure_lengths(examples, tokenizer, caps, args.block_size)
    if args.output_json:  # before printing: `| head` must not cost the file
        report = {
            "data_path": args.data_path,
            "examples": len(examples),
            "tokenizer": tokenizer.name,
            "tokenizer_fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "end_tokens_counted": True,
            "block_size": args.block_size,
            "lengths": {name: asdict(stats) for name, stats in table.items()},
        }
        with atomic_write(args.output_json, what="--output_json") as file:
            json.dump(report, file, indent=2)
            file.write("\n")
    _print_table(args, table, len(examples), tokenizer)
    if args.output_json:
        print(f"written: {args.output_json}")


def _print_table(
    args: argparse.Namespace,
    table: dict[str, LengthStats],
    count: int,
    tokenizer: ProblemTokenizer,
) -> None:
    from rich.table import Table

    from hbd3lm.commands.console import make_console

    console = make_console()
    columns = Table(
        title=f"Token lengths: {count:,} examples, tokenizer {tokenizer.name} "
        f"({tokenizer.vocab_size:,} ids)"
    )
    columns.add_column("Segment")
    for header in ("Mean", "Median", "95th %", "99th %", "Max", "Cap", "Truncated", "Recommended"):
        columns.add_column(header, justify="right")
    for name, row in table.items():
        columns.add_row(
            name.capitalize(),
            *(f"{value:.1f}" for value in (row.mean, row.median, row.p95, row.p99)),
            str(row.max),
            str(row.cap),
            f"{row.truncated} ({row.truncated_share:.2%})",
            str(row.recommended),
            style="bold" if name == "total" else None,
            end_section=name == "execution",
        )
    console.print(columns)
    console.print(
        "Each segment is counted with its end token. Truncated: examples longer than the cap "
        "(total: cut in any segment). Recommended: the 99th percentile, rounded up to blocks of "
        f"{args.block_size}.",
    )


def _show(
    args: argparse.Namespace,
    examples: list[HierarchicalExample],
    tokenizer: ProblemTokenizer,
    caps: Caps,
) -> None:
    """The first examples: ids, counts, and the text the ids stand for. Four lines each."""
    from hbd3lm.data.encoding import encode_examples

    encoded, truncation = encode_examples(examples, tokenizer, caps)
    print(
        f"{args.data_path}: {len(examples)} examples, tokenizer {tokenizer.name} "
        f"({tokenizer.vocab_size} ids); tokens with the end token of each segment"
    )
    if truncation:
        print(printable(str(truncation)))
    for example, ids in list(zip(examples, encoded))[: args.num_samples]:
        print(printable(_describe(example, ids, tokenizer)))


def _describe(
    example: HierarchicalExample, encoded: EncodedExample, tokenizer: ProblemTokenizer
) -> str:
    lines = []
    total, exact = 0, True
    for name in ("question", "plan", "execution"):
        ids = getattr(encoded, name)
        total += len(ids)
        exact = exact and tokenizer.decode(ids) == getattr(example, name)
        shown = " ".join(map(str, ids[:_IDS_SHOWN])) + (" ..." if len(ids) > _IDS_SHOWN else "")
        # One line: the line breaks of an execution are written as \n.
        text = tokenizer.decode(ids, skip_special=False).replace("\n", "\\n")
        lines.append(f"  {name:9} {len(ids):4} tokens [{shown}] {text}")
    trip = "decodes to the text exactly" if exact else "cut: decodes to a part of the text"
    head = f"{example.id}: {total} tokens, answer {example.answer_numerical}; {trip}"
    return "\n".join([head, *lines])
