"""What a task gives by name: its networks, its losses, its step.

>>> from trainer.model import contract
>>> contract.loss_of("optimizer"), contract.loss_of("critic")
('loss', 'critic_loss')
>>> contract.is_value_name("top-5"), contract.is_value_name("top/5")
(True, False)
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from trainer.task import Task, TaskError

_VALUE_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


def network_items(networks: Any) -> dict[str, keras.Model]:
    """Several networks by name; a single one is called `model`."""
    return dict(networks) if isinstance(networks, Mapping) else {"model": networks}


def loss_of(optimizer: str) -> str:
    """The name of the value that the optimizer of that name minimises."""
    return "loss" if optimizer == "optimizer" else f"{optimizer}_loss"


def is_value_name(name: str) -> bool:
    """Whether a value or a prediction may be called that: it becomes a file name."""
    return bool(_VALUE_NAME.fullmatch(name))


def own_step(task: Task) -> bool:
    """Whether a task says itself what a step of training is."""
    return type(task).step is not Task.step


def check_methods(task: Task) -> None:
    """No field of a task may take the place of a method of `Task`.

    Raises:
      TaskError: one does.
    """
    methods = [name for name, one in vars(Task).items() if inspect.isfunction(one)]
    for name in methods:
        if not callable(getattr(task, name)):
            raise TaskError(
                f"{type(task).__name__} has a field {name!r}, which is the name of a "
                "method of every task. Give the field another name."
            )


def check_losses(
    task: Task, optimizers: Iterable[str], value_names: Iterable[str]
) -> None:
    """Each optimizer needs the value that it minimises.

    Raises:
      task.TaskError: `task.values` doesn't give one.
    """
    given = list(value_names)
    for name in optimizers:
        if loss_of(name) not in given:
            raise TaskError(
                f"{type(task).__name__}.values() gives no {loss_of(name)!r}, "
                f"which the optimizer {name!r} minimises; it gives "
                f"{', '.join(given)}."
            )
