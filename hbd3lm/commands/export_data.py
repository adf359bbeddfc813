"""Write plan files and generations as a data set that ``datasets.load_dataset`` reads."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.export import REMAKE, add_folder_arguments, tell_where
from hbd3lm.errors import UserError
from hbd3lm.files import read_json

if TYPE_CHECKING:
    from hbd3lm.hub.dataset import DataSplit

_SPLITS = ("train", "validation", "valid", "test")


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm export data",
        description="Write plan files and generations as a folder for datasets.load_dataset: "
        "Parquet files and a data card with configurations, features, licence and provenance.",
    )
    parser.add_argument(
        "--plans",
        nargs="+",
        default=[],
        metavar="[SPLIT=]FILE",
        help="plan files; the split is that of their manifest or name unless given",
    )
    parser.add_argument(
        "--generations",
        nargs="+",
        default=[],
        metavar="[SPLIT=]FILE",
        help="records of sample_eval, e.g. outputs/RUN/eval/samples_full.jsonl (split: full)",
    )
    add_folder_arguments(parser, "a data set written by this command")
    parser.add_argument("--title", help="of the data set; default: the folder's name")
    parser.add_argument(
        "--license",
        metavar="ID",
        help="as the hub writes it, e.g. mit; default: that of the problems, where it is known",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Write the folder, print what is in it and how to load it. Returns 0."""
    args = build_parser().parse_args(argv)
    from hbd3lm.hub.dataset import GENERATIONS, PLANS, DataCard, write_dataset

    if not args.plans and not args.generations:
        raise UserError("nothing to export: give --plans FILE, --generations FILE, or both")
    splits, sources = [], []
    for config, given in ((PLANS, args.plans), (GENERATIONS, args.generations)):
        for word in given:
            split, source = _read_split(config, word)
            if any((s.config, s.name) == (config, split.name) for s in splits):
                raise UserError(
                    f"--{config}: two files for the split {split.name}; name them: "
                    f"--{config} ONE={given[0].rpartition('=')[2]} OTHER={split.source}"
                )
            splits.append(split)
            sources.append(source)
    licence, notes = _licence(args.license, sources)
    card = DataCard(
        args.title or Path(args.output_dir).resolve().name,
        licence,
        _on_the_hub(sources),
        [_LEAK] if any(_saw_solution(split) for split in splits) else [],
    )
    write_dataset(args.output_dir, splits, card, args.overwrite)
    for note in notes:
        print(f"note: {note}")
    for split in splits:
        print(f"{split.config}/{split.name}: {len(split.rows)} records of {split.source}")
    tell_where(args, "dataset")
    first = splits[0]
    arguments = f"{args.output_dir!r}, {first.config!r}, split={first.name!r}"
    code = f"import datasets; print(datasets.load_dataset({arguments})[0])"
    print(f"next: python -c {shlex.quote(code)}")
    return 0


_LEAK = (
    "**Plans written with the solution in sight can leak it.** The language model that wrote plans "
    "here was shown the worked solution (see below), so a score of executions that follow these "
    "plans is no measure of solving; score a model on its own plans."
)


def _saw_solution(split: DataSplit) -> bool:
    return any("saw the solution" in value for _, value in split.facts)


def _read_split(config: str, word: str) -> tuple[DataSplit, str | None]:
    """The split of ``[SPLIT=]FILE``, and the data set its problems come from, if known."""
    from hbd3lm.data.records import TEXTS, read_records, tell_empty
    from hbd3lm.hub.dataset import PLANS, DataSplit
    from hbd3lm.plans.provenance import plan_provenance, source_dataset

    name, path = _parse(word)
    what = f"--{config}"
    examples, rows = read_records(path, what)
    # A model may write nothing, and one without plans never writes any.
    tell_empty(examples, f"{what} {path}", needed=TEXTS if config == PLANS else ())
    if config == PLANS:
        rows = [{f: getattr(example, f) for f in example.__slots__} for example in examples]
        name = name or _split_of_plans(path)
        facts, source = plan_provenance(path), source_dataset(path)
        if not facts:
            facts = [("provenance", "not known: the file has no manifest beside it")]
    else:
        if "predicted_strict" not in rows[0]:
            raise UserError(
                f"{what}: {path} holds plans, no generations (no predicted_strict in its records); "
                "give it to --plans, or the samples_full.jsonl of a run's eval folder"
            )
        name = name or re.sub(r"\W+", "_", path.stem.removeprefix("samples_")) or "full"
        facts, source = _evaluation(path), _source_of_ids([example.id for example in examples])
    return DataSplit(config, name, rows, str(path), facts), source


def _parse(word: str) -> tuple[str | None, Path]:
    """``SPLIT=FILE`` or ``FILE``, which may hold a ``=`` of its own."""
    name, separator, rest = word.partition("=")
    if separator and re.fullmatch(r"\w+", name) and not Path(word).exists():
        return name, Path(rest)
    return None, Path(word)


def _split_of_plans(path: Path) -> str:
    from hbd3lm.plans.manifest import manifest_path, read_manifest

    if manifest_path(path).is_file() and (split := read_manifest(path)["settings"].get("split")):
        return str(split)
    found = re.search(rf"({'|'.join(_SPLITS)})\W*$", path.stem)
    if found is None:
        raise UserError(f"--plans: which split is {path}? Say so: --plans train={path}")
    return found[1].replace("valid", "validation") if found[1] == "valid" else found[1]


def _source_of_ids(ids: list[str]) -> str | None:
    """The data set whose problems have such ids (``gsm8k_test_0``), if all are of one."""
    from hbd3lm.data.catalogue import DATASETS

    names = {re.sub(r"_(train|test)_\d+$", "", i) for i in ids}
    (name,) = names if len(names) == 1 else (None,)
    return name if name in DATASETS else None


def _evaluation(path: Path) -> list[tuple[str, str]]:
    """What ``sample_eval`` wrote beside the records: model, mode, sampling, scores."""
    file = path.with_name(f"sample_eval_{path.stem.removeprefix('samples_')}.json")
    if not file.is_file():
        return [("provenance", f"not known: no {file.name} beside the records")]
    result = read_json(file, "--generations", REMAKE)
    mode = {
        "full": "the model's own plans and executions",
        "plan_only": "the model's own plans; executions are the data's",
        "exec_only": "executions of the data's plans",
    }
    checkpoint = Path(str(result.get("checkpoint")))
    rows = [
        ("model", "/".join(checkpoint.parts[-3:]) if checkpoint.is_absolute() else checkpoint),
        ("written", mode.get(result.get("mode"), str(result.get("mode")))),
        ("problems", _last_parts(str(result.get("problem_set")))),
        ("sampling", _sampling(result.get("sampling"))),
    ]
    for kind in ("strict", "flexible"):
        if score := result.get(f"accuracy_{kind}"):
            interval = f"[{score['low']:.1%}, {score['high']:.1%}] (95 %, Wilson)"
            rows.append((f"exact match, {kind}", f"{score['value']:.1%} {interval}"))
    return [(name, str(value)) for name, value in rows]


def _sampling(settings: Any) -> str:
    """Those that differ from nothing."""
    if not isinstance(settings, dict):
        return "not known"
    left_out = ("question", "plan", "mode", "batch_size")
    return ", ".join(
        f"{name} {value}"
        for name, value in settings.items()
        if value is not None and name not in left_out
    )


def _last_parts(problem_set: str) -> str:
    """A path in the name of a problem set without its folders."""
    return re.sub(r"(?:/[^/,]+)+/([^/,]+)", r"\1", problem_set)


def _licence(given: str | None, sources: list[str | None]) -> tuple[str | None, list[str]]:
    """The licence to state, and what to tell the user about it."""
    from hbd3lm.data.catalogue import licence_of

    if given:
        return given, []
    found = {licence_of(source) if source else None for source in sources}
    if len(found) == 1 and (licence := found.pop()):
        return licence, []
    return None, ["the licence of the problems is not known, or not one; give it with --license"]


def _on_the_hub(sources: list[str | None]) -> list[str]:
    from hbd3lm.data.catalogue import published_as

    names = [published_as(source)[1] for source in sources if source]
    return list(dict.fromkeys(name for name in names if name))
