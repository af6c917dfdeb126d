"""Keepstep: training with your own step, kept exactly.

The modules are the API: `from trainer import task, data`. `training/loop.py` tells the
story of a run and is the first file to read; BUILD.md draws the whole house.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`from trainer import restore`, as the README of 0.1.0 has it."""
    if name == "restore":
        return importlib.import_module("trainer.inference.restore")
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")
