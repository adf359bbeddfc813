"""Checkpoint files: believed only when whole, ours, and fitting the network they describe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import KEY, NET_PREFIX, ModelCard, load_network, read_checkpoint
from hbd3lm.model.layout import plan_execution_layout
from tests.toys import toy_net

LAYOUT = plan_execution_layout(8, 16, 24, 4, 8)


def make_card(net) -> ModelCard:
    tokenizer = {"name": "toy", "fingerprint": "abc"}
    return ModelCard(net.config, LAYOUT, "diffusion", tokenizer, {"seed": 3})


@pytest.fixture
def saved(tmp_path):
    net = toy_net()
    weights = {NET_PREFIX + name: value for name, value in net.state_dict().items()}
    content = {"state_dict": weights, KEY: make_card(net).to_dict(), "other": 1}
    torch.save(content, tmp_path / "net.ckpt")
    return tmp_path / "net.ckpt", net, content


def test_a_network_comes_back_with_its_weights_and_its_card(saved):
    path, net, _ = saved
    loaded, card = load_network(path)
    assert card == make_card(net)
    assert not loaded.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(UserError, match=r"checkpoint: no such file: .*none\.ckpt; train first"):
        load_network(tmp_path / "none.ckpt")


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(saved, keep):
    path, _, _ = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match=r"net\.ckpt is damaged or no checkpoint"):
        load_network(path)


@pytest.mark.parametrize("content", [b"hello there\n", b"PK\x03\x04", b"\x80\x04]q\x00."])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "net.ckpt").write_bytes(content)
    with pytest.raises(UserError, match=r"net\.ckpt is damaged or no checkpoint"):
        load_network(tmp_path / "net.ckpt")


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"other\.ckpt is not a checkpoint of hbd3lm"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_code_in_a_checkpoint_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({KEY: Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(UserError, match=r"trap\.ckpt holds more than tensors .*\(io\.open\); noth"):
        read_checkpoint(tmp_path / "trap.ckpt")
    assert not (tmp_path / "sprung").exists()


def test_another_format_is_refused(saved):
    path, _, content = saved
    content[KEY]["format"] = 99
    torch.save(content, path)
    with pytest.raises(UserError, match="has format 99, this version reads 1"):
        read_checkpoint(path)


def test_weights_that_do_not_fit_the_description_are_refused(saved):
    path, _, content = saved
    content[KEY]["model"]["dim"] = 32
    torch.save(content, path)
    with pytest.raises(UserError, match=r"the weights in .* do not fit the network it describes"):
        load_network(path)


def test_weights_that_diverged_are_refused(saved):
    path, _, content = saved
    name = sorted(content["state_dict"])[0]
    content["state_dict"][name].view(-1)[0] = float("nan")
    torch.save(content, path)
    with pytest.raises(UserError, match=f"no finite numbers .{name.removeprefix(NET_PREFIX)}."):
        load_network(path)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("tokenizer", 5, "describes no model: its tokenizer is 5; use another file"),
        ("tokenizer", {}, "describes no model: no 'name'"),
        ("tokenizer", {"name": 3, "fingerprint": ""}, "its tokenizer's name is 3"),
        ("settings", None, "its settings is None"),
        ("adapters", [1], r"its adapters is \[1\]"),
        ("objective", 5, "its objective is 5"),
        ("layout", 5, "describes no model"),
        ("model", None, "describes no model"),
    ],
)
def test_a_description_of_another_shape_is_refused(saved, entry, value, message):
    path, _, content = saved
    content[KEY][entry] = value
    torch.save(content, path)
    with pytest.raises(UserError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize("state", ["weights", {"net.a": 1}, None])
def test_a_checkpoint_without_weights_is_refused(saved, state):
    path, _, content = saved
    content["state_dict"] = state
    torch.save(content, path)
    with pytest.raises(UserError, match="holds no weights"):
        load_network(path)


def test_differences_name_the_setting_and_both_values():
    card = make_card(toy_net())
    assert card.differences(card) == []
    wider = replace(card, model=replace(card.model, dim=32))
    assert wider.differences(card) == ["model.dim: 16 != 32"]
    renamed = replace(card, tokenizer={"name": "copy", "fingerprint": "abc"})
    assert renamed.differences(card) == []
    other = replace(card, tokenizer={"name": "toy", "fingerprint": "def"}, objective="x")
    assert other.differences(card) == [
        "tokenizer.fingerprint: abc != def",
        "objective: diffusion != x",
    ]
    layout = replace(card, layout=plan_execution_layout(9, 16, 24, 4, 8))
    assert layout.differences(card) == ["layout.question_len: 8 != 9"]


def test_a_card_survives_the_way_through_plain_values():
    card = make_card(toy_net())
    assert ModelCard.from_dict(card.to_dict()) == card
