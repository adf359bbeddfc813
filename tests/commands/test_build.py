"""The specification's overrides become the layout, network and card they ask for."""

from __future__ import annotations

import pytest

from hbd3lm.commands import build
from hbd3lm.commands.settings import typed
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.train.config import TrainingConfig
from tests.commands.runs import compose


def test_the_specs_quick_test_parses_as_printed():
    cfg = compose(
        "mode=train",
        "model=tiny",
        "training.max_steps=1000",
        "training.hierarchical.enabled=true",
        "data.train_path=data/gsm8k/gsm8k_hierarchical_train.json",
    )
    assert (cfg.mode, cfg.model.dim, cfg.model.n_layers) == ("train", 256, 8)
    assert cfg.training.max_steps == 1000
    assert cfg.data.train_path == "data/gsm8k/gsm8k_hierarchical_train.json"
    layout = build.build_layout(cfg)
    assert (layout.question_len, [s.max_len for s in layout.segments]) == (128, [128, 256])


def test_the_specs_training_settings_are_the_defaults():
    cfg = compose()
    config = typed(TrainingConfig, cfg.training, "training")
    assert (config.max_steps, config.batch_size, config.learning_rate) == (50_000, 32, 3e-4)
    assert {s.block_size for s in build.build_layout(cfg).segments} == {16}


def test_the_specs_training_overrides_reach_the_settings():
    cfg = compose(
        "training.batch_size=16", "training.learning_rate=3e-4", "training.warmup_steps=10000",
        "training.hierarchical.question_len=64",
    )  # fmt: skip
    config = typed(TrainingConfig, cfg.training, "training")
    assert (config.batch_size, config.learning_rate) == (16, 3e-4)
    assert config.resolved_warmup_steps == 10_000
    assert build.build_layout(cfg).question_len == 64


@pytest.mark.parametrize(
    "overrides, blocks",
    [
        (["block_size=8"], [8, 8]),
        (["training.block_size=8"], [8, 8]),
        (["hierarchical.plan_block_size=4"], [4, 16]),
        (["training.hierarchical.exec_block_size=32"], [16, 32]),
        (["block_size=8", "hierarchical.exec_block_size=4"], [8, 4]),
        (["algo=mdlm"], [128, 256]),
        (["algo=mdlm", "hierarchical.plan_len=64"], [64, 256]),
        (["algo=ar"], [1, 1]),
        (["algo=flat"], [16]),
        (["algo=flat", "block_size=4"], [4]),
    ],
)
def test_block_sizes_follow_the_algorithm_and_both_spellings(overrides, blocks):
    layout = build.build_layout(compose(*overrides))
    assert [segment.block_size for segment in layout.segments] == blocks


@pytest.mark.parametrize("model", ["nano", "tiny", "small", "medium"])
def test_every_model_size_is_a_valid_network(model):
    assert build.build_model_config(compose(f"model={model}"), 1000).n_layers > 0


@pytest.mark.parametrize(
    "overrides, lengths",
    [
        (["training.hierarchical.total_len=384"], (96, 96, 192)),
        (["hierarchical.total_len=384"], (96, 96, 192)),
        (["hierarchical.total_len=600"], (128, 128, 256)),
        (["hierarchical.total_len=500"], (125, 112, 240)),
        (["hierarchical.total_len=384", "algo=mdlm"], (96, 96, 192)),
        (["hierarchical.total_len=192", "algo=flat"], (64, 128)),
        (["hierarchical.total_len=384", "algo=ar"], (96, 96, 192)),
    ],
)
def test_total_len_shrinks_the_caps_in_proportion_to_whole_blocks(overrides, lengths):
    layout = build.build_layout(compose(*overrides))
    assert (layout.question_len, *(s.max_len for s in layout.segments)) == lengths
    assert layout.max_len <= 600


def test_the_gpt2_tokenizer_is_found_in_the_data_folder(data_dir):
    cfg = compose("tokenizer=gpt2", f"data.dir={data_dir}")
    tokenizer = load_tokenizer(cfg.tokenizer.name, cfg.data.dir)
    card = build.build_card(cfg, tokenizer)
    assert card.model.vocab_size == 50_257 + 5
    assert card.tokenizer["name"] == "gpt2"
