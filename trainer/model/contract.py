"""What a task gives, checked: its networks and optimizers by name, its values.

>>> from trainer.model import contract
>>> contract.loss_of("optimizer"), contract.loss_of("critic")
('loss', 'critic_loss')
>>> contract.is_value_name("top-5"), contract.is_value_name("top/5")
(True, False)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.compat import autograph
from trainer.model import dtypes, lookups
from trainer.model.means import EXAMPLES, Value, checked_weight
from trainer.task import Batch, Task, TaskError

_VALUE_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


def network_items(networks: Any) -> dict[str, keras.Model]:
    """Several networks by name; a single one is called `model`."""
    return dict(networks) if isinstance(networks, Mapping) else {"model": networks}


def optimizer_items(optimizers: Any) -> dict[str, keras.optimizers.Optimizer]:
    """Several optimizers by name; a single one is called `optimizer`."""
    if isinstance(optimizers, Mapping):
        return dict(optimizers)
    return {"optimizer": optimizers}


def loss_of(optimizer: str) -> str:
    """The name of the value that the optimizer of that name minimises."""
    return "loss" if optimizer == "optimizer" else f"{optimizer}_loss"


def is_value_name(name: str) -> bool:
    """Whether a value or a prediction may be called that: it becomes a file name."""
    return bool(_VALUE_NAME.fullmatch(name))


def checked_values(
    task: Task, networks: Any, batch: Batch, training: bool
) -> dict[str, Value]:
    """`task.values`, complete with the networks' own losses, as the contract says.

    Raises:
      TaskError: a value is not one number an example, nor a value with its weight, or
        has an unusable name; whole numbers meet floats; or it looks a name up
        that the batch does not have.
    """
    values = {}
    first = next(iter(batch.values()))
    # Of several sources, each value has the size of any of them.
    size = None if isinstance(first, Mapping) else first.shape[0]
    name = type(task).__name__
    where = "a batch of training" if training else "a batch of an evaluation"
    looking = lookups.told(f"{name}.values()", batch, where)
    with dtypes.told(name, batch), looking:
        given = autograph.converted(task.values)(networks, batch, training)
    for name, value in given.items():
        _check_name(task, name)
        if isinstance(value, tuple):
            values[name] = _weighted(task, name, value, size)
        else:
            values[name] = Value(_single(task, name, value, size))
    own = [loss for net in network_items(networks).values() for loss in net.losses]
    if own:
        penalty = tf.add_n([tf.cast(loss, tf.float32) for loss in own])
        for name in values:
            if name == "loss" or name.endswith("_loss"):
                values[name] = values[name].plus(penalty)
    return values


def _check_name(task: Task, name: str) -> None:
    if not is_value_name(name):
        raise TaskError(
            f"{type(task).__name__}.values() returns {name!r}: a name becomes a "
            "directory, so use letters, digits, '_', '-' and '.'."
        )
    if name == EXAMPLES:
        raise TaskError(
            f"{type(task).__name__}.values() returns 'examples', which is what the "
            "framework calls their count. Choose another name."
        )


def _single(task: Task, name: str, value: Any, size: int | None) -> tf.Tensor:
    """One value as a tensor `[size]` of floats."""
    value = _numbers(task, name, value, size)
    if not value.shape.is_compatible_with([size]):
        raise TaskError(
            f"{type(task).__name__}.values() returns {name!r} with shape "
            f"{value.shape}; expected one number an example, shape [{size}]. "
            "Leave the mean over the batch to the framework, and take it over "
            f'the other dimensions, or say what counts: {{"{name}": (value, weight)}}.'
        )
    return _floats(tf.ensure_shape(value, [size]))


def _weighted(task: Task, name: str, given: tuple[Any, ...], size: int | None) -> Value:
    """A value and its weight, both `[size]` or both `[size, ...]`."""
    shown = f"{type(task).__name__}.values() returns {name!r}"
    if len(given) != 2:
        raise TaskError(
            f"{shown} as a tuple of {len(given)}; expected a value and its weight: "
            f'{{"{name}": (value, weight)}}.'
        )
    value, weight = (_numbers(task, name, one, size) for one in given)
    shape = value.shape
    known = shape.rank is not None and weight.shape.rank is not None
    if not known or not shape.is_compatible_with(weight.shape) or not shape.rank:
        raise TaskError(
            f"{shown} with shape {shape} and a weight of shape {weight.shape}; "
            f"expected one shape for both, [{size}] or [{size}, ...]. Say how much "
            "each number counts: tf.broadcast_to(weight, tf.shape(value))."
        )
    if not shape[:1].is_compatible_with([size]):
        raise TaskError(
            f"{shown} with shape {shape} and a weight; expected [{size}] or "
            f"[{size}, ...], one row an example. Leave the sum over the batch to the "
            "framework."
        )
    value = tf.ensure_shape(value, [size, *shape[1:]])
    weight = checked_weight(type(task).__name__, name, value, weight)
    return Value.weighted(_floats(value), weight)


def _numbers(task: Task, name: str, value: Any, size: int | None) -> tf.Tensor:
    """A tensor of numbers; `[size, 1]` becomes `[size]`."""
    value = tf.convert_to_tensor(value)
    if not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        raise TaskError(
            f"{type(task).__name__}.values() returns {name!r} as "
            f"{value.dtype.name}; expected numbers."
        )
    column = value.shape.rank == 2 and value.shape[1] == 1
    if column and value.shape[:1].is_compatible_with([size]):
        return tf.squeeze(value, 1)
    return value


def _floats(value: tf.Tensor) -> tf.Tensor:
    """Integers and booleans, such as "the answer was right", have a mean as well."""
    return value if value.dtype.is_floating else tf.cast(value, tf.float32)


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
