"""The model's settings: defaults follow the sizes, contradictions are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig

SIZES = {"nano": (4, 128), "tiny": (8, 256), "small": (12, 768), "medium": (24, 1024)}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dim": 0}, r"model\.dim must be at least 1, got 0"),
        ({"n_heads": 3}, r"model\.dim=16 is no multiple of model\.n_heads=3"),
        ({"head_dim": 5}, r"model\.head_dim=5 must be even"),
        ({"n_heads": 4, "n_kv_heads": 3}, r"n_heads=4 is no multiple of model\.n_kv_heads=3"),
        ({"dropout": 1.0}, r"model\.dropout must lie in \[0, 1\)"),
        ({"norm": "batchnorm"}, r"model\.norm=batchnorm: choose one of rmsnorm, layernorm"),
        ({"mlp": "relu"}, r"model\.mlp=relu: choose one of gelu, swiglu"),
        (
            {"rope_scaling": (8.0, 4.0, 1.0, 64)},
            r"model\.rope_scaling=.* low frequency factor below",
        ),
        ({"rope_scaling": (0.5, 1.0, 4.0, 64)}, r"model\.rope_scaling=.* a factor of at least 1"),
        ({"rope_scaling": [1]}, r"model\.rope_scaling=\[1.0\]: needs four numbers"),
        ({"n_kv_heads": -1}, r"model\.n_kv_heads must be at least 1, got -1"),
        ({"head_dim": 0}, r"model\.head_dim must be at least 1, got 0"),
        ({"hidden_dim": -1}, r"model\.hidden_dim must be at least 1, got -1"),
        ({"modules": "three"}, r"hierarchical\.modules=three: choose one of shared, separate"),
    ],
)
def test_contradictions_are_refused_by_the_settings_name(changes, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**({"vocab_size": 12, "dim": 16, "n_layers": 1, "n_heads": 2} | changes))


def test_what_is_not_given_follows_from_the_sizes():
    config = ModelConfig(12, 24, 1, 4)
    assert config.resolved_head_dim == 6
    assert config.resolved_kv_heads == 4
    assert config.resolved_hidden_dim == 96
    config = ModelConfig(12, 24, 1, 4, n_kv_heads=2, head_dim=8, hidden_dim=50)
    assert config.resolved_head_dim == 8
    assert config.resolved_kv_heads == 2
    assert config.resolved_hidden_dim == 50


def test_a_list_read_of_json_is_the_same_setting_as_a_tuple():
    lists = ModelConfig(12, 24, 1, 4, rope_scaling=[8, 1, 4, 64])
    assert lists == ModelConfig(12, 24, 1, 4, rope_scaling=(8.0, 1.0, 4.0, 64.0))


@pytest.mark.parametrize("name", SIZES)
def test_the_shipped_sizes_are_those_of_bd3_lm(name):
    import yaml

    import hbd3lm

    file = Path(hbd3lm.__file__).parent / "configs" / "model" / f"{name}.yaml"
    values = yaml.safe_load(file.read_text())
    assert values.pop("name") == name
    assert (values["n_layers"], values["dim"]) == SIZES[name]
    # Every key is a field, every field but the two that are not the model's choice is a key.
    fields = set(ModelConfig.__dataclass_fields__) - {"vocab_size", "modules"}
    assert set(values) == fields
