"""Train the byte-level BPE that ships with the package.

The shipped ``hbd3lm/data/tokenizer_files/gsm.json`` was made with

    python scripts/data_prep/train_tokenizer.py --data_dir DIR \
        --output hbd3lm/data/tokenizer_files/gsm.json

where DIR holds ``gsm8k_train.jsonl`` and ``gsm8k_train_socratic.jsonl``. Test problems are never
read. The text is what a model sees: questions, executions without annotations, and plans (those
of the ``rules`` planner and the Socratic sub-questions), of GSM8K train and of embedded problems.
The same texts give the same file; a change of the planner or of the generator changes the texts.
Checkpoints are tied to the vocabulary (``fingerprint``), so train it anew only with good reason.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from hbd3lm.commands.arguments import count, positive

if TYPE_CHECKING:
    from hbd3lm.data.records import Problem


def main(argv: list[str] | None = None, prog: str = "hbd3lm train_tokenizer") -> int:
    """Train, write, and print how many tokens a problem takes. Returns 0."""
    args = build_parser(prog).parse_args(argv)

    from hbd3lm.data.bpe import check_vocab_size, train_bpe
    from hbd3lm.data.sources import load_problems
    from hbd3lm.data.synthetic import generate_problems
    from hbd3lm.files import atomic_write, check_output

    check_vocab_size(args.vocab_size)  # before the minutes that the texts may take
    print(f"problems: generating {args.embedded:,} and reading those of GSM8K", flush=True)
    embedded = generate_problems("train", args.embedded)
    socratic = load_problems("gsm8k_socratic", "train", args.data_dir, limit=args.limit).problems
    plain = load_problems("gsm8k", "train", args.data_dir, limit=args.limit).problems
    problems = [*plain, *embedded]
    subquestions = [" ".join(problem.subquestions) for problem in (*socratic, *embedded)]
    check_output(args.output, "--output")
    tokenizer = train_bpe([*_texts(problems), *subquestions], args.vocab_size, name="gsm")
    with atomic_write(args.output, what="--output") as file:
        file.write(tokenizer.to_json())
    print(
        f"{args.output}: {tokenizer.vocab_size} tokens, fingerprint {tokenizer.fingerprint}, "
        f"trained on {len(plain)} GSM8K train and {len(embedded)} embedded problems"
    )
    lengths = [len(ids) for ids in tokenizer.encode_batch([_plain_text(p) for p in plain])]
    print(f"tokens a GSM8K train problem (question and execution): {sum(lengths) / len(plain):.1f}")
    return 0


def _texts(problems: Sequence[Problem]) -> Iterator[str]:
    from hbd3lm.data.annotations import execution_text
    from hbd3lm.plans.planner import load_planner

    for problem in problems:
        yield problem.question
        yield execution_text(problem)
    yield from load_planner("rules").plan(problems)


def _plain_text(problem: Problem) -> str:
    from hbd3lm.data.annotations import execution_text

    return f"{problem.question}\n{execution_text(problem)}"


def build_parser(prog: str = "hbd3lm train_tokenizer") -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train the byte-level BPE that ships with the package (digits one by one).",
        epilog="Reads GSM8K train (main and socratic) and generates embedded problems.",
    )
    parser.add_argument(
        "--data_dir", help="folder with the GSM8K files (default: HBD3LM_DATA_DIR, else the hub)"
    )
    parser.add_argument("--output", required=True, help="the tokenizer.json to write")
    parser.add_argument(
        "--vocab_size",
        type=positive,
        default=4096,
        help="number of ids, the special tokens included (default: 4096)",
    )
    parser.add_argument(
        "--embedded",
        type=count,
        default=2000,
        help="number of embedded train problems to add (default: 2000)",
    )
    parser.add_argument("--limit", type=positive, help="use only the first N problems of GSM8K")
    return parser
