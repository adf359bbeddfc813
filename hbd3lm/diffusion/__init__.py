"""Noise schedules, corruption q(x_t | x_0) and the NELBO. Knows a model as a callable."""
