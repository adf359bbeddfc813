"""``hbd3lm export``: from a run to a folder that every mode reads with the same results."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import hydra
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from hbd3lm import HBD3LM, cli
from hbd3lm.commands import export
from hbd3lm.commands.compose import CONFIGS
from hbd3lm.commands.overrides import quote
from hbd3lm.errors import UserError
from hbd3lm.model.checkpoint import load_network, read_checkpoint

SETTINGS = (
    "data=embedded", "data.num_train=20", "model=nano", "model.dim=32", "model.n_heads=2",
    "model.n_layers=2", "hierarchical.exec_len=64", "training.max_steps=3",
    "training.batch_size=4", "training.valid_samples=1", "trainer=cpu",
    "trainer.precision=32-true", "trainer.loggers=[csv]", 'run_name="a (small), run"',
)  # fmt: skip
QUESTION = "Tom's box holds 3 red, 4 blue (and no) balls. How many in all?"


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def hbd3lm(*arguments: str) -> int:
    before = sys.argv
    try:
        return cli.main(list(arguments)) or 0
    except SystemExit as stop:
        return stop.code or 0
    finally:
        sys.argv = before


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A run, evaluated, and exported to ``exported``."""
    folder = tmp_path_factory.mktemp("home")
    assert hbd3lm("train", *SETTINGS, f"run_dir={folder}/run") == 0
    assert evaluate(folder, "ppl_eval", "eval.samples=1") == 0
    assert evaluate(folder, "sample_eval") == 0
    assert run_export(folder, folder / "exported") == 0
    return folder


def evaluate(home: Path, verb: str, *settings: str) -> int:
    return hbd3lm(
        verb, "data=embedded", "eval.num_examples=3", "trainer=cpu", f"run_dir={home}/run",
        *settings,
    )  # fmt: skip


def run_export(home: Path, folder: Path, *flags: str, name: str = "best") -> int:
    checkpoint = f"{home}/run/checkpoints/{name}.ckpt"
    return hbd3lm("export", "--checkpoint", checkpoint, "--output_dir", str(folder), *flags)


# -- the same results -----------------------------------------------------------------------


def test_the_averaged_weights_are_exported(home):
    _, content = read_checkpoint(home / "run" / "checkpoints" / "best.ckpt")
    net, card = load_network(home / "exported")
    assert card.to_dict() == content["hbd3lm"]
    raw = content["current_model_state"]  # what the optimiser works on; state_dict is the average
    differs = 0
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, content["state_dict"][f"net.{name}"])
        differs += not torch.equal(weight, raw[f"net.{name}"])
    assert differs


def test_perplexity_and_samples_of_the_folder_are_those_of_the_checkpoint(home, tmp_path):
    for verb, name, samples in (
        ("ppl_eval", "perplexity.json", ("eval.samples=1",)),
        ("sample_eval", "samples_full.jsonl", ()),
    ):
        status = evaluate(
            home, verb, *samples, f"checkpoint={home}/exported", f"eval.output_dir={tmp_path}"
        )
        assert status == 0
        expected, found = (
            (folder / name).read_text() for folder in (home / "run" / "eval", tmp_path)
        )
        assert expected.replace(f"{home}/run/checkpoints/best.ckpt", f"{home}/exported") == found


def test_one_question_is_answered_the_same_and_in_python_too(home, capsys):
    printed = []
    for checkpoint in (home / "run" / "checkpoints" / "best.ckpt", home / "exported"):
        status = hbd3lm("sample", f"checkpoint={checkpoint}", f"sampling.question={QUESTION}",
                        "trainer=cpu")  # fmt: skip
        assert status == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    solution = HBD3LM.from_pretrained(home / "exported", device="cpu").solve(QUESTION)
    assert f"plan:\n{solution.plan}\n\nexecution:\n{solution.execution}\n" in printed[0]


# -- the model card -------------------------------------------------------------------------


def front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_card_tells_data_command_and_metrics_of_the_run(home):
    text = (home / "exported" / "README.md").read_text()
    summary = json.loads((home / "run" / "train_summary.json").read_text())
    ppl = json.loads((home / "run" / "eval" / "perplexity.json").read_text())
    scores = json.loads((home / "run" / "eval" / "sample_eval_full.json").read_text())
    data = front_matter(text)
    assert (data["license"], data["library_name"]) == ("mit", "transformers")
    (entry,) = data["model-index"]
    assert entry["name"] == "a (small), run"
    assert entry["results"][0]["metrics"][0]["value"] == scores["accuracy_strict"]["value"]
    for told in (
        "embedded (generated) problems, plans by `rules`; 18 problems, 2 held out",
        f"{summary['best_valid_nelbo']:.4f} nats per token (NELBO)",
        f"{summary['parameters']:,} parameters",
        f"{ppl['segments']['all']['perplexity']:.3f} | embedded test, 3 problems |",
        "exact match, strict extraction",
        "| plans by | `rules`, without a language model |",
        "average over training (EMA)",
        "HBD3LM.from_pretrained(",
        "AutoModel.from_pretrained(",
    ):
        assert told in text


def test_the_command_on_the_card_gives_the_settings_of_the_run(home):
    card = load_network(home / "exported")[1]
    overrides = export.training_overrides(card.settings)
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        settings = OmegaConf.to_container(
            hydra.compose("config", overrides=["mode=train", *overrides]), resolve=True
        )
    for key, value in settings.items():
        assert card.settings[key] == value, key
    assert len(overrides) < 20


def test_the_command_of_a_run_from_before_muon_names_its_optimizer():
    settings = composed(["training.lr_schedule=cosine"])
    for name in ("optimizer", "muon_scale", "decay_share"):
        del settings["training"][name]
    assert export.training_overrides(settings) == [
        "training.optimizer=adamw",
        "training.lr_schedule=cosine",
    ]


def composed(overrides: list[str]) -> dict:
    with hydra.initialize_config_dir(CONFIGS, version_base=None):
        return OmegaConf.to_container(hydra.compose("config", overrides=overrides), resolve=True)


@pytest.mark.parametrize(
    "overrides",
    [
        ["algo=ar", "data=svamp", "training.batch_size=8"],
        ["algo=mdlm", "model=small", "hierarchical.total_len=384"],
        ["block_size=8", "hierarchical.exec_block_size=4", "planner=socratic"],
        ["training.hierarchical.modules=separate", "run_name=x", "trainer=cpu", "seed=3"],
        ["run_dir=null", "training.max_steps=1", "trainer.loggers=[csv,wandb]"],
        [f"data.train_path={quote('a b,c.json')}", f"data.valid_path={quote('32')}",
         f"data.test_path={quote('true')}", f"run_name={quote(QUESTION)}",
         "data.dir='C:\\x\\\\'",
         f"tokenizer.name={quote('[ü]')}", "run_dir=''"],
    ],
    ids=str,
)  # fmt: skip
def test_any_settings_are_reached_by_a_command(overrides):
    wanted = composed(overrides)
    assert composed(export.training_overrides(wanted)) == wanted


def test_what_the_run_does_not_tell_is_said(home, tmp_path, capsys):
    """No result of another checkpoint, none older than the checkpoint, no loss that is not its."""
    shutil.copytree(home / "run", tmp_path / "run")
    assert run_export(tmp_path, tmp_path / "last", name="last") == 0
    printed = capsys.readouterr().out
    assert "note: no evaluation of" in printed and "sample_eval first" in printed
    text = (tmp_path / "last" / "README.md").read_text()
    assert "No evaluation of this checkpoint was at hand" in text
    assert "Best validation loss" not in text and "model-index" not in text

    os.utime(tmp_path / "run" / "eval" / "perplexity.json", (0, 0))
    (tmp_path / "run" / "train_summary.json").unlink()
    assert run_export(tmp_path, tmp_path / "best") == 0
    printed = capsys.readouterr().out
    assert "perplexity.json is older than the checkpoint" in printed
    assert "train_summary.json; the model card says nothing of the training" in printed
    text = (tmp_path / "best" / "README.md").read_text()
    assert "perplexity of" not in text and "exact match, strict" in text
    assert "summary was not at hand" in text

    (tmp_path / "run" / "eval" / "perplexity.json").write_text("{")
    assert run_export(tmp_path, tmp_path / "none") == 1
    assert "perplexity.json is not valid JSON" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


# -- refusals -------------------------------------------------------------------------------


def test_a_taken_place_and_a_wrong_checkpoint_are_one_message(home, tmp_path, capsys):
    assert run_export(home, home / "run") == 1
    assert "run is not empty; choose another folder" in capsys.readouterr().err
    assert run_export(home, home / "run", "--overwrite") == 1
    assert "run is no exported model, so --overwrite does not delete it" in capsys.readouterr().err
    for checkpoint, message in (
        (tmp_path / "none.ckpt", "--checkpoint: no such file"),
        (home / "run", "is a folder; give a file"),
        (home / "run" / "config.yaml", "is damaged or no checkpoint"),
    ):
        status = hbd3lm("export", "--checkpoint", str(checkpoint), "--output_dir", f"{tmp_path}/x")
        assert status == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_as_checkpoint_is_told_the_file(home, capsys):
    assert evaluate(home, "ppl_eval", f"checkpoint={home}/run") == 1
    assert "no exported model (no config.json); give" in capsys.readouterr().err


def test_a_run_of_another_program_version_is_refused_by_key(home, tmp_path):
    with pytest.raises(UserError, match="describes no model"):
        path = home / "run" / "checkpoints" / "best.ckpt"
        content = torch.load(path, weights_only=True)
        del content["hbd3lm"]["objective"]
        torch.save(content, tmp_path / "old.ckpt")
        read_checkpoint(tmp_path / "old.ckpt")
