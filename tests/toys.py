"""Toy networks and documents: tiny, random, deterministic."""

from __future__ import annotations

import numpy as np
import torch

from hbd3lm.model.config import ModelConfig
from hbd3lm.model.layout import Document, Layout, build_document
from hbd3lm.model.transformer import Transformer

VOCABULARY = 12
MASK = VOCABULARY - 1
FILL = 7


def toy_net(seed: int = 0, **changes) -> Transformer:
    """A network whose every weight is random, so that nothing is zero by initialisation."""
    values = {"vocab_size": VOCABULARY, "dim": 16, "n_layers": 2, "n_heads": 2} | changes
    torch.manual_seed(seed)
    net = Transformer(ModelConfig(**values))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.5 if parameter.shape[-1] <= 16 else 0.25)
    return net.eval()


def random_documents(layout: Layout, count: int, seed: int = 0) -> list[Document]:
    """Documents of random lengths within the layout's caps; ids avoid fill and mask."""
    rng = np.random.default_rng(seed)

    def ids(limit: int) -> np.ndarray:
        return rng.integers(0, FILL, size=rng.integers(1, limit + 1))

    return [
        build_document(
            ids(layout.question_len),
            {s.name: ids(s.max_len) for s in layout.segments},
            layout,
            FILL,
        )
        for _ in range(count)
    ]
