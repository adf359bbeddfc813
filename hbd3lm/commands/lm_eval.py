"""lm-evaluation-harness's own command, with the model type ``hbd3lm`` known to it."""

from __future__ import annotations

import argparse
import sys

from hbd3lm.errors import UserError

HELP = """usage: hbd3lm lm_eval FLAGS ...

lm-evaluation-harness (the extra lm-eval) with the model type hbd3lm, which `lm_eval` alone does not
know. All flags are its own (see lm_eval --help), e.g.

  hbd3lm lm_eval --model hbd3lm --model_args pretrained=DIR --tasks gsm8k --batch_size auto

--model_args: pretrained=DIR (an exported folder, a checkpoint file, a model of the hub), draws=16
(of the noise, for likelihoods), sampling settings: method, steps, threshold, precision, seed."""


def build_parser() -> argparse.ArgumentParser:
    """Everything is handed on: the flags are the harness's."""
    # Nothing is a flag of ours, so no character begins one.
    parser = argparse.ArgumentParser(prog="hbd3lm lm_eval", prefix_chars="\0", add_help=False)
    parser.add_argument("flags", nargs="*", help="as `lm_eval --help` has them")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run ``lm_eval`` with these flags.

    Raises:
        UserError: the harness is not installed, a task's data cannot be fetched, or what
            :mod:`hbd3lm.harness` refuses.
    """
    flags = build_parser().parse_args(argv).flags
    if not set(flags) - {"-h", "--help"}:
        print(HELP)  # at once; the harness takes seconds to be imported
        return 0
    import hbd3lm.harness  # noqa: F401  registers the model type, or says how to install lm_eval

    from lm_eval.__main__ import cli_evaluate  # isort: skip

    sys.argv = ["lm_eval", *flags]  # where the harness reads them
    try:
        cli_evaluate()
    except ConnectionError as error:  # of the libraries that fetch a task's data
        raise UserError(
            f"{error}; the problems of a task come from the hub, or from local files by a task "
            "file of yours (--include_path DIR --tasks NAME)"
        ) from error
    return 0
