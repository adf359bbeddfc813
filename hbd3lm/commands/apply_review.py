"""``hbd3lm plans apply-review``: the verdicts saved by the analysis page, merged into the plans."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hbd3lm.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """The command line; light, so that ``--help`` answers at once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm plans apply-review",
        description="Merge the verdicts saved by the page of the plan analysis into the plan file "
        "it was made of: edited plans replace the old ones, bad ones are dropped or kept.",
    )
    parser.add_argument(
        "--data_path", required=True, metavar="FILE", help="the plan file the page was made of"
    )
    parser.add_argument(
        "--review", required=True, metavar="FILE", help="review.json, saved by the page"
    )
    parser.add_argument(
        "--output_path",
        type=Path,
        metavar="FILE",
        help="the merged plans; what was changed goes beside it, NAME.review.json "
        "(default: the name of the plan file with _reviewed before its suffix)",
    )
    parser.add_argument(
        "--bad",
        choices=("drop", "keep"),
        default="drop",
        help="what to do with problems whose plan is bad (default: %(default)s)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command. Returns 0.

    Raises:
        UserError: unreadable data or review, a review of other data, an output that would
            overwrite what is read or cannot be written.
    """
    args = build_parser().parse_args(argv)
    from hbd3lm.data.records import read_examples, write_examples
    from hbd3lm.files import atomic_write, check_output, writing
    from hbd3lm.plans.review import apply_review, fingerprint_examples, read_review

    data = Path(args.data_path)
    output = args.output_path or data.with_name(f"{data.stem}_reviewed{data.suffix}")
    record = output.with_name(output.name + ".review.json")
    for path in (output, record):
        if path.resolve() in (data.resolve(), Path(args.review).resolve()):
            raise UserError(f"--output_path: {path} is read by this command; name another file")
    examples, review = read_examples(data), read_review(args.review)
    for path in (output, record):
        check_output(path, "--output_path")
    merged = apply_review(examples, review, keep_bad=args.bad == "keep")
    counts = {
        "examples": len(examples),
        "verdicts": len(merged.changes),
        **{
            verdict: sum(change["verdict"] == verdict for change in merged.changes)
            for verdict in ("good", "bad", "edited")
        },
        "replaced": merged.count("replaced"),
        "dropped": merged.count("dropped"),
        "written": len(merged.examples),
    }
    content = {
        "data_path": str(data),
        "review": args.review,
        "output_path": str(output),
        "bad": args.bad,
        "fingerprint_before": review.fingerprint,
        "fingerprint_after": fingerprint_examples(merged.examples),
        "counts": counts,
        "changes": merged.changes,
    }
    with writing(output, "--output_path"):
        write_examples(output, merged.examples)
        with atomic_write(record) as file:
            json.dump(content, file, ensure_ascii=False, indent=2)
            file.write("\n")
    unchanged = merged.count("unchanged")
    kept = "" if args.bad == "drop" else " (kept: --bad keep)"
    print(
        f"{counts['verdicts']} verdicts on {counts['examples']} examples: {counts['good']} good, "
        f"{counts['edited']} edited, {counts['bad']} bad{kept}"
    )
    print(
        f"plans replaced: {counts['replaced']}; problems dropped: {counts['dropped']}"
        + (f"; edited to what they were: {unchanged}" if unchanged else "")
    )
    print(f"wrote {counts['written']} examples to {output}")
    print(f"what was changed: {record}")
    return 0
