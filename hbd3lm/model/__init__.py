"""Segment layout, the one mask rule, the transformer, checkpoints. Knows tensors, no text."""
