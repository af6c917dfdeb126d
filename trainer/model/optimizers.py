"""The optimizers of a task, and the variables that each trains.

>>> import keras
>>> from trainer.model import optimizers
>>> shared = keras.layers.Dense(1)
>>> networks = {
...     name: keras.Sequential([keras.layers.Input([2]), shared]) for name in "ab"
... }
>>> [one.name for one in optimizers.variables("optimizer", None, networks)]
['kernel', 'bias']
>>> [one.name for one in optimizers.variables("x", ["a", shared.bias], networks)]
['kernel', 'bias']
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainer.task import Task, TaskError

_LINE = '{"encoder": (keras.optimizers.Adam(1e-3), [networks["encoder"]])}'


class Given(NamedTuple):
    """What a task says of one optimizer.

    Attributes:
      optimizer: a fresh one.
      over: what it trains, as the task says it; None: its name says it.
    """

    optimizer: keras.optimizers.Optimizer
    over: Any = None


def given(task: Task, networks: Any) -> dict[str, Given]:
    """The optimizers of a task by name; a single one is called `optimizer`.

    Raises:
      task.TaskError: one of them is no optimizer of Keras.
    """
    takes_networks = bool(inspect.signature(task.optimizers).parameters)
    # The base class promises no networks; who needs them asks for them.
    every: Any = task.optimizers(*([networks] if takes_networks else []))
    if not isinstance(every, Mapping):
        every = {"optimizer": every}
    return {name: _given(task, name, one) for name, one in every.items()}


def _given(task: Task, name: str, one: Any) -> Given:
    optimizer, over = one if isinstance(one, tuple) and len(one) == 2 else (one, None)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TaskError(
            f"{type(task).__name__}.optimizers() gives {name!r} as "
            f"{_shown(optimizer)}; expected an optimizer of Keras, or one with what it "
            f"trains. Make one: keras.optimizers.Adam(1e-3), or {_LINE}."
        )
    return Given(optimizer, over)


def variables(
    name: str,
    over: Any,
    networks: Mapping[str, keras.Model],
    state: Mapping[str, Any] | None = None,
) -> list[Any]:
    """The variables that an optimizer trains, each once.

    Args:
      name: of the optimizer.
      over: what the task says that it trains; None: its name says it.
      networks: by name, built.
      state: what the task gives as its own state, by name.

    Raises:
      task.TaskError: there is nothing of its name, or nothing to train.
    """
    if over is not None:
        listed = list(_found(name, over, networks, state or {}))
    elif name == "optimizer":
        listed = [v for one in networks.values() for v in one.trainable_variables]
    elif name in networks:
        listed = list(networks[name].trainable_variables)
    else:
        raise TaskError(
            f"there is no network for the optimizer {name!r}; the networks are "
            f"{', '.join(networks)}. Give both one name, or say what it trains: "
            f'{{"{name}": (optimizer, ["{next(iter(networks))}"])}}.'
        )
    if over is not None and not listed:
        raise TaskError(
            f"the optimizer {name!r} has nothing to train: what stands beside it has "
            "no trainable variables. Expected networks, layers or variables. Give what "
            "is built and not frozen."
        )
    # A layer that two networks share would be listed, and moved, twice.
    return list({id(variable): variable for variable in listed}.values())


def _found(
    name: str, over: Any, networks: Mapping[str, Any], state: Mapping[str, Any]
) -> Iterator[Any]:
    """The variables in what a task says."""
    if isinstance(over, keras.Variable | tf.Variable):
        yield over
    elif isinstance(over, str):
        if over not in networks and over not in state:
            raise TaskError(
                f"the optimizer {name!r} shall train {over!r}; there are the networks "
                f"{', '.join(networks)}"
                f"{' and the state ' if state else ''}{', '.join(state)}. "
                "Expected one of these names, or the object itself."
            )
        yield from _found(name, {**state, **networks}[over], networks, state)
    elif isinstance(over, Mapping):
        yield from _found(name, list(over.values()), networks, state)
    elif isinstance(over, list | tuple):
        for one in over:
            yield from _found(name, one, networks, state)
    elif hasattr(over, "trainable_variables"):
        yield from over.trainable_variables
    else:
        raise TaskError(
            f"the optimizer {name!r} shall train {_shown(over)}; expected networks, "
            f"layers, variables, or names of networks: {_LINE}."
        )


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else type(value).__name__
