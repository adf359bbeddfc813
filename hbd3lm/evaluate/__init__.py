"""Perplexity, answer accuracy, abstraction of the model's own plans, speed."""
