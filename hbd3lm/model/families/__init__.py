"""Checkpoints of other programs: how their configuration and weights become ours."""
