"""The parts of a checkpoint tree that a task brings, checked.

>>> import keras
>>> from trainer.model import tree_parts
>>> mean = keras.metrics.Mean()
>>> len(tree_parts.trackable("mean", mean))
2
>>> tree_parts.metrics({"some": [mean]}) == [mean]
True
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.compat import tracking
from trainer.task import TaskError


def trackable(name: str, given: Any) -> Any:
    """A task's own state as what `tf.train.Checkpoint` can save.

    Raises:
      task.TaskError: it can't be saved.
    """
    if isinstance(given, keras.metrics.Metric):
        return list(given.variables)
    if isinstance(given, list | tuple):
        return [trackable(name, one) for one in given]
    if not tracking.is_trackable(given):
        raise TaskError(
            f"state() gives {name!r} as {type(given).__name__}, which no checkpoint "
            "can hold; give variables, layers, metrics or other trackables."
        )
    return given


def metrics(given: Any) -> list[keras.metrics.Metric]:
    """The metrics in what `Task.state` gave."""
    if isinstance(given, keras.metrics.Metric):
        return [given]
    if isinstance(given, Mapping):
        given = list(given.values())
    if isinstance(given, list | tuple):
        return [metric for one in given for metric in metrics(one)]
    return []


def own_parts(given: Mapping[str, Any], *, metrics_too: bool = True) -> dict[str, Any]:
    """What `Task.state` gave, as a checkpoint saves it; with its metrics or without.

    Raises:
      task.TaskError: something can't be saved.
    """
    return {
        name: trackable(name, one)
        for name, one in given.items()
        if metrics_too or not metrics(one)
    }


def add(children: dict[str, Any], name: str, child: Any) -> None:
    """Gives the tree one more part.

    Raises:
      task.TaskError: it has one of that name.
    """
    if name in children:
        raise TaskError(
            f"a network or optimizer can't be called {name!r}: the state has a part of "
            f"that name already; taken are {', '.join(children)}."
        )
    children[name] = child


def check_shapes(variables: Mapping[str, tf.Variable]) -> None:
    """Each variable must have one shape for good: it is written into each manifest.

    Raises:
      task.TaskError: one hasn't.
    """
    for name, variable in variables.items():
        if not variable.shape.is_fully_defined():
            raise TaskError(
                f"the variable {name} has the shape {variable.shape}, which may change "
                "from step to step; expected a shape that is known from the start. "
                "Make it without shape=: tf.Variable(initial_value)."
            )
