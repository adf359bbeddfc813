"""Reading the checkpoints of other programs: JSON, safetensors, pickles of tensors. No code runs.

A checkpoint is a folder with ``config.json`` and weights (``model.safetensors``, or
``pytorch_model.bin``, whole or in shards with an index), or a single file of weights. A pickle is
read by torch's restricted reader, which knows tensors and plain values only.

:class:`Weights` hands out tensors by name, in float32 and one at a time, checks what it hands out,
and refuses a checkpoint of which something is left over: what the reader of a family does not
know of, it would otherwise leave out in silence.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbd3lm.errors import UserError
from hbd3lm.files import read_json

CONFIG_FILE = "config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
"""Of a folder, the first that is there; each may be in shards, named by ``<file>.index.json``."""
_REMEDY = "get the file again"


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """``config.json`` of a folder.

    Args:
        what: the key or flag that named the folder, for messages.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise UserError(f"{what}: {folder} holds no {CONFIG_FILE}; it is no checkpoint folder")
    return read_json(folder / CONFIG_FILE, what, _REMEDY)


class Weights:
    """The tensors of a checkpoint by name, each handed out once.

    Args:
        readers: what reads each tensor.
        path: where they come from, and ``what`` key or flag named it; for messages.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]], path: Path, what: str) -> None:
        self._readers = dict(readers)
        self.path, self.what = path, what

    def __contains__(self, name: str) -> bool:
        return name in self._readers

    @property
    def names(self) -> list[str]:
        """Of the tensors not yet handed out."""
        return list(self._readers)

    def renamed(self, rename: Callable[[str], str]) -> Weights:
        """The same tensors under other names (a prefix less, for one).

        Raises:
            UserError: two tensors would have one name.
        """
        renamed = {rename(name): reader for name, reader in self._readers.items()}
        if len(renamed) < len(self._readers):
            raise UserError(f"{self.what}: {self.path} holds tensors twice, under two prefixes")
        return Weights(renamed, self.path, self.what)

    def take(self, name: str, *shape: int | None) -> Tensor:
        """The tensor ``name`` in float32.

        Args:
            shape: the size it must have; None: any, in that dimension.

        Raises:
            UserError: missing, of another shape, not of floating point numbers, or not finite.
        """
        reader = self._readers.pop(name, None)
        if reader is None:
            raise UserError(
                f"{self.what}: {self.path} holds no tensor {name}, which the network in its "
                f"{CONFIG_FILE} needs; get the checkpoint again"
            )
        tensor = reader()
        found = tuple(tensor.shape)
        if len(found) != len(shape) or any(s is not None and s != n for n, s in zip(found, shape)):
            wanted = [n if s is None and i < len(found) else s for i, (s, n) in
                      enumerate(zip(shape, [*found, *shape]))]  # fmt: skip
            raise UserError(
                f"{self.what}: the weights in {self.path} do not fit its {CONFIG_FILE}: {name} is "
                f"{list(found)}, expected {wanted}"
            )
        if not tensor.is_floating_point():
            raise UserError(
                f"{self.what}: {name} in {self.path} holds {tensor.dtype}: quantised weights "
                "cannot be trained; use the checkpoint in bfloat16 or float32"
            )
        tensor = tensor.float()
        if not torch.isfinite(tensor).all():
            raise UserError(
                f"{self.what}: {name} in {self.path} holds values that are not finite; the "
                "checkpoint is damaged: get it again"
            )
        return tensor

    def finish(self, ignored: Sequence[str] = ()) -> None:
        """Refuse tensors that nobody took; ``ignored``: regular expressions of those to pass over.

        Raises:
            UserError: names the first one left.
        """
        left = sorted(n for n in self._readers if not any(re.fullmatch(p, n) for p in ignored))
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise UserError(
                f"{self.what}: {self.path} holds {left[0]}{more}, which the network in its "
                f"{CONFIG_FILE} has no place for"
            )


def open_weights(path: Path, what: str, shells: Sequence[str] = ()) -> Weights:
    """The weights of a folder, or of one file.

    Args:
        shells: see :func:`read_pickle`.

    Raises:
        UserError: there are none, or a file is damaged or holds code.
    """
    if path.is_file():
        return Weights(_open_file(path, what, shells), path, what)
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return Weights(_open_file(path / name, what, shells), path, what)
        if (path / f"{name}.index.json").is_file():
            return Weights(_open_shards(path / f"{name}.index.json", what, shells), path, what)
    raise UserError(
        f"{what}: {path} holds no weights ({' or '.join(WEIGHT_FILES)}, or an index of shards)"
    )


def _open_shards(index: Path, what: str, shells: Sequence[str]) -> dict[str, Callable[[], Tensor]]:
    places = read_json(index, what, _REMEDY).get("weight_map")
    if not isinstance(places, dict) or not all(
        # A name that leads out of the folder is nothing a library would write.
        isinstance(file, str) and Path(file).name == file
        for file in places.values()
    ):
        raise UserError(f"{what}: {index} names no shards (weight_map); get the file again")
    shards = {}
    for file in sorted(set(places.values())):
        if not (index.parent / file).is_file():
            raise UserError(f"{what}: {index} names {file}, which is not there; get it, too")
        shards[file] = _open_file(index.parent / file, what, shells)
    for name, file in places.items():
        if name not in shards[file]:
            raise UserError(f"{what}: {index} places {name} in {file}, which does not hold it")
    # What a shard holds beyond the index is found left over at the end.
    return {name: reader for shard in shards.values() for name, reader in shard.items()}


def _open_file(path: Path, what: str, shells: Sequence[str]) -> dict[str, Callable[[], Tensor]]:
    if path.suffix == ".safetensors":
        return _open_safetensors(path, what)
    content = read_pickle(path, what, shells)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # Lightning's
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise UserError(f"{what}: {path} is no table of tensors by name; it is no checkpoint")
    return {name: lambda tensor=tensor: tensor for name, tensor in content.items()}


def _open_safetensors(path: Path, what: str) -> dict[str, Callable[[], Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, "pt")
        names = list(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{what}: {path} is damaged or not in the safetensors format ({error}); get it again"
        ) from None
    return {name: lambda name=name: file.get_tensor(name) for name in names}


class Shell:
    """Stands in for an object of another library that a pickle describes: does nothing.

    Attributes:
        state: what the pickle gives it for a state, plain values and shells.
    """

    state: Any = None

    def __new__(cls, *_: Any) -> Shell:
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_pickle(path: Path, what: str, shells: Sequence[str] = ()) -> Any:
    """What ``torch.save`` wrote to ``path``: tensors and plain values; no code is executed.

    Args:
        shells: full names of classes whose objects are read as empty shells (configuration objects
            beside the weights, say). They are not imported.

    Raises:
        UserError: damaged, or it asks for anything else than tensors, plain values and shells.
    """
    allowed = [(type(name, (Shell,), {}), name) for name in shells]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on the protocol of a foreign pickle
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|[Gg]lobal) ([\w.]+)", str(error))
        holds = f"holds more ({found[1]})" if found else "is damaged, or holds more"
        raise UserError(
            f"{what}: {path} {holds} than tensors and plain values; nothing of it was executed. "
            "Use the checkpoint in the safetensors format"
        ) from None
    except (RuntimeError, ValueError, EOFError, OSError, KeyError, AttributeError) as error:
        raise _damaged(path, what, error) from None


def _damaged(path: Path, what: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{what}: {path} is damaged or no checkpoint ({reason}); get it again")
