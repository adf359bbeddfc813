"""Checkpoints: what rebuilds a network from a file, checked before it is believed.

A training checkpoint is Lightning's (optimiser, loops, callbacks) plus one entry of ours,
``hbd3lm``: plain values that describe network, layout, objective and tokenizer. Its
``state_dict`` holds the averaged weights (EMA) whenever training keeps an average. A folder that
``hbd3lm export`` wrote holds the same description in ``config.json`` and those weights in
``model.safetensors``.

The file is a torch archive (a zip) that ends in a seal: its comment is the SHA-256 of all bytes
before. torch does not compare the check sums of a zip when it reads one, so without the seal a
flipped bit would be a slightly different model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
import struct
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import torch

from hbd3lm.errors import UserError, some_of
from hbd3lm.files import atomic_write, read_json
from hbd3lm.model.adapters import merge_adapters
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import Layout
from hbd3lm.model.transformer import Transformer

KEY = "hbd3lm"
FORMAT = 1
OBJECTIVES = ("diffusion", "autoregressive")
NET_PREFIX = "net."
"""How the Lightning module names the network in its state dict."""
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
"""What :func:`load_network` reads of an exported folder; the code in it is never run."""
SEAL = b"hbd3lm sha256 "
SEAL_SIZE = len(SEAL) + 64


class DamagedCheckpointError(UserError):
    """A checkpoint file that is not what was written: cut off, changed, or something else."""


@dataclass(frozen=True)
class ModelCard:
    """All that rebuilds a model but its weights; plain values only.

    Attributes:
        objective: ``diffusion`` or ``autoregressive``.
        tokenizer: ``name`` and ``fingerprint`` of the tokenizer it was trained with.
        settings: the run's whole configuration, for the record.
        adapters: by module, the scale of low-rank adapters that the weights hold beside the
            matrices; a network that :func:`load_network` gives has them merged.
    """

    model: ModelConfig
    layout: Layout
    objective: str
    tokenizer: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    adapters: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": asdict(self.model),
            "layout": self.layout.to_dict(),
            "objective": self.objective,
            "tokenizer": self.tokenizer,
            "adapters": self.adapters,
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelCard:
        """The card that :meth:`to_dict` made ``values`` of, in this process or another.

        Raises:
            KeyError, TypeError, AttributeError: an entry is missing or of another type.
            UserError: no such model, layout or objective.
        """
        for name, kind in (("tokenizer", dict), ("settings", dict), ("adapters", dict)):
            if not isinstance(values.get(name, {}), kind):
                raise TypeError(f"its {name} is {values[name]!r:.40}")
        for name in ("name", "fingerprint"):
            if not isinstance(values["tokenizer"][name], str):
                raise TypeError(f"its tokenizer's {name} is {values['tokenizer'][name]!r:.40}")
        if values["objective"] not in OBJECTIVES:
            raise UserError(f"its objective is {values['objective']!r:.40}")
        return cls(
            ModelConfig(**values["model"]),
            Layout.from_dict(values["layout"]),
            values["objective"],
            values["tokenizer"],
            values["settings"],
            values.get("adapters", {}),
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
        if self.adapters != other.adapters:
            found.append(f"training.lora: {other.adapters} != {self.adapters}")
        if self.objective != other.objective:
            found.append(f"objective: {other.objective} != {self.objective}")
        return found


def write_checkpoint(
    content: dict[str, Any], path: str | Path, previous: str | Path | None = None
) -> None:
    """Write a sealed checkpoint beside ``path`` and move it there when it is whole.

    Args:
        previous: where the file now at ``path`` is kept. At every moment one of the two is a
            whole checkpoint.

    Raises:
        OSError: the disk is full, for one; ``path`` is as it was.
    """
    path = Path(path)
    with atomic_write(path, "w+b") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # torch's archive writer hides the disk's error behind one of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        _seal(file)
        if previous is not None and path.exists():
            _keep(path, Path(previous))


def _seal(file: IO[bytes]) -> None:
    """End the zip in ``file`` in a comment: the digest of all that stands before it."""
    file.seek(-2, os.SEEK_END)
    if file.read() != b"\0\0":
        raise RuntimeError("the archive written by torch has a comment of its own")
    file.seek(-2, os.SEEK_END)
    file.write(struct.pack("<H", SEAL_SIZE))
    file.seek(0)
    digest = _digest(file)
    file.seek(0, os.SEEK_END)
    file.write(SEAL + digest)


def _digest(file: IO[bytes], size: int | None = None) -> bytes:
    """SHA-256, in hex, of the next ``size`` bytes (default: of all to the end)."""
    digest = hashlib.sha256()
    left = size
    while chunk := file.read(1 << 20 if left is None else min(left, 1 << 20)):
        digest.update(chunk)
        left = None if left is None else left - len(chunk)
    return digest.hexdigest().encode()


def _keep(path: Path, previous: Path) -> None:
    """Give ``path`` the second name ``previous``, without a moment in which it has none."""
    link = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        os.replace(path, previous)
        return
    try:
        os.replace(link, previous)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)


def check_file(path: Path) -> None:
    """Are these the bytes that were written?

    Raises:
        ValueError: no, and how one can tell.
    """
    # torch.load would take any other file for a pickle and fail in a dozen ways.
    if not zipfile.is_zipfile(path):
        raise ValueError("its table of contents is missing")
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END) - SEAL_SIZE
        file.seek(max(0, size))
        seal = file.read()
        file.seek(0)
        if re.fullmatch(SEAL + b"[0-9a-f]{64}", seal):
            if SEAL + _digest(file, size) != seal:
                raise ValueError("its content does not match its checksum")
            return
        file.seek(-2, os.SEEK_END)
        if file.read() != b"\0\0":  # of a zip without a comment: it was not sealed
            raise ValueError("its checksum is damaged or missing")
    # Files of other writers have no seal, but every zip has a check sum a member.
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
        if broken is not None:
            raise ValueError(f"{broken} in it does not match its checksum")


def read_checkpoint(path: str | Path, what: str = "checkpoint") -> tuple[ModelCard, dict]:
    """The card and the raw content of a checkpoint file; tensors only, no code is executed.

    Raises:
        DamagedCheckpointError: a checkpoint it is not, or not any more.
        UserError: the file is missing, holds code, or is not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{what}: no such file: {path}; train first (python main.py mode=train), or give "
            f"{_key(what)}=FILE.ckpt"
        )
    damage = (RuntimeError, ValueError, zipfile.BadZipFile, NotImplementedError, EOFError, OSError)
    try:
        check_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|[Gg]lobal) ([\w.]+)", str(error))
        raise UserError(
            f"{what}: {path} holds more than tensors and plain values"
            f"{f' ({found[1]})' if found else ''}; nothing of it was executed. It was not written "
            "by hbd3lm: use another file"
        ) from None
    except damage as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(
            f"{what}: {path} is damaged or no checkpoint ({reason}); use another one of that run"
            f"{_others(path, _key(what))}"
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
        raise UserError(
            f"{what}: {path} describes no model: {reason}; use another file"
            f"{_others(path, _key(what))}"
        ) from None


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
    content = read_json(config, what, "export the model again")
    if content.get("model_type") != KEY:
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


def locate_weights(path: str | Path, what: str = "checkpoint") -> Path:
    """What :func:`load_network` reads for ``path``, which may also be a run's folder.

    Of a run it is the best checkpoint, else the last.

    Raises:
        UserError: there is nothing at ``path``, or no checkpoint in the run.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    folder = path / "checkpoints"
    if (path / CONFIG_FILE).is_file() or not folder.is_dir():
        return path
    found = next((f for n in ("best", "last") if (f := folder / f"{n}.ckpt").exists()), None)
    if found is None:
        raise UserError(f"{what}: there is no checkpoint in {folder} yet; train that run first")
    return found


def fingerprint_weights(net: Transformer) -> str:
    """16 hex digits that name the weights, in whatever kind of file they are."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)} ".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()[:16]


def _key(what: str) -> str:
    """The setting that chooses a checkpoint where ``what`` names the one that was read."""
    return what if what.startswith(("training.", "--")) else "checkpoint"


def _others(path: Path, key: str) -> str:
    """The checkpoints beside ``path``, as the overrides that choose them."""
    others = sorted(other for other in path.parent.glob("*.ckpt") if other.name != path.name)
    return "".join(f"{', ' if i else ': '}{key}={other}" for i, other in enumerate(others))


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
        state = content.get("state_dict")
        if not isinstance(state, dict) or not all(map(torch.is_tensor, state.values())):
            raise UserError(f"{what}: {path} holds no weights; use another file")
        weights = {
            name.removeprefix(NET_PREFIX): tensor
            for name, tensor in state.items()
            if name.startswith(NET_PREFIX)
        }
    try:
        weights = merge_adapters(weights, card.adapters)
    except (KeyError, RuntimeError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{what}: the adapters in {path} do not fit its matrices: {reason}"
        ) from None
    card = replace(card, adapters={})
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
    broken = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(
            f"{what}: {path} holds weights that are no finite numbers "
            f"({some_of(sorted(broken), 2)}): its training had diverged; use another checkpoint"
            f"{_others(Path(path), _key(what))}"
        )
    net = Transformer(card.model, attention)
    net.load_state_dict(weights)
    return net.eval(), card
