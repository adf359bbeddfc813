"""Hierarchical BD3-LM: plan-then-execute block-diffusion language models for math problems."""

__version__ = "0.1.0"
