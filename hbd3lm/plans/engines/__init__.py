"""Language models that write plans: one module an engine, all behind ``engine.Engine``."""
