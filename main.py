#!/usr/bin/env python
"""Train, evaluate and sample: ``python main.py mode=train model=tiny ...`` (see README.md)."""

from hbd3lm.commands.run import main

if __name__ == "__main__":
    main()
