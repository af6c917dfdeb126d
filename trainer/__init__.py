"""Keepstep: training with your own step, resumed exactly, the best kept.

    >>> import trainer
    >>> from line import Line                      # a task of yours: see `trainer.Task`
    >>> trainer.train(Line(), run_dir="runs/mine", steps=5, progress="none").step
    5
    >>> sorted(trainer.evaluate("runs/mine", task=Line()))
    ['loss']

`training/loop.py` tells the story of a run and is the first file to read; BUILD.md
draws the whole house. TensorFlow is imported when something here first needs it.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Hook",
    "Keeper",
    "KeeperCallback",
    "KeepstepError",
    "Task",
    "__version__",
    "evaluate",
    "export",
    "predict",
    "register",
    "restore_weights",
    "train",
]
# Where each public name lives; `__init__.pyi` has the types. The modules for authors of
# tasks are `task`, `data` and `figures`; `hooks` has ready ones.
_HOMES = {
    "Hook": "trainer.reporting.hook",
    "Keeper": "trainer.checkpoint.keeper",
    "KeeperCallback": "trainer.checkpoint.fit_callback",
    "KeepstepError": "trainer.base.errors",
    "Task": "trainer.task",
    "__version__": "trainer.base.version",
    "evaluate": "trainer.commands.functions",
    "export": "trainer.commands.functions",
    "predict": "trainer.commands.functions",
    "register": "trainer.task",
    "restore_weights": "trainer.inference.restore",
    "train": "trainer.commands.functions",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "hooks":
        return importlib.import_module("trainer.reporting.hooks")
    if name == "restore":  # `from trainer import restore`, as 0.1.0 had it
        return importlib.import_module("trainer.inference.restore")
    raise AttributeError(f"module 'trainer' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *globals()])
