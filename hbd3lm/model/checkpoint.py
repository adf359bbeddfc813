"""Checkpoints: what rebuilds a network from a file, checked before it is believed.

A training checkpoint is Lightning's (optimiser, loops, callbacks) plus one entry of ours,
``hbd3lm``: plain values that describe network, layout, objective and tokenizer. Its
``state_dict`` holds the averaged weights (EMA) whenever training keeps an average.
"""

from __future__ import annotations

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
    if content[KEY].get("format") != FORMAT:
        raise UserError(
            f"{what}: {path} has format {content[KEY].get('format')}, this version reads {FORMAT}"
        )
    return ModelCard.from_dict(content[KEY]), content


def load_network(
    path: str | Path, attention: str = "auto", what: str = "checkpoint"
) -> tuple[Transformer, ModelCard]:
    """The network with its averaged weights, in evaluation mode on the CPU, and its card.

    Raises:
        UserError: as :func:`read_checkpoint`, or weights that do not fit the described network.
    """
    card, content = read_checkpoint(path, what)
    net = Transformer(card.model, attention)
    weights = {
        name.removeprefix(NET_PREFIX): tensor
        for name, tensor in content["state_dict"].items()
        if name.startswith(NET_PREFIX)
    }
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{what}: the weights in {path} do not fit the network it describes: "
            f"{str(error).splitlines()[1].strip()}"
        ) from None
    return net.eval(), card
