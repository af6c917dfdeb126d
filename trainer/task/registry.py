"""Tasks by the names that the command line knows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trainer.task.given import TaskError
from trainer.task.task import Task

T = TypeVar("T", bound=type[Task])
_registered: dict[str, type[Task]] = {}


def register(name: str) -> Callable[[T], T]:
    """Class decorator: the task is found as `--task=name`.

    >>> import trainer
    >>> from line import Line
    >>> @trainer.register("steep")
    ... class Steep(Line):
    ...     best = ("loss:min:3",)
    """

    def decorate(cls: T) -> T:
        if name in _registered and _registered[name].__module__ != cls.__module__:
            raise TaskError(
                f"two tasks are called {name!r}: {_registered[name].__module__} and "
                f"{cls.__module__}. Give one of them another name."
            )
        _registered[name] = cls
        return cls

    return decorate


def registered() -> dict[str, type[Task]]:
    """The tasks registered so far, by name."""
    return dict(sorted(_registered.items()))
