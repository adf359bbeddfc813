"""The class of AutoModel gives the logits of the package's own calls, whatever the method."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.plain_sampler import full_forward
from hbd3lm.errors import UserError
from hbd3lm.hub.modeling import HBD3LMConfig, HBD3LMModel
from hbd3lm.model.batch import Tokens
from hbd3lm.model.mask import cat_tags
from tests.hub.exports import (
    METHODS,
    TOKENIZER,
    export_method,
    make_batch,
    make_documents,
    make_model,
)

LOAD = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hbd3lm":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import torch
from transformers import AutoModel, AutoTokenizer
folder, *methods = sys.argv[1:]
found = {}
for method in methods:
    model = AutoModel.from_pretrained(f"{folder}/{method}", trust_remote_code=True)
    assert model.__class__.__module__.endswith(".hbd3lm_bundle"), model.__class__.__module__
    assert not model.training
    with torch.no_grad():
        found[method] = model(**torch.load(f"{folder}/{method}.pt")).logits
assert "hbd3lm" not in sys.modules
torch.save(found, f"{folder}/found.pt")
tokenizer = AutoTokenizer.from_pretrained(f"{folder}/flat", trust_remote_code=True)
text = "Tom sold 48/2 = 24 clips <|mask|>\\n#### 84"
ids = tokenizer(text).input_ids
assert tokenizer.decode(ids) == text
print(ids, tokenizer.mask_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
"""


def as_model(net, card) -> HBD3LMModel:
    ids = {"fill": TOKENIZER.fill_id, **TOKENIZER.end_ids, "mask": TOKENIZER.mask_id}
    model = HBD3LMModel(HBD3LMConfig(card.to_dict(), ids))
    model.net.load_state_dict(net.state_dict())
    return model.eval()


def join(stretches: list[Tokens]) -> Tokens:
    """Stretches of tokens side by side."""
    first = stretches[0]
    for other in stretches[1:]:
        first = Tokens(
            torch.cat([first.ids, other.ids], 1),
            torch.cat([first.position, other.position], 1),
            cat_tags(first.tags, other.tags),
        )
    return first


def side_by_side(batch) -> dict[str, torch.Tensor]:
    """All streams of a batch as the arguments of one call."""
    streams, execution = [], []
    for part in batch.parts:
        for tokens in (part.clean, part.noisy):
            if tokens is not None:
                streams.append(tokens)
                execution.append(torch.full_like(tokens.ids, part.module == "execution").bool())
    tokens = join(streams)
    return {
        "input_ids": tokens.ids,
        "attention_mask": (~tokens.is_padding).long(),
        "block": tokens.tags.block,
        "noisy": tokens.tags.noisy,
        "position_ids": tokens.position,
        "document": tokens.tags.document,
        "execution": torch.cat(execution, 1),
    }


def native_logits(net, batch) -> torch.Tensor:
    """The training's own calls: [predicting tokens, V - 1], part after part."""
    past, found = None, []
    for part in batch.parts:
        if part.noisy is not None:
            _, past = net(part.clean, past, part.module, keys_only=True)
        hidden, _ = net(part.predicting, past, part.module)
        found.append(net.logits(hidden[~part.predicting.is_padding], part.module))
    return torch.cat(found)


def predicting(batch) -> torch.Tensor:
    """Bool [N, L] in the layout of :func:`side_by_side`: the tokens that predict."""
    flags = []
    for part in batch.parts:
        real = ~part.predicting.is_padding
        flags += [real] if part.noisy is None else [torch.zeros_like(part.clean.ids).bool(), real]
    return torch.cat(flags, 1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every method exported; network, batch and card by method."""
    folder = tmp_path_factory.mktemp("exported")
    models = {}
    for method in METHODS:
        net, card = export_method(method, folder / method)
        models[method] = net, make_batch(card), card
        torch.save(side_by_side(models[method][1]), folder / f"{method}.pt")
    return folder, models


@torch.no_grad()
def same_as_native(logits: torch.Tensor, net, batch) -> None:
    expected = native_logits(net, batch)
    # [rows, tokens] in order of rows; parts one after the other, as native_logits has them.
    flags, start, found = predicting(batch), 0, []
    for part in batch.parts:
        widths = [t.ids.shape[1] for t in (part.clean, part.noisy) if t is not None]
        stop = start + sum(widths)
        found.append(logits[:, start:stop][flags[:, start:stop]])
        start = stop
    assert expected.std() > 0.1
    torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_logits_are_those_of_the_training_calls(exported, method):
    net, batch, card = exported[1][method]
    same_as_native(as_model(net, card)(**side_by_side(batch)).logits, net, batch)


@pytest.mark.parametrize("method", ["hierarchical", "ar"])
@torch.no_grad()
def test_logits_of_one_pass_are_equal_to_the_bit(exported, method):
    net, batch, card = exported[1][method]
    arguments = side_by_side(batch)
    part = batch.parts[0]
    tokens = part.clean if part.noisy is None else join([part.clean, part.noisy])
    hidden, _ = net(tokens)
    assert torch.equal(as_model(net, card)(**arguments).logits, net.logits(hidden))


@pytest.mark.slow
def test_automodel_loads_every_method_where_the_package_is_not_installed(exported):
    folder, models = exported
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, str(folder), *METHODS],
        capture_output=True, text=True, cwd=folder,
        env=environment | {"HF_MODULES_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = torch.load(folder / "found.pt", weights_only=True)
    for method, (net, batch, card) in models.items():
        with torch.no_grad():
            assert torch.equal(found[method], as_model(net, card)(**side_by_side(batch)).logits), (
                method
            )
        same_as_native(found[method], net, batch)
    ids = TOKENIZER.encode("Tom sold 48/2 = 24 clips <|mask|>\n#### 84")
    special = (TOKENIZER.mask_id, TOKENIZER.fill_id, TOKENIZER.execution_end_id)
    assert run.stdout.splitlines()[-1] == " ".join(map(str, (ids, *special)))


def test_with_the_package_installed_automodel_gives_its_class(exported, monkeypatch, tmp_path):
    from transformers import AutoModel, GenerationConfig

    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    folder, models = exported
    model = AutoModel.from_pretrained(folder / "hierarchical", trust_remote_code=True)
    assert type(model) is HBD3LMModel
    for name, weight in models["hierarchical"][0].state_dict().items():
        assert torch.equal(model.net.state_dict()[name], weight)
    generation = GenerationConfig.from_pretrained(folder / "hierarchical")
    assert generation.pad_token_id == TOKENIZER.fill_id
    # What transformers saves in its turn, hbd3lm reads.
    from hbd3lm.model.checkpoint import load_network

    model.save_pretrained(tmp_path / "again")
    again, card = load_network(tmp_path / "again")
    assert card == models["hierarchical"][2]
    assert torch.equal(again.stacks["shared"].embedding.weight,
                       model.net.stacks["shared"].embedding.weight)  # fmt: skip


# -- defaults -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_blocks_are_read_off_the_end_tokens(method):
    net, card = make_model(method)
    model = as_model(net, card)
    for document in make_documents(card.layout, 40, seed=1):
        ids = torch.tensor(np.concatenate([document.question, document.targets]))[None]
        real, position = torch.ones_like(ids).bool(), torch.arange(ids.shape[1])[None]
        block, segment = model.read_blocks(ids, real, position)
        n_question = len(document.question)
        if method == "ar":
            assert block[0].tolist() == list(range(len(document)))
            continue
        assert block[0].tolist() == [0] * n_question + document.block.tolist()
        assert segment[0].tolist() == [-1] * n_question + document.segment.tolist()


@pytest.mark.parametrize("method", ["hierarchical", "flat", "separate"])
@torch.no_grad()
def test_a_question_and_masks_predict_as_a_sampler_would(method):
    """The last block, given all before it, row by row and in one padded batch."""
    net, card = make_model(method)
    model = as_model(net, card)
    rows, expected = [], []
    for document in make_documents(card.layout, 4, seed=2):
        size = card.layout.segments[-1].block_size
        ids = np.concatenate([document.question, document.targets])
        block = np.concatenate([np.zeros(len(document.question), int), document.block])
        ids[-size:] = TOKENIZER.mask_id
        first = len(document.question)
        if ids[first] in TOKENIZER.end_ids.values() or block[-1] == 1:
            continue
        # An earlier block that is still being written is not to be read by the last one.
        ids[first] = TOKENIZER.mask_id
        rows.append(ids)
        plan = document.block[document.segment < document.segment[-1]]
        arguments = {
            "input_ids": ids,
            "position_ids": np.arange(len(ids)),
            "block": block,
            "noisy": np.isin(block, [1, block[-1]]),
            "execution": block > plan.max(initial=0),
        }
        arguments = {name: torch.tensor(value)[None] for name, value in arguments.items()}
        expected.append(model(**arguments).logits[0, -size:])
        found = model(torch.tensor(ids)[None]).logits[0, -size:]
        assert torch.equal(found, expected[-1])
    assert len({len(row) for row in rows}) > 1
    # Together, padded: the same.
    width = max(map(len, rows))
    table = torch.full((len(rows), width), TOKENIZER.fill_id)
    mask = torch.zeros_like(table)
    for line, real, ids in zip(table, mask, rows):
        line[: len(ids)] = torch.tensor(ids)
        real[: len(ids)] = 1
    logits = model(table, mask).logits
    for line, ids, one in zip(logits, rows, expected):
        found = line[len(ids) - len(one) : len(ids)]
        torch.testing.assert_close(found, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["shifted", "shifted separate"])
@torch.no_grad()
def test_under_a_shifted_head_the_position_before_predicts_as_in_the_plain_sampler(method):
    net, card = make_model(method)
    model = as_model(net, card)
    for document in make_documents(card.layout, 4, seed=3):
        size = card.layout.segments[-1].block_size
        stretches = [
            (net.module_of("plan"), document.question.tolist(), [0] * len(document.question), False)
        ]
        for b in range(1, document.n_blocks + 1):
            here = document.block == b
            module = net.module_of(card.layout.segments[document.segment[here][0]].name)
            last = b == document.n_blocks
            ids = [TOKENIZER.mask_id] * size if last else document.targets[here].tolist()
            stretches.append((module, ids, [b] * len(ids), last))
        ids = torch.tensor([i for _, some, _, _ in stretches for i in some])[None]
        expected = net.logits(full_forward(net, stretches), module)[-size - 1 : -1]
        found = model(ids).logits[0, -size - 1 : -1]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_what_cannot_be_laid_out_is_refused():
    net, card = make_model("separate")
    model = as_model(net, card)
    ids = torch.zeros(1, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="separate modules: with block, give execution"):
        model(ids, block=ids)
    with pytest.raises(ValueError, match="several documents in a row need block"):
        model(ids, document=ids)
    ids = torch.full((1, 40), 5)
    ids[0, 0] = TOKENIZER.question_end_id
    with pytest.raises(ValueError, match="row 0: 19 tokens lie beyond the layout's caps"):
        model(ids)


def test_missing_weights_are_refused_instead_of_drawn_at_random(tmp_path):
    export_method("flat", tmp_path / "flat")
    file = tmp_path / "flat" / "model.safetensors"
    weights = load_file(file)
    del weights["stacks.shared.norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing keys: .*stacks\.shared\.norm\.weight"):
        HBD3LMModel.from_pretrained(tmp_path / "flat")


def test_the_configuration_survives_transformers(tmp_path):
    _, card = export_method("separate", tmp_path / "model")
    config = HBD3LMConfig.from_pretrained(tmp_path / "model")
    assert config.card == json.loads(json.dumps(card.to_dict()))
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (4096, 16, 2)
    config.save_pretrained(tmp_path / "again")
    assert HBD3LMConfig.from_pretrained(tmp_path / "again").card == config.card
    assert Path(tmp_path / "again" / "config.json").is_file()
