"""Llama-type checkpoints compute what they compute in transformers, or are refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hbd3lm.errors import UserError
from hbd3lm.model.batch import Tokens
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.families.pretrained import fill_network, read_pretrained
from hbd3lm.model.mask import Tags
from hbd3lm.model.transformer import Transformer

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-4,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 5000.0,
}
FAMILIES = {
    "llama": ("llama", {}),
    "llama tied": ("llama", {"tie_word_embeddings": True, "head_dim": 8}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama 3.1": ("llama", {"rope_parameters": LLAMA3}),
    "one key for all queries": ("llama", {"num_key_value_heads": 1}),
    "mistral": ("mistral", {"head_dim": 32, "sliding_window": 4096}),
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2 tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 tied": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True, "attention_bias": True}),
}


def make_checkpoint(folder: Path, family: str = "llama", **changes):
    """A random checkpoint of a family, as transformers saves it; the model."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    kind, own = FAMILIES[family]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**(SIZES | own | changes)))
    for parameter in model.parameters():
        # Norms and biases, too: nothing is 1 or 0 by initialisation.
        torch.nn.init.normal_(parameter, std=0.3 if parameter.dim() > 1 else 1.0)
    model.save_pretrained(folder)
    return model.eval()


def load(folder: Path, modules: str = "shared", **changes) -> Transformer:
    source = read_pretrained(folder)
    fields = source.fields | changes
    net = Transformer(ModelConfig(vocab_size=source.rows + 5, modules=modules, **fields))
    fill_network(net, source, [7, 7, None, 8, None], seed=0)
    return net.eval()


@torch.no_grad()
def causal_logits(net: Transformer, ids: torch.Tensor, module: str = "shared") -> torch.Tensor:
    position = torch.arange(ids.shape[1]).expand_as(ids)
    tags = Tags(torch.zeros_like(ids), torch.zeros_like(ids, dtype=torch.bool), position)
    hidden, _ = net(Tokens(ids, position, tags), module=module)
    return net.logits(hidden, module)


def edit_config(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_causal_logits_are_those_of_transformers(family, tmp_path):
    model = make_checkpoint(tmp_path, family)
    ids = torch.randint(0, SIZES["vocab_size"], (2, 150))  # beyond the length of "llama 3.1"
    found = causal_logits(load(tmp_path), ids)
    assert found.shape[-1] == SIZES["vocab_size"] + 4  # the mask, the last new row, has no logit
    torch.testing.assert_close(
        found[..., : SIZES["vocab_size"]], model(ids).logits, rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_causal_logits_of_smollm2_are_those_of_transformers():
    """The real SmolLM2-135M, where HBD3LM_TEST_SMOLLM2 names its folder."""
    from transformers import AutoModelForCausalLM

    folder = os.environ.get("HBD3LM_TEST_SMOLLM2")
    if not folder:
        pytest.skip("set HBD3LM_TEST_SMOLLM2 to a folder that holds SmolLM2-135M")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.randint(0, model.config.vocab_size, (1, 200))
    found = causal_logits(load(Path(folder)), ids)[..., : model.config.vocab_size]
    torch.testing.assert_close(found, model(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shards", [False, True])
@torch.no_grad()
def test_pickles_and_shards_give_the_same_network(shards, tmp_path):
    model = make_checkpoint(tmp_path)
    expected = load(tmp_path).state_dict()
    if shards:
        (tmp_path / "model.safetensors").unlink()
        model.save_pretrained(tmp_path, max_shard_size="100KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 2
    else:
        torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
        (tmp_path / "model.safetensors").unlink()
    for name, tensor in load(tmp_path).state_dict().items():
        assert tensor.equal(expected[name])


def test_new_rows_start_near_the_rows_they_are_told_and_the_mask_has_none_in_the_head(tmp_path):
    model = make_checkpoint(tmp_path)
    stack = load(tmp_path).stacks["shared"]
    for ours, theirs, count in (
        (stack.embedding.weight, model.model.embed_tokens.weight, 5),
        (stack.head.weight, model.lm_head.weight, 4),
    ):
        assert ours[:300].equal(theirs)
        new = ours[300:]
        assert len(new) == count
        starts = (theirs[7], theirs[7], theirs.mean(0), theirs[8], theirs.mean(0))
        for row, start in zip(new, starts):
            off = (row - start).std() / theirs.std()
            assert 0.05 < off < 0.15
        assert not new[0].equal(new[1])


@torch.no_grad()
def test_separate_modules_start_as_copies_with_weights_of_their_own(tmp_path):
    model = make_checkpoint(tmp_path)
    net = load(tmp_path, "separate")
    plan, execution = (net.stacks[name].state_dict() for name in ("plan", "execution"))
    for name, tensor in plan.items():
        assert tensor.equal(execution[name])
        assert tensor.data_ptr() != execution[name].data_ptr()
    ids = torch.randint(0, 300, (1, 20))
    for module in ("plan", "execution"):
        found = causal_logits(net, ids, module)[..., :300]
        torch.testing.assert_close(found, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_what_a_configuration_leaves_out_is_as_in_transformers(tmp_path):
    """An older file: rope_theta by itself, no head_dim, keys and values as many as queries."""
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", "rope_theta": 77.0, "num_attention_heads": 8,
                    "hidden_size": 64, "vocab_size": 10})
    )  # fmt: skip
    fields = read_pretrained(tmp_path).fields
    assert (fields["rope_base"], fields["n_kv_heads"], fields["head_dim"]) == (77.0, 8, 8)
    assert fields["tie_embeddings"] is False and fields["norm_eps"] == 1e-6


@pytest.mark.parametrize(
    ("family", "changes", "limit"),
    [
        ("llama", {"max_position_embeddings": 99}, 99),
        ("mistral", {"sliding_window": 64}, 64),
        ("mistral", {"sliding_window": None, "max_position_embeddings": 99}, 99),
        ("qwen2", {"sliding_window": 64, "max_position_embeddings": 99}, 99),  # not used
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, 64),
        ("qwen3", {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 3,
                   "max_position_embeddings": 99}, 99),  # by no layer
    ],
)  # fmt: skip
def test_the_longest_text_is_that_of_the_positions_or_of_a_window_in_use(
    family, changes, limit, tmp_path
):
    kind, own = FAMILIES[family]
    config = {"model_type": kind, **SIZES, **own, **changes}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_pretrained(tmp_path).max_len == limit


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "of a 'gpt2' model; hbd3lm starts from llama"),
        ({"model_type": ["llama"]}, "hbd3lm starts from llama"),
        ({"hidden_act": "gelu"}, "hidden_act=gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": None}, "'linear'"),
        ({"rope_parameters": {**LLAMA3, "factor": None}}, "llama3"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised"),
        ({"hidden_size": "64"}, "describes no llama model"),
        ({"hidden_size": 65}, "describes no llama model"),
        ({"hidden_size": 32}, r"embed_tokens\.weight is \[300, 64\], expected \[300, 32\]"),
        ({"vocab_size": 299}, r"embed_tokens\.weight is \[300, 64\], expected \[299, 64\]"),
        ({"num_hidden_layers": 4}, r"holds no tensor model\.layers\.3"),
        ({"num_hidden_layers": 2}, r"holds model\.layers\.2.* has no place for"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight is \[32, 64\], expected \[64, 64\]"),
        ({"attention_bias": True}, r"holds no tensor model\.layers\.0\.self_attn\.q_proj\.bias"),
        ({"tie_word_embeddings": True}, "lm_head.weight is not the embedding table"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_does_not_fit_is_refused_with_one_message(changes, message, tmp_path):
    make_checkpoint(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_tampered_weights_are_refused_by_name(tmp_path):
    make_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = load_file(file)
    name = "model.layers.1.mlp.gate_proj.weight"
    for change, message in (
        ({name: None}, f"holds no tensor {name}"),
        ({name: whole[name].T.contiguous()}, rf"{name} is \[64, 96\], expected \[96, 64\]"),
        ({"model.layers.1.adapter": torch.ones(2)}, "adapter, which the network"),
        ({name: whole[name] / 0}, f"{name}.*not finite"),
    ):
        tensors = {k: v for k, v in (whole | change).items() if v is not None}
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=message):
            load(tmp_path)
