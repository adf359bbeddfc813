"""Write a trained model as a folder that ``transformers`` and hbd3lm load."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbd3lm.commands.overrides import override_value
from hbd3lm.errors import UserError
from hbd3lm.files import read_json

if TYPE_CHECKING:
    from hbd3lm.hub.card import RunFacts
    from hbd3lm.model.checkpoint import ModelCard

NOT_OF_TRAINING = ("mode", "checkpoint", "sampling", "eval", "hydra")
"""Settings that say nothing of how a model was trained."""
REMAKE = "remove it or make it anew"


def build_parser() -> argparse.ArgumentParser:
    """The command line, described once."""
    parser = argparse.ArgumentParser(
        prog="hbd3lm export",
        description="Write a trained model as a folder: config, tokenizer, safetensors, the code "
        "AutoModel needs, and a model card filled from the run.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="FILE",
        help="checkpoint of a run, e.g. outputs/hierarchical_tiny/checkpoints/best.ckpt",
    )
    add_folder_arguments(parser, "an exported model that is there")
    return parser


def add_folder_arguments(parser: argparse.ArgumentParser, replaced: str) -> None:
    """Where an export goes: the folder, whether ``replaced`` may be there, and the hub."""
    parser.add_argument("--output_dir", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help=f"replace {replaced}")
    parser.add_argument(
        "--push_to_hub",
        metavar="ID",
        help="then upload the folder to the Hugging Face hub, as USER/NAME (needs `hf auth login`)",
    )


def main(argv: list[str] | None = None) -> int:
    """Export, print what was written and how to load it. Returns 0."""
    args = build_parser().parse_args(argv)
    for line in export(args.checkpoint, args.output_dir, args.overwrite):
        print(f"note: {line}")
    tell_where(args)
    place = shlex.quote(f"checkpoint={override_value(args.output_dir)}")
    print(f"next: hbd3lm sample {place} sampling.question='...'")
    return 0


def tell_where(args: argparse.Namespace, kind: str = "model") -> None:
    """Print the folder, and upload it where that was asked for.

    Args:
        kind: ``model`` or ``dataset``.
    """
    print(f"exported: {args.output_dir}")
    if args.push_to_hub:
        from hbd3lm.pretrained import upload_folder

        place = upload_folder(Path(args.output_dir), args.push_to_hub, kind=kind)
        print(f"uploaded: {place}")


def export(checkpoint: str | Path, folder: str | Path, overwrite: bool = False) -> list[str]:
    """Write ``checkpoint`` to ``folder``; what the card could not say, a line each.

    Raises:
        UserError: no such checkpoint, its tokenizer is not to be had, or ``folder`` is taken.
    """
    from hbd3lm.commands.build import load_trained_tokenizer
    from hbd3lm.hub.card import model_card
    from hbd3lm.hub.directory import check_target, write_exported
    from hbd3lm.model.checkpoint import load_network

    checkpoint, folder = Path(checkpoint), Path(folder)
    if checkpoint.is_dir():
        raise UserError(
            f"--checkpoint: {checkpoint} is a folder; give a file, e.g. RUN/checkpoints/best.ckpt"
        )
    check_target(folder, overwrite)
    net, card = load_network(checkpoint, what="--checkpoint")
    tokenizer = load_trained_tokenizer(card, checkpoint)
    facts, notes = read_run(checkpoint, card)
    readme = model_card(card, facts, net.count_parameters())
    write_exported(folder, net, card, tokenizer, readme, overwrite)
    return notes


def read_run(checkpoint: Path, card: ModelCard) -> tuple[RunFacts, list[str]]:
    """What the run's folder says of this checkpoint, and what it leaves open, a line each."""
    from hbd3lm.hub.card import RunFacts
    from hbd3lm.plans.provenance import source_dataset

    run, notes = checkpoint.parent.parent, []
    summary_file = run / "train_summary.json"
    summary = {}
    if summary_file.is_file():
        summary = read_json(summary_file, "--checkpoint", REMAKE)
        if checkpoint.name != "best.ckpt":
            summary["best_valid_nelbo"] = None  # it is another checkpoint's
    else:
        notes.append(f"no {summary_file}; the model card says nothing of the training")
    results = {}
    for file in sorted((run / "eval").glob("*.json")):
        result = read_json(file, "--checkpoint", REMAKE)
        if Path(str(result.get("checkpoint"))).name != checkpoint.name:
            continue
        if file.stat().st_mtime < checkpoint.stat().st_mtime:
            notes.append(f"{file} is older than the checkpoint; left out of the model card")
        else:
            results[file.name] = result
    if not results:
        notes.append(
            f"no evaluation of {checkpoint} in {run / 'eval'}; the model card has no results "
            "(run mode=sample_eval first to have them)"
        )
    name = str(card.settings.get("run_name") or checkpoint.stem)
    command = shlex.join(["python", "main.py", "mode=train", *training_overrides(card.settings)])
    plans = _plans_of(run, card) if card.layout.has_plan else []
    if card.layout.has_plan and not plans:
        notes.append("no manifest beside the training plans; the model card says less of them")
    dataset = source_dataset(_plan_file(run, card))
    return RunFacts(name, command, summary, results, plans, dataset), notes


def _plans_of(run: Path, card: ModelCard) -> list[tuple[str, str]]:
    """Where the plans come from that this run was trained on."""
    from hbd3lm.plans.provenance import plan_provenance

    return plan_provenance(_plan_file(run, card))


def _plan_file(run: Path, card: ModelCard) -> Path:
    given = (card.settings.get("data") or {}).get("train_path")
    return Path(given or run / "data" / "train.json")


# -- the command that repeats a run --------------------------------------------------------------


def training_overrides(settings: Mapping[str, Any]) -> list[str]:
    """The shortest overrides found that make these settings of today's defaults.

    Keys whose default follows another key are only set where that does not give their value.
    """
    import hydra
    from omegaconf import OmegaConf

    from hbd3lm.commands.compose import CONFIGS
    from hbd3lm.train.config import LATER_SETTINGS, leaves

    def compose(overrides: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Leaves as written (``${...}`` not followed) and as resolved."""
        cfg = hydra.compose("config", overrides=overrides)
        return tuple(leaves(OmegaConf.to_container(cfg, resolve=r)) for r in (False, True))

    wanted = leaves(settings)
    if "training" in settings:
        wanted = leaves({"training": LATER_SETTINGS}) | wanted
    chosen = []
    for group in sorted(path.name for path in Path(CONFIGS).iterdir() if path.is_dir()):
        option = (settings.get(group) or {}).get("name")
        if option is not None and Path(CONFIGS, group, f"{option}.yaml").is_file():
            chosen.append(f"{group}={option}")
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        defaults = compose([])[1]
        chosen = [
            c for c in chosen if defaults.get(f"{c.partition('=')[0]}.name") != c.split("=")[1]
        ]
        for follow in (False, True):
            raw, resolved = compose(chosen)
            for key, value in resolved.items():
                if key.split(".")[0] in NOT_OF_TRAINING or wanted.get(key, value) == value:
                    continue
                if follow or "${" not in str(raw[key]):
                    chosen.append(f"{key}={override_value(wanted[key])}")
    return chosen
