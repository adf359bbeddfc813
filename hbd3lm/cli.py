"""``hbd3lm <verb>``: the command line of the installed package; imports nothing until it must."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hbd3lm.errors import run_command


@dataclass(frozen=True)
class Verb:
    """A command: what it does in one line, and the module whose ``main`` does it.

    Attributes:
        module: takes flags; None: a mode of ``main.py``, which takes KEY=VALUE settings.
    """

    summary: str
    module: str | None = None


VERBS: dict[str, Verb] = {
    "quickstart": Verb(
        "the whole pipeline, small, in minutes; ends in one HTML page", "hbd3lm.commands.quickstart"
    ),
    "plans": Verb("write an abstract plan for every problem", "hbd3lm.commands.generate_plans"),
    "plans merge": Verb(
        "join the plan files of several shards into one", "hbd3lm.commands.merge_plans"
    ),
    "plans apply-review": Verb(
        "merge the verdicts saved by the page of analyze", "hbd3lm.commands.apply_review"
    ),
    "analyze": Verb(
        "measure and look at plans: table, figure, JSON, page", "hbd3lm.commands.analyze_plans"
    ),
    "lengths": Verb(
        "show a data file as tokens, or measure token lengths", "hbd3lm.commands.token_lengths"
    ),
    "mask": Verb("check the attention mask and draw it", "hbd3lm.commands.check_mask"),
    "train": Verb("train a model, or go on with an interrupted run"),
    "ppl_eval": Verb("perplexity of plans and executions"),
    "sample_eval": Verb("generate for a split: accuracy, own plans, speed"),
    "sample": Verb("solve one problem: sampling.question='...'"),
    "view": Verb(
        "make a page of sampled problems: watch them being solved, edit plans",
        "hbd3lm.commands.view",
    ),
    "demo": Verb(
        "web app on this machine: type a problem, watch, change the plan", "hbd3lm.commands.demo"
    ),
    "export": Verb(
        "write a model as a folder that transformers and hbd3lm load", "hbd3lm.commands.export"
    ),
    "export data": Verb(
        "write plans and generations as a data set with its card", "hbd3lm.commands.export_data"
    ),
    "lm_eval": Verb("lm-evaluation-harness with the model type hbd3lm", "hbd3lm.commands.lm_eval"),
    "doctor": Verb("check mask, data, numbers, memory and time of a run before it is queued"),
    "experiment": Verb(
        "run a study: abstraction, comparison, transfer, mechanism", "hbd3lm.commands.experiment"
    ),
    "train_tokenizer": Verb(
        "train the small tokenizer that ships with the package", "hbd3lm.commands.train_tokenizer"
    ),
}


def usage() -> str:
    """What ``hbd3lm --help`` prints."""
    width = max(map(len, VERBS))
    lines = [
        "usage: hbd3lm VERB ...",
        "",
        "Plan-then-execute block-diffusion language models on grade-school math.",
        "",
        "verbs that take flags (hbd3lm VERB --help lists them):",
        *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items() if verb.module),
        "",
        "verbs that take KEY=VALUE settings, as main.py mode=VERB does (--cfg job lists them):",
        *(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items() if not verb.module),
        "",
        "example: hbd3lm train model=nano data=embedded training.max_steps=200",
    ]
    return "\n".join(lines)


def find_verb(words: Sequence[str]) -> tuple[str, list[str]]:
    """The verb ``words`` begins with, and the rest: the longest that fits, of two words or one.

    A verb that does not exist is returned as typed.
    """
    two = " ".join(words[:2])
    size = 2 if len(words) > 1 and two in VERBS else 1
    return " ".join(words[:size]), list(words[size:])


def main(argv: list[str] | None = None) -> int:
    """Run the verb ``argv`` begins with. Returns the exit status; 2 for an unknown verb."""
    return run_command(lambda: _main(sys.argv[1:] if argv is None else argv))


def _main(argv: list[str]) -> int:
    if not argv:
        print(usage(), file=sys.stderr)
        return 2
    name, rest = find_verb(argv)
    if name in ("-h", "--help", "help"):
        print(usage())
        return 0
    if name == "--version":
        from hbd3lm import __version__

        print(f"hbd3lm {__version__}")
        return 0
    if "=" in name:
        # Settings alone, as main.py takes them: so does Lightning start its further processes.
        return _run_mode(argv)
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; choose from {', '.join(VERBS)}"
        print(f"error: hbd3lm has no verb {name!r}{hint}", file=sys.stderr)
        return 2
    further = [verb for verb in VERBS if verb.startswith(f"{name} ")]
    if further and rest and not rest[0].startswith("-"):
        verbs = ", ".join(further)
        print(f"error: hbd3lm has no verb {f'{name} {rest[0]}'!r}; choose from {name}, {verbs}",
              file=sys.stderr)  # fmt: skip
        return 2
    module = VERBS[name].module
    if module is not None:
        return importlib.import_module(module).main(rest)
    if any(argument.startswith("mode=") for argument in rest):
        print(f"error: the verb {name} is the mode; leave mode=... out", file=sys.stderr)
        return 2
    return _run_mode([f"mode={name}", *rest])


def _run_mode(settings: list[str]) -> int:
    from hbd3lm.commands import run

    sys.argv = [sys.argv[0], *settings]  # Hydra reads them there
    run.main()
    return 0


def entry_point() -> int:
    """The console script ``hbd3lm``."""
    return main()


if __name__ == "__main__":
    sys.exit(entry_point())
