"""Separate modules of a fair size: counts of weights and operations, against a shared model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

import hbd3lm
from hbd3lm.diffusion.objective import BlockDiffusion
from hbd3lm.diffusion.schedule import LogLinearSchedule
from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.cost import pass_operations, shapes_of_batch, step_operations
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.match import match_parameters
from hbd3lm.model.memory import count_weights
from tests.toys import MASK, VOCABULARY, random_documents

VOCABULARIES = {"gsm": 4096, "gpt2": 50_262}
MOST = LogLinearSchedule(0.9, 1.0)
"""Times at which hardly a block has no mask."""
LAYOUT = plan_execution_layout(8, 16, 16, 4, 4)


def shipped(name: str, vocabulary: int = VOCABULARIES["gsm"]) -> ModelConfig:
    """A size of ``configs/model``, with separate modules."""
    file = Path(hbd3lm.__file__).parent / "configs" / "model" / f"{name}.yaml"
    values = OmegaConf.to_container(OmegaConf.load(file))
    del values["name"]
    return ModelConfig(vocabulary, modules="separate", **values)


def shared(config: ModelConfig) -> ModelConfig:
    return replace(config, modules="shared")


@pytest.mark.parametrize("vocabulary", VOCABULARIES.values(), ids=VOCABULARIES)
@pytest.mark.parametrize("name", ["nano", "tiny", "small", "medium"])
def test_modules_matched_by_parameters_hold_the_weights_of_the_shared_model(name, vocabulary):
    config = shipped(name, vocabulary)
    matched = match_parameters(config)
    wanted = count_weights(shared(config))[0]
    assert abs(count_weights(matched)[0] / wanted - 1) < 0.01  # 0.02 would be fair
    assert count_weights(config)[0] == 2 * wanted
    token = (1, 0, 1)  # one, without attention, predicted
    assert pass_operations(config, *token) == pass_operations(shared(config), *token)
    assert pass_operations(matched, *token).total < pass_operations(config, *token).total
    # The same depth and heads, since the modules read each other layer by layer.
    assert (matched.n_layers, matched.n_heads) == (config.n_layers, config.n_heads)
    assert matched.dim % (2 * config.n_heads) == 0
    assert 2 < matched.hidden_dim / matched.dim < 12


@pytest.mark.parametrize(
    "family",
    [
        {"mlp": "swiglu", "n_kv_heads": 2, "attention_bias": True, "hidden_dim": 200},
        {"tie_embeddings": False, "norm": "layernorm", "mlp_bias": True, "qk_norm": False},
        {"head_dim": 24},
    ],
)
def test_every_family_can_be_matched(family):
    config = ModelConfig(300, 96, 3, 4, modules="separate", **family)
    matched = match_parameters(config)
    assert abs(count_weights(matched)[0] / count_weights(shared(config))[0] - 1) < 0.02
    for name in family.keys() - {"hidden_dim"}:
        assert getattr(matched, name) == family[name]


def test_a_model_that_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match=r"hierarchical\.match=parameters: .* too small for two"):
        match_parameters(ModelConfig(12, 8, 1, 4, modules="separate"))


def test_a_step_of_separate_modules_costs_a_token_what_a_step_of_shared_ones_costs():
    """By counts that ``test_cost.py`` compares with torch's own; a document at a time, so that
    there is no padding. Products with weights are equal, and so are the pairs of tokens that
    attend; the dense mask computes fewer others."""
    config = ModelConfig(VOCABULARY, 16, 3, 2)
    for document in random_documents(LAYOUT, 6):
        read, computed = [], []
        for modules in ("shared", "separate"):
            sized, objective = (
                replace(config, modules=modules),
                BlockDiffusion(LAYOUT, MASK, modules, MOST),
            )
            noise = objective.training_noise([document], np.random.default_rng(1))
            batch = objective.assemble([document], noise)
            read.append(step_operations(sized, shapes_of_batch(batch, read=True)))
            computed.append(step_operations(sized, shapes_of_batch(batch)))
        assert read[0] == read[1]
        assert (computed[0].matrices, computed[0].head) == (computed[1].matrices, computed[1].head)
        assert computed[0].attention >= computed[1].attention > 0
