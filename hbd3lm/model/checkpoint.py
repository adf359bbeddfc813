"""Checkpoints: what rebuilds a network from a file, checked before it is believed.

A training checkpoint is Lightning's (optimiser, loops, callbacks) plus one entry of ours,
``hbd3lm``: plain values that describe network, layout, objective and tokenizer. Its
``state_dict`` holds the averaged weights (EMA) whenever training keeps an average. A folder that
``hbd3lm export`` wrote holds the same description in ``config.json`` and those weights in
``model.safetensors``.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import Layout
from hbd3lm.model.transformer import Transformer

KEY = "hbd3lm"
FORMAT = 1
NET_PREFIX = "net."
"""How the Lightning module names the network in its state dict."""
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""What :func:`load_network` reads of an exported folder; the code in it is never run."""


@dataclass(frozen=True)
class ModelCard:
    """All that rebuilds a model but its weights; plain values only.

    Attributes:
        objective: ``diffusion`` or ``autoregressive``.
        tokenizer: ``name`` and ``fingerprint`` of the tokenizer it was trained with.
        settings: the run's whole configuration, for the record.
    """

    model: ModelConfig
    layout: Layout
    objective: str
    tokenizer: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": asdict(self.model),
            "layout": self.layout.to_dict(),
            "objective": self.objective,
            "tokenizer": self.tokenizer,
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        return cls(
            ModelConfig(**values["model"]),
            Layout.from_dict(values["layout"]),
            values["objective"],
            values["tokenizer"],
            values["settings"],
        )

    def differences(self, other: ModelCard) -> list[str]:
        """What makes the weights of one unusable for the other, in words."""
        mine, theirs = self.to_dict(), other.to_dict()
        found = []
        for group in ("model", "layout", "tokenizer"):
            for name in mine[group]:
                if name == "name" or mine[group][name] == theirs[group].get(name):
                    continue
                found.append(f"{group}.{name}: {theirs[group].get(name)} != {mine[group][name]}")
        if self.objective != other.objective:
            found.append(f"objective: {other.objective} != {self.objective}")
        return found


def read_checkpoint(path: str | Path, what: str = "checkpoint") -> tuple[ModelCard, dict]:
    """The card and the raw content of a checkpoint file; tensors only, no code is executed.

    Raises:
        UserError: the file is missing, damaged, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{what}: no such file: {path}; train first (python main.py mode=train), or give "
            "checkpoint=FILE.ckpt"
        )
    try:
        # torch.load would take any other file for a pickle and fail in a dozen ways.
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("its table of contents is missing")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{what}: {path} is damaged or no checkpoint ({reason}); use another one of that run"
        ) from None
    if not isinstance(content, dict) or KEY not in content:
        raise UserError(f"{what}: {path} is not a checkpoint of hbd3lm")
    return _read_card(content[KEY], path, what), content


def _read_card(values: Any, path: Path, what: str) -> ModelCard:
    """The card in ``values``, which came from ``path``."""
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise UserError(f"{what}: {path} has format {found}, this version reads {FORMAT}")
    try:
        return ModelCard.from_dict(values)
    except (KeyError, TypeError, AttributeError, UserError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{what}: {path} describes no model: {reason}") from None


def read_exported(folder: str | Path, what: str = "checkpoint") -> tuple[ModelCard, dict]:
    """Card and weights, by their names in the network, of a folder that ``hbd3lm export`` wrote.

    Raises:
        UserError: it is no such folder, or one of its two files is damaged.
    """
    folder = Path(folder)
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not config.is_file():
        run = folder / "checkpoints" / "best.ckpt"
        remedy = str(run) if run.is_file() else "a .ckpt file, or a folder hbd3lm export wrote"
        raise UserError(f"{what}: {folder} is no exported model (no {CONFIG_FILE}); give {remedy}")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(f"{what}: {config} is not valid JSON ({error}); export it again") from None
    if not isinstance(content, dict) or content.get("model_type") != KEY:
        raise UserError(f"{what}: {config} does not describe a model of hbd3lm")
    card = _read_card(content.get("card"), config, what)
    if not weights.is_file():
        raise UserError(
            f"{what}: {folder} holds no {WEIGHTS_FILE}; weights in other forms are not read, "
            "since they can carry code: export the model again"
        )
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(weights)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{what}: {weights} is damaged or not in the safetensors format ({error}); export the "
            "model again"
        ) from None
    return card, {name.removeprefix(NET_PREFIX): tensor for name, tensor in tensors.items()}


def load_network(
    path: str | Path, attention: str = "auto", what: str = "checkpoint"
) -> tuple[Transformer, ModelCard]:
    """The network with its averaged weights, in evaluation mode on the CPU, and its card.

    Args:
        path: a checkpoint file, or a folder written by ``hbd3lm export``.

    Raises:
        UserError: as :func:`read_checkpoint` and :func:`read_exported`, or weights that do not
            fit the described network.
    """
    if Path(path).is_dir():
        card, weights = read_exported(path, what)
    else:
        card, content = read_checkpoint(path, what)
        weights = {
            name.removeprefix(NET_PREFIX): tensor
            for name, tensor in content.get("state_dict", {}).items()
            if name.startswith(NET_PREFIX)
        }
    try:
        with torch.device("meta"):  # no memory is asked for in the name of a wrong description
            expected = Transformer(card.model).state_dict()
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{what}: {path} describes an impossible network: {error}") from None
    for name in sorted(expected.keys() | weights.keys()):
        there, wanted = (
            f"{list(t[name].shape)}" if name in t else "nothing" for t in (weights, expected)
        )
        if there != wanted:
            raise UserError(
                f"{what}: the weights in {path} do not fit the network it describes: {name} is "
                f"{there}, expected {wanted}"
            )
    net = Transformer(card.model, attention)
    net.load_state_dict(weights)
    return net.eval(), card
