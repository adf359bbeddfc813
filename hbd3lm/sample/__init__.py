"""Blockwise samplers over a key-value cache of the clean past."""
