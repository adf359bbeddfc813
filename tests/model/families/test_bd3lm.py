"""BD3-LM's checkpoints in our network give the logits they give in theirs; others are refused."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from torch import Tensor

from hbd3lm import cli
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.model.batch import Tokens
from hbd3lm.model.checkpoint import load_network
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.families.pretrained import fill_network, read_pretrained
from hbd3lm.model.mask import Tags
from hbd3lm.model.transformer import Transformer
from tests.model.families.dit import (
    DIM,
    LAYERS,
    SIZES,
    VOCABULARY,
    block_diffusion_mask,
    dit_logits,
    random_weights,
)

LENGTH, MASK = 16, VOCABULARY - 1
GPT2 = Path(__file__).resolve().parents[4] / "shared" / "data" / "gpt2"


def write_hub(
    folder: Path, weights: dict[str, Tensor], form: str = "safetensors", **changes
) -> Path:
    """A folder as on the hub: everything under ``backbone.``, their configuration beside it."""
    folder.mkdir(exist_ok=True)
    sizes = {"model_type": "bd3lm", "block_size": 4, "cross_attn": True, **SIZES, **changes}
    (folder / "config.json").write_text(json.dumps(sizes))
    named = {f"backbone.{name}": tensor for name, tensor in weights.items()}
    named["sampling_eps_min"] = torch.tensor(0.3)
    if form == "safetensors":
        save_file(named, folder / "model.safetensors")
    else:
        torch.save(named, folder / "pytorch_model.bin")
    return folder


def lightning_content(weights: dict[str, Tensor], compiled: bool = False) -> dict:
    """What Lightning keeps of their runs: settings and tokenizer as objects, weights, average."""
    prefix = "backbone._orig_mod." if compiled else "backbone."
    table = {prefix + name: torch.zeros_like(tensor) for name, tensor in weights.items()}
    table[prefix + "rotary_emb.inv_freq"] = torch.ones(4)
    config = {
        "model": {"n_heads": SIZES["n_heads"], "length": "${block_size}"},
        "block_size": 4,
        "algo": {"name": "bd3lm", "parameterization": "subs", "time_conditioning": False},
        "trainer": {"devices": [0, 1]},
    }
    return {
        "state_dict": {**table, "sampling_eps_min": torch.tensor(0.3)},
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": list(weights.values())},
        "hyper_parameters": {"config": OmegaConf.create(config), "tokenizer": None},
        "loops": {"fit_loop": {}},
        "optimizer_states": [{"state": {0: torch.ones(2)}}],
    }


def load(path: Path) -> Transformer:
    """The network with their vocabulary alone: no new token but the mask, which is theirs."""
    source = read_pretrained(path)
    net = Transformer(ModelConfig(vocab_size=source.rows + 1, **source.fields))
    fill_network(net, source, [None], seed=0)
    return net.eval()


def noisy_and_clean(seed: int = 1) -> tuple[Tensor, Tensor]:
    """x_t and x_0, each [3, LENGTH]."""
    generator = torch.Generator().manual_seed(seed)
    x_0 = torch.randint(MASK, (3, LENGTH), generator=generator)
    masked = torch.rand(x_0.shape, generator=generator) < torch.tensor([[0.3], [0.7], [1.0]])
    return x_0.masked_fill(masked, MASK), x_0


def tokens(ids: Tensor, block_size: int, noisy: bool) -> Tokens:
    position = torch.arange(LENGTH).expand_as(ids)
    tags = Tags(torch.zeros_like(ids), torch.full_like(ids, noisy).bool(), position // block_size)
    return Tokens(ids, position, tags)


@torch.no_grad()
def our_logits(net: Transformer, x_t: Tensor, x_0: Tensor, block_size: int) -> Tensor:
    _, past = net(tokens(x_0, block_size, False), keys_only=True)
    hidden, _ = net(tokens(x_t, block_size, True), past)
    return net.logits(hidden)


@torch.no_grad()
def their_logits(weights, x_t: Tensor, x_0: Tensor, block_size: int) -> Tensor:
    """Of x_t, without that of the mask token, which both methods set to minus infinity."""
    position = torch.arange(LENGTH).repeat(2)
    mask = block_diffusion_mask(LENGTH, block_size)
    logits = dit_logits(weights, torch.cat([x_t, x_0], 1), position, mask)
    return logits[:, :LENGTH, :-1]


# -- equal logits -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "bin"])
@pytest.mark.parametrize("block_size", [4, 8, 16])
def test_block_diffusion_passes_give_the_logits_of_their_network(block_size, form, tmp_path):
    weights = random_weights()
    net = load(write_hub(tmp_path, weights, form, block_size=block_size))
    x_t, x_0 = noisy_and_clean()
    theirs = their_logits(weights, x_t, x_0, block_size)
    torch.testing.assert_close(our_logits(net, x_t, x_0, block_size), theirs, atol=1e-4, rtol=1e-4)
    assert theirs.std() > 0.5  # no agreement of nothing with nothing


@torch.no_grad()
def test_masked_diffusion_gives_the_logits_of_their_network(tmp_path):
    weights = random_weights(1)
    net = load(write_hub(tmp_path, weights, model_type="mdlm"))
    x_t, _ = noisy_and_clean()
    everything = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    theirs = dit_logits(weights, x_t, torch.arange(LENGTH), everything)[..., :-1]
    hidden, _ = net(tokens(x_t, LENGTH, True))
    torch.testing.assert_close(net.logits(hidden), theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("modules", ["shared", "separate"])
@torch.no_grad()
def test_new_tokens_come_before_the_mask_and_change_nothing_that_was_there(modules, tmp_path):
    weights = random_weights()
    source = read_pretrained(write_hub(tmp_path, weights))
    config = ModelConfig(vocab_size=source.rows + 5, modules=modules, **source.fields)
    net = Transformer(config).eval()
    fill_network(net, source, [None, 3, 3, 3, None], seed=0)
    x_t, x_0 = noisy_and_clean()
    theirs = their_logits(weights, x_t, x_0, 4)
    x_t = x_t.masked_fill(x_t == MASK, config.vocab_size - 1)
    for module in net.stacks:
        _, past = net(tokens(x_0, 4, False), None, module, keys_only=True)
        hidden, _ = net(tokens(x_t, 4, True), past, module)
        logits = net.logits(hidden, module)
        assert logits.shape[-1] == MASK + 4
        torch.testing.assert_close(logits[..., :MASK], theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_loss_of_the_folded_network_is_that_of_its_logits(tmp_path):
    """The head's bias is in the loss as well, not in the logits alone."""
    net = load(write_hub(tmp_path, random_weights()))
    x_t, x_0 = noisy_and_clean()
    hidden, _ = net(tokens(x_t, LENGTH, True))
    hidden, targets = hidden.flatten(0, 1), x_0.flatten()
    plain = torch.nn.functional.cross_entropy(net.logits(hidden), targets, reduction="none")
    torch.testing.assert_close(net.cross_entropy(hidden, targets), plain)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_lightning_file_gives_its_averaged_weights(compiled, tmp_path):
    weights = random_weights()
    torch.save(lightning_content(weights, compiled), tmp_path / "last.ckpt")
    x_t, x_0 = noisy_and_clean()
    ours = our_logits(load(tmp_path / "last.ckpt"), x_t, x_0, 4)
    theirs = their_logits(weights, x_t, x_0, 4)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert "averaged weights" in read_pretrained(tmp_path / "last.ckpt").note


def test_without_an_average_the_last_weights_are_taken_and_that_is_said(tmp_path):
    weights = random_weights()
    content = lightning_content(weights)
    content["state_dict"] |= {f"backbone.{name}": tensor for name, tensor in weights.items()}
    del content["ema"]
    torch.save(content, tmp_path / "last.ckpt")
    x_t, x_0 = noisy_and_clean()
    ours = our_logits(load(tmp_path / "last.ckpt"), x_t, x_0, 4)
    torch.testing.assert_close(ours, their_logits(weights, x_t, x_0, 4), atol=1e-4, rtol=1e-4)
    assert "no average" in read_pretrained(tmp_path / "last.ckpt").note


# -- model=pretrained -------------------------------------------------------------------------

RUN = (
    "model=pretrained", "data=embedded", "data.num_train=12", "hierarchical.exec_len=64",
    "training.max_steps=1", "training.batch_size=2", "training.valid_samples=1", "trainer=cpu",
    "trainer.precision=32-true", "trainer.loggers=[csv]", "training.learning_rate=1e-9",
)  # fmt: skip


def train(monkeypatch, *settings: str) -> int:
    monkeypatch.setattr(sys, "argv", ["hbd3lm"])
    try:
        return cli.main(["train", *RUN, *settings]) or 0
    except SystemExit as stop:
        return stop.code


def test_a_run_starts_from_a_checkpoint_with_its_own_tokenizer(tmp_path, monkeypatch):
    """Here with the tokenizer that ships with the package; theirs is GPT-2's."""
    tokenizer = load_tokenizer("gsm")
    text = tokenizer.vocab_size - 5
    weights = random_weights(vocabulary=text + 1)
    folder = write_hub(tmp_path / "hub", weights, vocab_size=text + 1, model_length=1024)
    tokenizer.save(folder)
    assert train(monkeypatch, f"model.path={folder}", f"run_dir={tmp_path}/run") == 0
    net, card = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert card.settings["started_from"]["path"] == str(folder)
    assert not card.model.shift and card.model.head_bias
    table = net.stacks["shared"].embedding.weight
    torch.testing.assert_close(table[:text], weights["vocab_embed.embedding"][:text])
    torch.testing.assert_close(table[-1], weights["vocab_embed.embedding"][-1])


@pytest.mark.skipif(not GPT2.is_dir(), reason="needs GPT-2's tokenizer in ../shared/data")
def test_a_lightning_file_comes_with_gpt2_and_says_which_weights(tmp_path, monkeypatch, capsys):
    content = lightning_content(random_weights(vocabulary=50_258))
    torch.save(content, tmp_path / "last.ckpt")
    place = (f"model.path={tmp_path}/last.ckpt", f"run_dir={tmp_path}/run")
    assert train(monkeypatch, *place, f"data.dir={GPT2.parent}") == 0
    assert "averaged weights (EMA)" in capsys.readouterr().out
    _, card = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert card.model.vocab_size == 50_257 + 5 and card.tokenizer["name"] == "gpt2"


def test_another_vocabulary_is_refused(tmp_path, monkeypatch, capsys):
    """As of a checkpoint trained on another tokenizer's text (LM1B's, say)."""
    sizes = {"vocab_size": 3000, "model_length": 1024}
    folder = write_hub(tmp_path / "hub", random_weights(vocabulary=3000), **sizes)
    load_tokenizer("gsm").save(folder)
    assert train(monkeypatch, f"model.path={folder}", f"run_dir={tmp_path}/run") == 1
    error = capsys.readouterr().err
    assert "has 4091 tokens, the embedding 2999 rows" in error and error.count("\n") == 1


# -- refusals ---------------------------------------------------------------------------------


def refused(path: Path, message: str) -> None:
    """One line that names the file."""
    with pytest.raises(UserError, match=message) as refusal:
        load(path)
    text = str(refusal.value)
    assert "\n" not in text and text.startswith("model.path: ") and str(path) in text


@pytest.mark.parametrize("name", random_weights())
def test_a_missing_or_misshapen_tensor_is_named(name, tmp_path):
    weights = random_weights()
    less = {n: tensor for n, tensor in weights.items() if n != name}
    refused(write_hub(tmp_path / "less", less), f"holds no tensor {re.escape(name)},")
    wrong = weights | {name: torch.cat([weights[name], weights[name][:1]])}
    # The width of the time embedding is a matter of its own: there the next tensor does not fit.
    place = "sigma_map|adaLN" if "sigma_map" in name else re.escape(name)
    refused(write_hub(tmp_path / "wrong", wrong), rf"({place}).* is \[.*\], expected \[")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "'gpt2' model; hbd3lm starts from .*bd3lm, mdlm"),
        ({"time_conditioning": True}, "told the noise level .*time_conditioning"),
        ({"causal": True}, "is causal"),
        ({"n_heads": 5}, f"n_heads=5, which does not divide its width hidden_dim={DIM}"),
        ({"n_heads": 8}, "into heads of an even width"),
        ({"n_heads": None}, "n_heads=None, not a whole number"),
        ({"hidden_dim": "wide"}, "hidden_dim=wide, not a whole number"),
        ({"vocab_size": VOCABULARY + 1}, rf"is \[{VOCABULARY}, {DIM}\], expected \[41, {DIM}\]"),
        ({"hidden_dim": 48}, rf"is \[.*{DIM}\], expected \[.*48\]"),
        ({"n_blocks": LAYERS + 1}, f"holds no tensor blocks.{LAYERS}"),
        ({"n_blocks": LAYERS - 1}, f"holds blocks.{LAYERS - 1}.* has no place for"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(changes, message, tmp_path):
    refused(write_hub(tmp_path, random_weights(), **changes), message)


def test_a_tensor_nobody_knows_of_is_refused(tmp_path):
    refused(write_hub(tmp_path, random_weights() | {"blocks.0.gate": torch.ones(2)}), "blocks.0.ga")


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "ema", "shell"])
def test_code_in_a_lightning_file_is_refused_and_not_executed(place, tmp_path):
    content = lightning_content(random_weights())
    bomb = Bomb(tmp_path / "executed")
    if place == "shell":  # inside an object that is read as a shell
        content["hyper_parameters"]["config"]._content["bomb"] = bomb
    else:
        content[place]["bomb"] = bomb
    torch.save(content, tmp_path / "last.ckpt")
    refused(tmp_path / "last.ckpt", "holds more .*mkdir.*nothing of it was executed")
    assert not bomb.path.exists()


@pytest.mark.parametrize("module", ["omegaconf", "transformers"])
def test_a_class_with_the_name_of_a_library_is_not_imported_nor_called(module, tmp_path):
    """What is read as a shell may claim any name: nothing is looked up by it."""
    content = lightning_content(random_weights())

    def build(name: str):
        raise AssertionError

    build.__module__, build.__qualname__ = f"{module}.no_such_module", "build"

    class Claims:
        def __reduce__(self):
            return build, ("x",)

    content["hyper_parameters"]["config"] = OmegaConf.create({"model": {"n_heads": 3}})
    content["hyper_parameters"]["other"] = Claims()
    fake = types.ModuleType(f"{module}.no_such_module")
    fake.build = build
    sys.modules[fake.__name__] = fake  # pickle checks a name when it writes it
    try:
        torch.save(content, tmp_path / "last.ckpt")
    finally:
        del sys.modules[fake.__name__]
    assert load(tmp_path / "last.ckpt") is not None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.pop("state_dict"), "no state_dict"),
        (lambda c: c["state_dict"].clear(), "no checkpoint of BD3-LM or MDLM"),
        (lambda c: c["ema"]["shadow_params"].pop(), "do not match its state_dict"),
        (lambda c: c["ema"]["shadow_params"].reverse(), "do not match its state_dict"),
        (lambda c: c["ema"].update(shadow_params=3), "do not match its state_dict"),
        (lambda c: c.pop("hyper_parameters"), "does not say how many attention heads"),
        (lambda c: c["hyper_parameters"].update(config=None), "does not say how many attention"),
        (
            lambda c: c["hyper_parameters"]["config"]["algo"].update(parameterization="ar"),
            "is causal",
        ),
        (
            lambda c: c["hyper_parameters"]["config"]["algo"].update(time_conditioning=True),
            "told the noise level",
        ),
    ],
)
def test_a_lightning_file_that_does_not_add_up_is_refused(spoil, message, tmp_path):
    content = lightning_content(random_weights())
    spoil(content)
    torch.save(content, tmp_path / "last.ckpt")
    refused(tmp_path / "last.ckpt", message)


@pytest.mark.parametrize("keep", [0, 5, 2000])
def test_a_cut_off_file_is_refused(keep, tmp_path):
    torch.save(lightning_content(random_weights()), tmp_path / "last.ckpt")
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(content[:keep])
    refused(tmp_path / "last.ckpt", "damaged")
