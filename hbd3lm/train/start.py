"""Where a run starts: the weights of another run, and which of them stay as they are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import ModelCard, fingerprint_weights, load_network, locate_weights
from hbd3lm.model.layout import Layout
from hbd3lm.model.transformer import SHARED, Transformer
from hbd3lm.train.config import TrainingConfig

KEY = "training.init_from"
FREE_FIELDS = ("modules", "dropout")
"""Of the model: what the shapes of the weights and what they compute do not depend on."""


def check_freeze(config: TrainingConfig, card: ModelCard) -> None:
    """Refuse to freeze what is no module of its own, or what nobody has trained.

    Raises:
        UserError: the model has no such module, or the run starts from random weights.
    """
    if config.freeze is None:
        return
    setting = f"training.freeze={config.freeze}"
    if card.objective == "autoregressive":
        raise UserError(
            f"{setting}: algo=ar has one causal stream, whose plan and execution share all "
            "weights; use algo=hierarchical with hierarchical.modules=separate"
        )
    if not card.layout.has_plan:
        raise UserError(
            f"{setting}: without a plan there is one module only; set "
            "training.hierarchical.enabled=true and hierarchical.modules=separate"
        )
    if card.model.modules == SHARED:
        raise UserError(
            f"{setting}: with hierarchical.modules=shared plan and execution have the same "
            "weights, so that freezing one freezes both; use hierarchical.modules=separate (which "
            f"may start from a shared model: {KEY}=...)"
        )
    if not starts_trained(config, card):
        raise UserError(
            f"{setting}: the weights to keep are those of a run to start from; give {KEY}=RUN"
        )


def starts_trained(config: TrainingConfig, card: ModelCard) -> bool:
    """Does the run start from weights that somebody has trained?"""
    model = card.settings.get("model", {})
    pretrained = model.get("path") is not None and not model.get("scratch")  # model=pretrained
    return pretrained or config.init_from is not None


def freeze(net: Transformer, module: str) -> None:
    """Make constants of all weights of ``module``: embedding, blocks, norms and head."""
    net.stacks[module].requires_grad_(False)


def start_from(path: str | Path, net: Transformer, card: ModelCard) -> dict[str, str]:
    """Give ``net``, which ``card`` describes, the averaged weights at ``path``.

    Where ``card`` has separate modules and the other model a shared one, both start as its copy.

    Args:
        path: a checkpoint file, a run's folder (its best, else its last checkpoint), or a folder
            written by ``hbd3lm export``.

    Returns:
        for the run's card: ``path`` of the weights and their ``fingerprint``.

    Raises:
        UserError: no model there, or one whose weights do not fit; it is named what.
    """
    found = locate_weights(path, KEY)
    source, other = load_network(found, what=KEY)
    differences = misfits(card, other)
    if differences:
        raise UserError(
            f"{KEY}: the model in {found} does not fit this run ({'; '.join(differences)}); "
            "repeat its settings, or start from another one"
        )
    if other.model.modules == card.model.modules:
        net.load_state_dict(source.state_dict())
    else:
        for stack in net.stacks.values():
            stack.load_state_dict(source.stacks[SHARED].state_dict())
    return {"path": str(found), "fingerprint": fingerprint_weights(source)}


def misfits(card: ModelCard, other: ModelCard) -> list[str]:
    """Why a run described by ``card`` cannot start from the weights of ``other``, by name.

    Caps are free, since no weight knows them.
    """
    mine, theirs = asdict(card.model), asdict(other.model)
    found = [
        f"model.{name}: {theirs[name]} != {mine[name]}"
        for name in mine
        if name not in FREE_FIELDS and mine[name] != theirs[name]
    ]
    if card.model.modules == SHARED != other.model.modules:
        found.append(
            f"hierarchical.modules: {other.model.modules} != {SHARED}: two modules do not make one"
        )
    if _blocks(card.layout) != _blocks(other.layout):
        found.append(f"layout: {_blocks(other.layout)} != {_blocks(card.layout)}")
    if card.objective != other.objective:
        found.append(f"objective: {other.objective} != {card.objective}")
    if card.tokenizer["fingerprint"] != other.tokenizer["fingerprint"]:
        names = (f"{c.tokenizer['name']} ({c.tokenizer['fingerprint']})" for c in (other, card))
        found.append(f"tokenizer: {' != '.join(names)}")
    return found


def _blocks(layout: Layout) -> str:
    return ", ".join(f"{s.name} in blocks of {s.block_size}" for s in layout.segments)
