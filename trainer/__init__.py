"""Keepstep: training with your own step, kept exactly.

The modules are the API: `from trainer import task, data`. `loop` tells the story of a
run and is the first one to read; BUILD.md draws the whole house.
"""

__version__ = "0.1.0"
