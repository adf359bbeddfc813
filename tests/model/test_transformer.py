"""The transformer's families: what every setting changes, and what none may change."""

from __future__ import annotations

import pytest
import torch

from hbd3lm.errors import UserError
from hbd3lm.model.batch import Tokens
from hbd3lm.model.config import ModelConfig
from hbd3lm.model.mask import PADDING, Tags
from hbd3lm.model.transformer import Transformer
from tests.toys import MASK, VOCABULARY, toy_net

FAMILIES = {
    "default": {},
    "dit": {"norm": "layernorm", "mlp": "gelu", "mlp_bias": True, "qk_norm": False,
            "attention_bias": True, "tie_embeddings": False, "head_bias": True},
    "llama": {"mlp": "swiglu", "n_kv_heads": 1, "qk_norm": False, "hidden_dim": 40},
    "qwen": {"mlp": "swiglu", "n_kv_heads": 2, "n_heads": 4, "attention_bias": True},
    "wide-heads": {"head_dim": 12},
    "untied": {"tie_embeddings": False},
    "separate": {"modules": "separate"},
    "rope": {"rope_base": 500.0},
}  # fmt: skip


def stretch(ids, block, noisy=False, position=None, document=0) -> Tokens:
    """One row of tokens."""
    ids = torch.tensor([ids])
    block = torch.tensor([block])
    position = torch.arange(ids.shape[1])[None] if position is None else torch.tensor([position])
    document = torch.full_like(ids, document) if isinstance(document, int) else document
    return Tokens(ids, position, Tags(document, torch.full_like(ids, noisy, dtype=bool), block))


CLEAN = ([1, 2, 3, 4, 5, 6, 1], [0, 0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_reading_a_past_gives_what_one_pass_over_everything_gives(family):
    """Keys and values are the model itself, not a cache beside it: equal in every family."""
    net = toy_net(**FAMILIES[family]).double()
    module = net.module_of("plan")
    ids, block = CLEAN
    everything, _ = net(stretch(ids, block), module=module)
    _, past = net(stretch(ids[:5], block[:5]), module=module, keys_only=True)
    rest, _ = net(stretch(ids[5:], block[5:], position=[5, 6]), past, module)
    torch.testing.assert_close(rest, everything[:, 5:])
    assert net.logits(rest, module).shape == (1, 2, VOCABULARY - 1)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_clean_tokens_never_see_later_blocks(family):
    net = toy_net(**FAMILIES[family])
    module = net.module_of("execution")
    ids, block = CLEAN
    before, _ = net(stretch(ids, block), module=module)
    after, _ = net(stretch([*ids[:5], 0, 0], block), module=module)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_every_family_gets_a_gradient(family):
    net = toy_net(**FAMILIES[family])
    total = 0.0
    past = None
    for module in net.stacks:
        hidden, past = net(stretch(*CLEAN), past, module)
        total = total + net.logits(hidden, module).logsumexp(-1).sum()
    total.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "changes",
    [{"norm": "layernorm"}, {"qk_norm": False}, {"rope_base": 50.0}],
    ids=lambda changes: next(iter(changes)),
)
@torch.no_grad()
def test_settings_without_weights_of_their_own_change_the_function(changes):
    plain, other = toy_net(), toy_net(**changes)
    other.load_state_dict(
        {name: value for name, value in plain.state_dict().items() if name in other.state_dict()}
    )
    first, second = (net(stretch(*CLEAN))[0] for net in (plain, other))
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("family", ["default", "qwen"])
@torch.no_grad()
def test_selected_positions_equal_those_of_the_full_pass(family):
    net = toy_net(**FAMILIES[family])
    everything, _ = net(stretch(*CLEAN))
    select = torch.tensor([[False, True, False, False, True, True, False]])
    some, _ = net(stretch(*CLEAN), select=select)
    torch.testing.assert_close(some, everything[select])
    flat = select.flatten().nonzero()[:, 0]
    assert torch.equal(net(stretch(*CLEAN), select=flat)[0], some)
    by_row, _ = net(stretch(*CLEAN), select=torch.tensor([[1, 4, 5]]))
    torch.testing.assert_close(by_row[0], some)


@pytest.mark.parametrize("family", ["default", "llama"])
@torch.no_grad()
def test_flex_attention_equals_sdpa(family):
    """Uncompiled, on the CPU: the same rule through its mask_mod, padding and a past included."""
    sdpa, flex = toy_net(**FAMILIES[family]), toy_net(**FAMILIES[family])
    flex.attention_backend = "flex"
    ids, block = CLEAN
    document = torch.tensor([[0] * 5 + [PADDING] * 2])
    hidden = []
    for net in (sdpa, flex):
        _, past = net(stretch(ids, block, document=document), keys_only=True)
        noisy = stretch([MASK, 2, MASK, 3], [1, 1, 2, 2], noisy=True, position=[3, 4, 5, 6])
        hidden.append(net(noisy, past)[0])
    torch.testing.assert_close(hidden[0], hidden[1], rtol=1e-4, atol=1e-5)


def test_an_unknown_attention_backend_is_refused():
    net = toy_net()
    net.attention_backend = "flash"
    with pytest.raises(UserError, match=r"trainer\.attention=flash: choose one of auto, sdpa"):
        net(stretch(*CLEAN))


def test_tied_and_untied_heads_have_no_row_for_the_mask():
    tied, untied = toy_net(), toy_net(tie_embeddings=False)
    assert tied.stacks["shared"].output_table is tied.stacks["shared"].embedding.weight
    assert untied.stacks["shared"].output_table.shape == (VOCABULARY - 1, 16)
    hidden = torch.randn(3, 16)
    assert tied.logits(hidden).shape == untied.logits(hidden).shape == (3, VOCABULARY - 1)
    extra = (VOCABULARY - 1) * 16
    assert untied.count_parameters() - tied.count_parameters() == extra
    assert untied.count_parameters(embeddings=False) == tied.count_parameters(embeddings=False)


def test_the_number_of_weights_is_the_one_worked_out_by_hand():
    net = Transformer(ModelConfig(vocab_size=12, dim=16, n_layers=2, n_heads=2))
    attention = 4 * 16 * 16 + 2 * 8  # projections, QK-norms
    block = attention + 2 * 16 * 64 + 2 * 16  # MLP, norms
    assert net.count_parameters(embeddings=False) == 2 * block + 16
    assert net.count_parameters() == 2 * block + 16 + 12 * 16
    grouped = Transformer(ModelConfig(12, 16, 2, 2, n_kv_heads=1, mlp="swiglu", hidden_dim=40))
    attention = 2 * 16 * 16 + 2 * 16 * 8 + 2 * 8
    block = attention + 3 * 16 * 40 + 2 * 16
    assert grouped.count_parameters(embeddings=False) == 2 * block + 16


@torch.no_grad()
def test_a_fresh_network_starts_as_the_identity_over_depth():
    """The residual branches are zero, so the hidden state is the normalised embedding."""
    net = Transformer(ModelConfig(12, 16, 3, 2))
    hidden, _ = net(stretch(*CLEAN))
    stack = net.stacks["shared"]
    torch.testing.assert_close(hidden, stack.norm(stack.embedding(torch.tensor([CLEAN[0]]))))


def test_dropout_acts_while_training_only():
    net = toy_net(dropout=0.5)
    with torch.no_grad():
        assert torch.equal(net(stretch(*CLEAN))[0], net(stretch(*CLEAN))[0])
        net.train()
        assert not torch.equal(net(stretch(*CLEAN))[0], net(stretch(*CLEAN))[0])


@torch.no_grad()
def test_separate_modules_share_no_weight():
    """Perturbing all of L leaves what H computes unchanged to the bit."""
    net = toy_net(modules="separate")
    before, _ = net(stretch(*CLEAN), module="plan")
    for parameter in net.stacks["execution"].parameters():
        parameter.add_(1.0)
    after, _ = net(stretch(*CLEAN), module="plan")
    assert torch.equal(before, after)
    assert (net.module_of("plan"), net.module_of("execution")) == ("plan", "execution")
