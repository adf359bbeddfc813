"""Lightning module, data module, callbacks, optimiser."""
