"""An exported folder is whole or not there, and believed only when it fits together."""

from __future__ import annotations

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hbd3lm.commands.build import load_trained_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.hub import directory
from hbd3lm.hub.directory import read_sampling, write_exported
from hbd3lm.model.checkpoint import load_network
from tests.hub.exports import METHODS, TOKENIZER, export_method, make_model

FILES = {
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    "generation_config.json", "modeling_hbd3lm.py", "hbd3lm_bundle.py", "README.md", "LICENSE",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    export_method("hierarchical", tmp_path / "model")
    return tmp_path / "model"


def change(folder, edit) -> None:
    """Edit the parsed ``config.json`` in place."""
    content = json.loads((folder / "config.json").read_text())
    edit(content)
    (folder / "config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_comes_back_with_weights_card_and_tokenizer(method, tmp_path):
    net, card = export_method(method, tmp_path / "model")
    loaded, read = load_network(tmp_path / "model")
    assert read == card and not loaded.training
    assert loaded.state_dict().keys() == net.state_dict().keys()
    for name, value in net.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])
    tokenizer = load_trained_tokenizer(read, tmp_path / "model")
    assert tokenizer.fingerprint == TOKENIZER.fingerprint


def test_the_folder_holds_these_files_for_everybody_to_read(folder):
    assert {path.name for path in folder.iterdir()} == FILES
    umask = os.umask(0)
    os.umask(umask)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~umask}
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    assert (folder / "LICENSE").read_text().startswith("MIT License")


def test_the_same_model_gives_the_same_bytes(folder, tmp_path):
    export_method("hierarchical", tmp_path / "again")
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_sampling_settings_come_back(tmp_path):
    net, card = make_model("flat")
    card.settings["sampling"] = {"method": "ancestral", "steps": 3, "seed": 5, "question": None}
    write_exported(tmp_path / "model", net, card, TOKENIZER, "")
    assert read_sampling(tmp_path / "model") == {"method": "ancestral", "steps": 3}
    (tmp_path / "model" / "generation_config.json").write_text("[1")
    with pytest.raises(UserError, match=r"generation_config\.json is not valid JSON"):
        read_sampling(tmp_path / "model")
    assert read_sampling(tmp_path) == {}


# -- the place ------------------------------------------------------------------------------


def test_a_folder_with_content_is_not_touched(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    for overwrite, message in ((False, "is not empty; choose another"), (True, "does not delete")):
        net, card = make_model("flat")
        with pytest.raises(UserError, match=message):
            write_exported(tmp_path / "notes", net, card, TOKENIZER, "", overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_a_file_in_the_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("keep")
    with pytest.raises(UserError, match="file is a file; name a folder"):
        export_method("flat", tmp_path / "file")


def test_overwriting_replaces_the_old_model_whole(folder):
    (folder / "left_over.bin").write_text("old")
    net, card = make_model("flat")
    write_exported(folder, net, card, TOKENIZER, "# new\n", overwrite=True)
    assert {path.name for path in folder.iterdir()} == FILES
    assert load_network(folder)[1] == card
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failure_leaves_the_old_model_and_nothing_else(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    net, card = make_model("flat")

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(directory, "atomic_write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_exported(folder, net, card, TOKENIZER, "", overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.update(model_type="bert"), "does not describe a model of hbd3lm"),
        (lambda c: c.pop("card"), "has format None, this version reads 1"),
        (lambda c: c["card"].update(format=9), "has format 9, this version reads 1"),
        (lambda c: c["card"].pop("layout"), "describes no model: no 'layout'"),
        (lambda c: c["card"]["model"].update(depth=3), "describes no model: .*'depth'"),
        (lambda c: c["card"]["model"].update(dim="wide"), "describes no model: "),
        (lambda c: c["card"]["model"].update(n_heads=3), "dim=16 is no multiple"),
        (lambda c: c["card"]["layout"].update(question_len=0), "question_len must be positive"),
        (lambda c: c["card"]["model"].update(dim=10**6), "norm.weight is .*, expected"),
        (lambda c: c["card"]["model"].update(dim=10**9), "an impossible network"),
        (lambda c: c["card"]["model"].update(dim=16.0), "an impossible network"),
        (lambda c: c["card"]["model"].update(n_layers=3), r"blocks\.2\..* is nothing, expected"),
        (lambda c: c["card"]["model"].update(n_layers=1), r"blocks\.1\..*, expected nothing"),
        (lambda c: c["card"]["model"].update(modules="separate"), "expected nothing|is nothing"),
    ],
)  # fmt: skip
def test_a_tampered_configuration_is_refused(folder, edit, message):
    change(folder, edit)
    with pytest.raises(UserError, match=message) as refusal:
        load_network(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_configuration_is_refused(folder, text):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    damaged = r"config\.json (is not|does not describe|holds no JSON object)"
    with pytest.raises(UserError, match=damaged):
        load_network(folder)


def test_missing_and_misshapen_weights_are_named(folder):
    file = folder / "model.safetensors"
    weights = load_file(file)
    name = "stacks.shared.norm.weight"
    save_file({k: v for k, v in weights.items() if k != name}, file)
    with pytest.raises(UserError, match=rf"{name} is nothing, expected \[16\]"):
        load_network(folder)
    save_file(weights | {name: torch.ones(15)}, file)
    with pytest.raises(UserError, match=rf"{name} is \[15\], expected \[16\]"):
        load_network(folder)
    save_file(weights | {"stranger": torch.ones(2)}, file)
    with pytest.raises(UserError, match=r"stranger is \[2\], expected nothing"):
        load_network(folder)


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_truncated_weights_are_refused(folder, keep):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or not in the safetensors"):
        load_network(folder)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file) -> None:
        self.file = str(file)

    def __reduce__(self):
        return (open, (self.file, "w"))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dump", [pickle.dump, lambda trap, file: torch.save(trap, file)])
def test_a_pickle_instead_of_safetensors_is_not_opened(folder, tmp_path, name, dump):
    (folder / "model.safetensors").unlink()
    with open(folder / name, "wb") as file:
        dump(Trap(tmp_path / "sprung"), file)
    with pytest.raises(UserError, match=r"is damaged or not in the|holds no model\.safetensors"):
        load_network(folder)
    assert not (tmp_path / "sprung").exists()


def test_the_shipped_code_is_not_run_by_the_package(folder, tmp_path):
    for name in ("modeling_hbd3lm.py", "hbd3lm_bundle.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')\n")
    net, card = load_network(folder)
    load_trained_tokenizer(card, folder)
    assert net is not None and not (tmp_path / "sprung").exists()


def test_a_folder_that_is_no_export_says_what_to_give(tmp_path):
    with pytest.raises(UserError, match=r"no exported model \(no config\.json\); give a \.ckpt"):
        load_network(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").write_text("")
    with pytest.raises(UserError, match=r"give .*checkpoints/best\.ckpt"):
        load_network(tmp_path)


def test_another_vocabulary_is_refused(folder):
    _, card = load_network(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    # Two tokens change places: everything still works, and means something else.
    a, b = (next(k for k, v in vocabulary.items() if v == index) for index in (60, 61))
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was trained with the tokenizer 'gsm'"):
        load_trained_tokenizer(card, folder)
    file.unlink()
    with pytest.raises(UserError, match=r"has no tokenizer\.json; export the model again"):
        load_trained_tokenizer(card, folder)


def test_a_network_of_another_size_than_its_tokenizer_is_refused(folder):
    net, card = make_model("hierarchical")
    shutil.rmtree(folder)
    small = type(card.model)(**{**vars(card.model), "vocab_size": 4000})
    wrong = type(card)(small, card.layout, card.objective, card.tokenizer, card.settings)
    write_exported(folder, net, wrong, TOKENIZER, "")
    with pytest.raises(UserError, match="has 4000 ids, its tokenizer 4096"):
        load_trained_tokenizer(wrong, folder)
