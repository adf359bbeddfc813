"""``model=pretrained``: from another program's checkpoint to answers and an exported folder."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import hydra
import pytest
import torch
from safetensors.torch import load_file

from hbd3lm.commands import run
from hbd3lm.commands.compose import CONFIGS
from hbd3lm.commands.doctor import FAIL, find
from hbd3lm.commands.export import export
from hbd3lm.data.records import write_examples
from hbd3lm.data.tokenizer import SPECIAL_TOKENS, load_tokenizer
from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import load_network
from hbd3lm.pretrained import HBD3LM
from tests.commands.runs import STEPS, make_examples
from tests.model.families.test_llama import edit_config, make_checkpoint

CAPS = ("hierarchical.question_len=64", "hierarchical.plan_len=16", "hierarchical.exec_len=64")
TOKENS = 4091
"""Of the base vocabulary of ``gsm``."""


@pytest.fixture(scope="module")
def home(one_thread, tmp_path_factory) -> Path:
    """A tiny random Llama with ``gsm`` as its tokenizer, and problems."""
    folder = tmp_path_factory.mktemp("home")
    make_checkpoint(folder / "llama", vocab_size=TOKENS + 5, eos_token_id=None,
                    hidden_size=32, num_hidden_layers=2)  # fmt: skip
    file = resources.files("hbd3lm.data") / "tokenizer_files" / "gsm.json"
    (folder / "llama" / "tokenizer.json").write_bytes(file.read_bytes())
    write_examples(folder / "train.json", make_examples(20))
    write_examples(folder / "test.json", make_examples(2, start=20))
    return folder


@pytest.fixture(scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def compose(home: Path, run_dir: Path, *overrides: str):
    overrides = [
        "model=pretrained", f"model.path={home}/llama", *STEPS, *CAPS, "block_size=4",
        f"data.train_path={home}/train.json", f"data.test_path={home}/test.json",
        f"run_dir={run_dir}", "training.optimizer=adamw", *overrides,
    ]  # fmt: skip
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return hydra.compose("config", overrides=overrides)


def start(home: Path, run_dir: Path, *overrides: str):
    """A run of a step that changes next to nothing; its network and card."""
    still = ("training.max_steps=1", "training.learning_rate=1e-12", "training.warmup_steps=0")
    assert run.dispatch(compose(home, run_dir, "mode=train", *still, *overrides)) is None
    return load_network(run_dir / "checkpoints" / "last.ckpt")


def test_from_a_checkpoint_to_answers_and_an_exported_folder(home, tmp_path, capsys):
    net, card = start(home, tmp_path / "run")
    assert card.model.shift and card.model.causal_context  # as next-token models were trained
    assert (card.model.dim, card.model.mlp) == (32, "swiglu")
    assert card.settings["model"]["dim"] == 32  # the run's record has the sizes
    assert card.settings["started_from"]["path"] == f"{home}/llama"
    theirs = load_file(home / "llama" / "model.safetensors")
    table = net.stacks["shared"].embedding.weight
    assert table.shape[0] == TOKENS + len(SPECIAL_TOKENS)
    torch.testing.assert_close(table[:TOKENS], theirs["model.embed_tokens.weight"][:TOKENS])
    assert (
        load_tokenizer(tmp_path / "run" / "tokenizer").fingerprint == card.tokenizer["fingerprint"]
    )

    for mode in ("ppl_eval", "sample_eval"):
        run.dispatch(compose(home, tmp_path / "run", f"mode={mode}", "eval.samples=2"))
    export(tmp_path / "run" / "checkpoints" / "best.ckpt", tmp_path / "exported")
    places = (f"checkpoint={tmp_path}/exported", f"eval.output_dir={tmp_path}/again")
    run.dispatch(compose(home, tmp_path / "run", "mode=ppl_eval", "eval.samples=2", *places))
    first, again = (
        json.loads((folder / "perplexity.json").read_text())["segments"]
        for folder in (tmp_path / "run" / "eval", tmp_path / "again")
    )
    assert first == again
    model = HBD3LM.from_pretrained(tmp_path / "exported", device="cpu")
    assert isinstance(model.solve("Ann has 3 apples. How many?").execution, str)


def test_a_run_goes_on_from_its_own_weights(home, tmp_path):
    settings = ("mode=train", "training.checkpoint_every=1", "training.valid_every=1")
    run.dispatch(compose(home, tmp_path / "run", *settings, "training.max_steps=2"))
    _, before = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run.dispatch(compose(home, tmp_path / "run", *settings, "training.max_steps=3"))
    _, after = load_network(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert after.settings["started_from"] == before.settings["started_from"]


def test_a_frozen_separate_module_keeps_the_checkpoints_weights(home, tmp_path):
    net, card = start(home, tmp_path / "run", "hierarchical.modules=separate",
                      "training.freeze=plan", "training.learning_rate=1e-2")  # fmt: skip
    theirs = load_file(home / "llama" / "model.safetensors")["model.layers.0.mlp.down_proj.weight"]
    plan, execution = (net.stacks[m].blocks[0].mlp.down.weight for m in ("plan", "execution"))
    assert plan.equal(theirs)
    assert not execution.equal(theirs)
    assert card.model.modules == "separate"


def test_its_sizes_alone_start_from_random_weights(home, tmp_path):
    net, card = start(home, tmp_path / "run", "model.scratch=true")
    assert card.model.dim == 32 and card.settings["started_from"] is None
    assert net.stacks["shared"].blocks[0].mlp.down.weight.abs().max() < 1e-6  # zero at the start


def test_a_next_token_model_starts_with_the_checkpoints_likelihoods(home, tmp_path):
    """What algo=ar scores before any training, and what diffusion in blocks of one scores."""
    scores = []
    for name, overrides in (("ar", ("algo=ar", "block_size=1")), ("diffusion", ("block_size=1",))):
        folder = tmp_path / name
        start(home, folder, *overrides)
        run.dispatch(compose(home, folder, "mode=ppl_eval", *overrides))
        scores.append(json.loads((folder / "eval" / "perplexity.json").read_text()))
    assert scores[0]["kind"] == scores[1]["kind"]
    for name, segment in scores[0]["segments"].items():
        other = scores[1]["segments"][name]
        assert segment["nats_per_token"] == pytest.approx(other["nats_per_token"], rel=1e-5)


def test_doctor_examines_a_run_that_starts_from_a_checkpoint(home, tmp_path):
    findings = find(compose(home, tmp_path / "run", "mode=doctor"))
    assert len(findings) > 8
    # Four problems in a step of a network with random weights: its precision says nothing.
    failed = [f.name for f in findings if f.status == FAIL and f.name != "precision"]
    assert failed == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.path=null",), r"needs model\.path="),
        (("model.path=/no/where",), "no such file or folder: /no/where"),
        (("hierarchical.exec_len=2048",), r"at most 2048 tokens .*total_len=2048"),
    ],
)
def test_what_cannot_be_a_start_is_refused(home, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        run.dispatch(compose(home, tmp_path / "run", "mode=train", *overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "eos", "message"),
    [
        (TOKENS - 1, None, "has 4091 tokens, the embedding 4090 rows"),
        (TOKENS + 200, None, "has 4091 tokens, the embedding 4291 rows"),
        (TOKENS + 5, 7, "has no special token 7, which ends a text"),
        (TOKENS + 5, [TOKENS + 1], f"has no special token {TOKENS + 1}"),
    ],
)
def test_a_tokenizer_of_other_weights_is_refused(home, tmp_path, rows, eos, message):
    folder = tmp_path / "llama"
    make_checkpoint(folder, vocab_size=rows, hidden_size=32, num_hidden_layers=1)
    edit_config(folder, eos_token_id=eos)
    (folder / "tokenizer.json").write_bytes((home / "llama" / "tokenizer.json").read_bytes())
    with pytest.raises(UserError, match=message):
        run.dispatch(compose(home, tmp_path / "run", "mode=train", f"model.path={folder}"))
