"""Engines by name."""

from __future__ import annotations

from typing import Any

from hbd3lm.plans.engines.engine import Engine
from hbd3lm.plans.registry import build_by_name

_REGISTRY: dict[str, str] = {
    "vllm": "hbd3lm.plans.engines.vllm:VLLMEngine",
    "openai": "hbd3lm.plans.engines.openai:OpenAIEngine",
    "llamacpp": "hbd3lm.plans.engines.llamacpp:LlamaCppEngine",
    "transformers": "hbd3lm.plans.engines.transformers:TransformersEngine",
}

ENGINES: tuple[str, ...] = tuple(_REGISTRY)


def load_engine(name: str, **options: Any) -> Engine:
    """The engine called ``name``, its model loaded or its server asked, ready for requests.

    Args:
        options: keywords of the engine's constructor.

    Raises:
        UserError: no such engine, an option it does not have, a missing one, an engine that is
            not installed, or a model or server it cannot use.
    """
    return build_by_name("engine", _REGISTRY, name, options)
