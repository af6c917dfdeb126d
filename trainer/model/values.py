"""What `Task.values` and `Task.step` give of a batch, checked.

>>> import keras, tensorflow as tf
>>> from line import Line
>>> from trainer.model import values
>>> network = keras.Sequential([keras.layers.Dense(1)])
>>> batch = {"x": tf.ones([3, 1]), "y": tf.ones([3, 1])}
>>> values.checked_values(Line(), network, batch, training=True)["loss"].total.shape
TensorShape([3])
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from trainer.compat import autograph
from trainer.model import dtypes, lookups
from trainer.model.contract import is_value_name, network_items
from trainer.model.means import EXAMPLES, Value, checked_weight
from trainer.task import Batch, Optimization, Task, TaskError


def checked_values(
    task: Task,
    networks: Any,
    batch: Batch,
    training: bool,
    measured: Collection[str] = (),
) -> dict[str, Value]:
    """`task.values`, complete with the networks' own losses, as the contract says.

    Args:
      task: whose values.
      networks: what `task.networks()` gave.
      batch: tensors `[B, ...]` by name.
      training: whether this is a training step.
      measured: the names of the task's metrics; what they are given is left out.

    Raises:
      TaskError: a value is not one number an example, nor a value with its weight, or
        has an unusable name; whole numbers are computed with floats.
    """
    return means_and_measured(task, networks, batch, training, measured)[0]


def means_and_measured(
    task: Task,
    networks: Any,
    batch: Batch,
    training: bool,
    measured: Collection[str] = (),
) -> tuple[dict[str, Value], dict[str, tuple[Any, ...]]]:
    """`checked_values`, and by name what is given to the task's metrics."""
    size, where = _size(batch), f"{type(task).__name__}.values()"
    kind = "a batch of training" if training else "a batch of an evaluation"
    with dtypes.told(type(task).__name__, batch), lookups.told(where, batch, kind):
        given = autograph.converted(task.values)(networks, batch, training)
    _check_named(where, given)
    apart = {name: given[name] for name in measured if name in given}
    values = {
        name: checked_value(where, name, one, size)
        for name, one in given.items()
        if name not in apart
    }
    own = [loss for net in network_items(networks).values() for loss in net.losses]
    if own:
        penalty = tf.add_n([tf.cast(loss, tf.float32) for loss in own])
        for name in values:
            if name == "loss" or name.endswith("_loss"):
                values[name] = values[name].plus(penalty)
    return values, {k: v if isinstance(v, tuple) else (v,) for k, v in apart.items()}


def checked_step(
    task: Task, networks: Any, batch: Batch, optimize: Optimization
) -> dict[str, Value]:
    """`task.step`, and what it gives, checked like values; a number is of all rows.

    Raises:
      TaskError: as for `checked_values`.
    """
    found, where, size = {}, f"{type(task).__name__}.step()", _size(batch)
    looking = lookups.told(where, batch, "a batch of training")
    with dtypes.told(type(task).__name__, batch), looking:
        given = autograph.converted(task.step)(networks, batch, optimize)
    _check_named(where, given)
    for name, one in given.items():
        if not isinstance(one, tuple):
            one = tf.convert_to_tensor(one)
            if one.shape.rank == 0:
                one = tf.fill([1 if size is None else size], one)
        found[name] = checked_value(where, name, one, size)
    return found


def checked_value(where: str, name: str, value: Any, size: int | None) -> Value:
    """One value of a batch, checked.

    Args:
      where: the method that gives it, for messages.
      name: of the value.
      value: `[size]`, `[size, 1]`, or a value and its weight.
      size: rows of the batch; None: any.

    Raises:
      TaskError: it is none.
    """
    _check_name(where, name)
    if isinstance(value, Value):
        return value
    if isinstance(value, tuple):
        return _weighted(where, name, value, size)
    return Value(_single(where, name, value, size))


def _size(batch: Batch) -> int | None:
    """The rows of a batch; of several sources, each value has the size of any."""
    first = next(iter(batch.values()))
    return None if isinstance(first, Mapping) else first.shape[0]


def _check_named(where: str, given: Any) -> None:
    if not isinstance(given, Mapping) or not given:
        empty = isinstance(given, Mapping)
        shown = "an empty dict" if empty else type(given).__name__
        raise TaskError(
            f"{where} returns {shown}; expected losses and metrics by name, one number "
            'an example. Name them: return {"loss": losses}.'
        )


def _check_name(where: str, name: str) -> None:
    if not is_value_name(name):
        raise TaskError(
            f"{where} returns {name!r}: a name becomes a "
            "directory, so use letters, digits, '_', '-' and '.'."
        )
    if name == EXAMPLES:
        raise TaskError(
            f"{where} returns 'examples', which is what the "
            "framework calls their count. Choose another name."
        )


def _single(where: str, name: str, value: Any, size: int | None) -> tf.Tensor:
    """One value as a tensor `[size]` of floats."""
    value = _numbers(where, name, value, size)
    if not value.shape.is_compatible_with([size]):
        raise TaskError(
            f"{where} returns {name!r} with shape "
            f"{value.shape}; expected one number an example, shape [{size}]. "
            "Leave the mean over the batch to the framework, and take it over "
            f'the other dimensions, or say what counts: {{"{name}": (value, weight)}}.'
        )
    return _floats(tf.ensure_shape(value, [size]))


def _weighted(where: str, name: str, given: tuple[Any, ...], size: int | None) -> Value:
    """A value and its weight, both `[size]` or both `[size, ...]`."""
    shown = f"{where} returns {name!r}"
    if len(given) != 2:
        raise TaskError(
            f"{shown} as a tuple of {len(given)}; expected a value and its weight: "
            f'{{"{name}": (value, weight)}}.'
        )
    value, weight = (_numbers(where, name, one, size) for one in given)
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
    weight = checked_weight(where, name, value, weight)
    return Value.weighted(_floats(value), weight)


def _numbers(where: str, name: str, value: Any, size: int | None) -> tf.Tensor:
    """A tensor of numbers; `[size, 1]` becomes `[size]`."""
    value = tf.convert_to_tensor(value)
    if not (value.dtype.is_floating or value.dtype.is_integer or value.dtype.is_bool):
        raise TaskError(
            f"{where} returns {name!r} as {value.dtype.name}; expected numbers."
        )
    column = value.shape.rank == 2 and value.shape[1] == 1
    if column and value.shape[:1].is_compatible_with([size]):
        return tf.squeeze(value, 1)
    return value


def _floats(value: tf.Tensor) -> tf.Tensor:
    """Integers and booleans, such as "the answer was right", have a mean as well."""
    return value if value.dtype.is_floating else tf.cast(value, tf.float32)
