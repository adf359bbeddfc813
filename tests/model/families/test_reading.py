"""What is read of other programs' checkpoints: all of it or none, and never code."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from hbd3lm.errors import UserError
from hbd3lm.model.families.reading import open_weights, read_config, read_pickle

TENSORS = {
    "first": torch.arange(6.0).view(2, 3),
    "second": torch.arange(4.0, dtype=torch.bfloat16),
}


def write_shards(folder: Path, suffix: str) -> Path:
    """The two tensors in a shard each, and the index; returns the index."""
    safe = suffix == ".safetensors"
    stem = "model" if safe else "pytorch_model"
    places = {}
    for i, (name, tensor) in enumerate(TENSORS.items(), 1):
        places[name] = f"{stem}-0000{i}-of-00002{suffix}"
        (save_file if safe else torch.save)({name: tensor}, folder / places[name])
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def take_all(path: Path) -> dict[str, torch.Tensor]:
    weights = open_weights(path, "model.path")
    taken = {"first": weights.take("first", 2, 3), "second": weights.take("second", None)}
    weights.finish()
    return taken


@pytest.mark.parametrize("form", ["safetensors", "bin", "safetensors shards", "bin shards", "ckpt"])
def test_every_form_gives_the_same_tensors_in_float32(form, tmp_path):
    path = tmp_path
    if "shards" in form:
        write_shards(tmp_path, "." + form.split()[0])
    elif form == "safetensors":
        save_file(TENSORS, tmp_path / "model.safetensors")
    elif form == "bin":
        torch.save(TENSORS, tmp_path / "pytorch_model.bin")
    else:
        path = tmp_path / "last.ckpt"
        torch.save({"state_dict": TENSORS, "epoch": 3}, path)
    taken = take_all(path)
    for name, tensor in TENSORS.items():
        assert taken[name].dtype == torch.float32
        assert taken[name].equal(tensor.float())


class Executed:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("write", ["torch.save", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_executed(write, tmp_path):
    bomb = Executed()
    bomb.path = tmp_path / "executed"
    file = tmp_path / "pytorch_model.bin"
    if write == "pickle":
        file.write_bytes(pickle.dumps({"first": bomb}))
    else:
        torch.save({"first": bomb}, file)
    with pytest.raises(UserError, match=r"pytorch_model.bin .*nothing of it was executed") as error:
        open_weights(tmp_path, "model.path")
    assert "\n" not in str(error.value)
    assert not bomb.path.exists()


def test_objects_of_named_classes_are_read_as_empty_shells(tmp_path):
    """As Lightning keeps a run's OmegaConf settings beside its weights."""
    file = tmp_path / "last.ckpt"
    content = {"hyper_parameters": OmegaConf.create({"a": [1]}), "state_dict": TENSORS}
    torch.save(content, file)
    with pytest.raises(UserError, match="omegaconf"):
        read_pickle(file, "model.path")
    names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    read = read_pickle(file, "model.path", names)
    assert read["state_dict"]["first"].equal(TENSORS["first"])
    assert not isinstance(read["hyper_parameters"], type(content["hyper_parameters"]))


def spoil_first(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    return TENSORS | {"first": tensor}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"second": TENSORS["second"]}, "holds no tensor first"),
        (spoil_first(torch.ones(3, 2)), r"first is \[3, 2\], expected \[2, 3\]"),
        (spoil_first(torch.ones(6)), r"first is \[6\], expected \[2, 3\]"),
        (spoil_first(torch.ones(2, 3, dtype=torch.int8)), "quantised"),
        (spoil_first(torch.full((2, 3), float("nan"))), "not finite"),
        (TENSORS | {"third": torch.ones(1)}, "third, which the network .* has no place for"),
    ],
    ids=["missing", "transposed", "flat", "quantised", "nan", "extra"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tensors, message, tmp_path):
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message) as error:
        take_all(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_two_prefixes_of_one_tensor_are_refused(tmp_path):
    save_file({"a.x": torch.ones(1), "b.x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="twice"):
        open_weights(tmp_path, "model.path").renamed(lambda name: name[2:])


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty"])
def test_a_damaged_file_is_refused(name, damage, tmp_path):
    file = tmp_path / name
    (save_file if name.endswith("safetensors") else torch.save)(TENSORS, file)
    content = file.read_bytes()
    file.write_bytes(
        {"cut": content[: len(content) // 2], "garbage": b"x" * 99, "empty": b""}[damage]
    )
    with pytest.raises(UserError, match=name):
        take_all(tmp_path)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_an_index_that_does_not_fit_its_shards_is_refused(suffix, tmp_path):
    index = write_shards(tmp_path, suffix)
    content = json.loads(index.read_text())
    places = content["weight_map"]
    for changed, message in (
        ({**places, "second": places["first"]}, "does not hold it"),
        ({**places, "second": "gone"}, "gone, which is not there"),
        ({**places, "second": f"../{tmp_path.name}/{places['second']}"}, "names no shards"),
        ([], "names no shards"),
    ):
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(UserError, match=message):
            take_all(tmp_path)


def test_a_folder_without_configuration_or_weights_is_refused(tmp_path):
    with pytest.raises(UserError, match="no config"):
        read_config(tmp_path, "model.path")
    with pytest.raises(UserError, match="no weights"):
        open_weights(tmp_path, "model.path")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        read_config(tmp_path, "model.path")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no JSON object"):
        read_config(tmp_path, "model.path")
