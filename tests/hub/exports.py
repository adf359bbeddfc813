"""Small models of every method, exported without a training run, for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hbd3lm.commands.build import build_objective
from hbd3lm.data.tokenizer import load_tokenizer
from hbd3lm.hub.directory import write_exported
from hbd3lm.model.checkpoint import ModelCard
from hbd3lm.model.layout import Document, Layout, build_document, plan_execution_layout
from tests.toys import toy_net

TOKENIZER = load_tokenizer("gsm")
METHODS = {
    "hierarchical": (plan_execution_layout(12, 8, 12, 4, 2), "diffusion", {}),
    "flat": (plan_execution_layout(12, 8, 12, 4, 4, with_plan=False), "diffusion", {}),
    "mdlm": (plan_execution_layout(12, 8, 12, 8, 12), "diffusion", {"mlp": "swiglu"}),
    "ar": (plan_execution_layout(12, 8, 12, 1, 1), "autoregressive", {"tie_embeddings": False}),
    "shifted": (
        plan_execution_layout(12, 8, 12, 4, 2),
        "diffusion",
        {"shift": True, "causal_context": True, "norm": "rmsnorm"},
    ),
    "shifted separate": (
        plan_execution_layout(12, 8, 12, 4, 4),
        "diffusion",
        {"modules": "separate", "shift": True, "tie_embeddings": False},
    ),
    "separate": (plan_execution_layout(12, 8, 12, 4, 4), "diffusion", {"modules": "separate"}),
}


def make_model(method: str):
    """The network and the card of a method."""
    layout, objective, changes = METHODS[method]
    net = toy_net(vocab_size=TOKENIZER.vocab_size, **changes)
    described = {"name": "gsm", "fingerprint": TOKENIZER.fingerprint}
    return net, ModelCard(net.config, layout, objective, described, {"algo": {"name": method}})


def export_method(method: str, folder: Path):
    """Write the model of a method to ``folder``; network and card."""
    net, card = make_model(method)
    write_exported(folder, net, card, TOKENIZER, f"# {method}\n")
    return net, card


def make_documents(layout: Layout, count: int = 3, seed: int = 0) -> list[Document]:
    """Documents of random text, each segment closed by its end token or cut at its cap."""
    rng = np.random.default_rng(seed)

    def segment(name: str, cap: int) -> list[int]:
        ids = rng.integers(0, TOKENIZER.fill_id, rng.integers(1, cap + 1)).tolist()
        return ids if len(ids) == cap and name != "question" else [*ids[: cap - 1], end[name]]

    end = TOKENIZER.end_ids
    return [
        build_document(
            segment("question", layout.question_len),
            {s.name: segment(s.name, s.max_len) for s in layout.segments},
            layout,
            TOKENIZER.fill_id,
        )
        for _ in range(count)
    ]


def make_batch(card: ModelCard, seed: int = 0):
    """A training batch of the method's objective."""
    objective = build_objective(card.objective, card.layout, TOKENIZER.mask_id, card.model)
    documents = make_documents(card.layout, seed=seed)
    return objective.assemble(
        documents, objective.training_noise(documents, np.random.default_rng(seed))
    )
