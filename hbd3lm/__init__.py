"""Hierarchical BD3-LM: plan-then-execute block-diffusion language models for math problems."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """``HBD3LM``, loaded when it is asked for: the package itself imports nothing."""
    if name == "HBD3LM":
        from hbd3lm.pretrained import HBD3LM

        return HBD3LM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
