"""Separate modules of a fair size: counts of weights and operations, against a shared model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import hbd3lm
from hbd3lm.diffusion.objective import BlockDiffusion, negative_log_likelihood
from hbd3lm.errors import UserError
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import plan_execution_layout
from hbd3lm.model.mask import dense_mask
from hbd3lm.model.match import match_parameters, operations_per_token
from hbd3lm.model.memory import count_weights
from hbd3lm.model.transformer import Transformer
from tests.toys import MASK, VOCABULARY, random_documents

VOCABULARIES = {"gsm": 4096, "gpt2": 50_262}
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
    assert operations_per_token(matched) < operations_per_token(config)
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
        match_parameters(ModelConfig(12, 16, 1, 4, modules="separate"))


def operations(compute) -> dict[str, int]:
    """Counted by torch, by kind of product: ``mm`` (with weights) and ``bmm`` (attention)."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        compute()
    totals = {}
    for operation, count in counter.get_flop_counts()["Global"].items():
        kind = "attention" if "bmm" in str(operation) else "weights"
        totals[kind] = totals.get(kind, 0) + count
    return totals


@pytest.mark.parametrize("training", [False, True])
def test_separate_modules_cost_a_token_what_shared_ones_cost(training):
    """One document at a time, so that no padding counts: the products with weights are equal,
    forwards and backwards; attention computes no pair more (its dense tiles are smaller)."""
    config = ModelConfig(VOCABULARY, 16, 3, 2)
    for document in random_documents(LAYOUT, 6):
        found, pairs = [], []
        for modules in ("shared", "separate"):
            net = Transformer(replace(config, modules=modules))
            objective = BlockDiffusion(LAYOUT, MASK, modules)
            noise = objective.training_noise([document], np.random.default_rng(1))
            batch = objective.assemble([document], noise)

            def step(net=net, batch=batch):
                loss = negative_log_likelihood(net, batch).sum()
                if training:
                    loss.backward()

            found.append(operations(step))
            pairs.append(allowed_pairs(batch))
        assert found[0]["weights"] == found[1]["weights"]
        assert found[0]["attention"] >= found[1]["attention"] > 0
        assert pairs[0] == pairs[1]


def allowed_pairs(batch) -> int:
    """Pairs of tokens, one attending to the other, over all passes of a batch."""
    found, seen = 0, []
    for part in batch.parts:
        seen.append(part.clean.tags)
        found += sum(int(dense_mask(part.clean.tags, tags).sum()) for tags in seen)
        found += sum(int(dense_mask(part.noisy.tags, tags).sum()) for tags in seen)
        found += int(dense_mask(part.noisy.tags, part.noisy.tags).sum())
    return found


@torch.no_grad()
@pytest.mark.parametrize("modules", ["shared", "separate"])
@pytest.mark.parametrize(
    "family", [{}, {"mlp": "swiglu", "n_kv_heads": 1, "tie_embeddings": False}]
)
def test_operations_of_a_token_are_those_that_torch_counts(family, modules):
    config = ModelConfig(VOCABULARY, 16, 3, 2, modules=modules, **family)
    net = Transformer(config)
    objective = BlockDiffusion(LAYOUT, MASK, modules)
    document = random_documents(LAYOUT, 1)[0]
    noise = objective.training_noise([document], np.random.default_rng(1))
    part = objective.assemble([document], noise).parts[-1]

    def predict():
        hidden, _ = net(part.noisy, None, part.module)
        net.logits(hidden, part.module)

    expected = operations_per_token(config) * part.noisy.ids.shape[1]
    assert operations(predict)["weights"] == expected
