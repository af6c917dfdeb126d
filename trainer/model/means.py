"""Values of a batch, and their means: over examples, or over what weights say.

>>> import tensorflow as tf
>>> from trainer.model import means
>>> plain = means.Value(tf.constant([1.0, 2.0]))
>>> weighted = means.Value.weighted(tf.constant([[3.0, 9.0]]), tf.constant([[1.0, 0]]))
>>> float(means.loss(plain)), float(means.loss(weighted))
(1.5, 3.0)

A sum of values and a sum of weights are kept apart until the end, so a mean over a
split is the same however it was cut into batches.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf

from trainer.compat import autograph
from trainer.task import TaskError

Sums = dict[str, tf.Tensor]

EXAMPLES = "examples"
_WEIGHT = "/weight"  # no value has a slash in its name
_MARK = "the weight of"
_SHAPE = "the shape of the weight of"


class Value(NamedTuple):
    """One value of a batch.

    Attributes:
      total: `[B]`; with a weight `[B, ...]`, the value times its weight.
      weight: of the same shape; None: each example counts once.
    """

    total: tf.Tensor
    weight: tf.Tensor | None = None

    @classmethod
    def weighted(cls, value: tf.Tensor, weight: tf.Tensor) -> Value:
        """A value `[B, ...]` and its weights; where a weight is 0, even NaN is 0."""
        if value.dtype.size < tf.float32.size:
            value = tf.cast(value, tf.float32)  # sums of many would not fit
        weight = tf.cast(weight, value.dtype)
        return cls(tf.math.multiply_no_nan(value, weight), weight)

    def plus(self, penalty: tf.Tensor) -> Value:
        """With a number that is added to the mean."""
        penalty = tf.cast(penalty, self.total.dtype)
        if self.weight is None:
            return Value(self.total + penalty)
        return Value(self.total + penalty * self.weight, self.weight)


def loss(value: Value) -> tf.Tensor:
    """The mean over a batch; 0, with zero gradients, where nothing in it counts."""
    if value.weight is None:
        return tf.reduce_mean(value.total)
    return tf.math.divide_no_nan(
        tf.reduce_sum(value.total), tf.reduce_sum(value.weight)
    )


def sum_names(values: Mapping[str, Value]) -> tuple[str, ...]:
    """What is summed up: each value, the weight of each that has one, examples."""
    names = sorted(values)
    weighted = [name for name in names if values[name].weight is not None]
    return (*names, *(name + _WEIGHT for name in weighted), EXAMPLES)


@autograph.unconverted
def added(sums: Sums, values: Mapping[str, Value]) -> Sums:
    """The sums with one more batch, in double precision."""
    first = next(iter(values.values())).total
    rows = first.shape[0]
    more = {}
    for name, value in values.items():
        total = tf.reduce_sum(tf.cast(value.total, tf.float64))
        if value.weight is not None:
            weight = tf.reduce_sum(tf.cast(value.weight, tf.float64))
            more[name + _WEIGHT] = sums[name + _WEIGHT] + weight
        elif rows is None or value.total.shape[0] != rows:  # of one of several sources
            total *= tf.math.divide_no_nan(_rows(first), _rows(value.total))
        more[name] = sums[name] + total
    more[EXAMPLES] = sums[EXAMPLES] + _rows(first)
    return more


@autograph.unconverted
def _rows(total: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.shape(total)[0], tf.float64)


def of_sums(sums: Mapping[str, float]) -> dict[str, float]:
    """The mean of each value; NaN where nothing counted."""
    counts = _counts(sums)
    return {
        name: sums[name] / count if count else math.nan
        for name, count in counts.items()
    }


def uncounted(sums: Mapping[str, float]) -> list[str]:
    """The values of which nothing counted."""
    return [name for name, count in _counts(sums).items() if not count]


def _counts(sums: Mapping[str, float]) -> dict[str, float]:
    """By value, how much counted."""
    return {
        name: sums.get(name + _WEIGHT, sums[EXAMPLES])
        for name in sums
        if name != EXAMPLES and not name.endswith(_WEIGHT)
    }


def checked_weight(
    owner: str, name: str, value: tf.Tensor, weight: tf.Tensor
) -> tf.Tensor:
    """The weight of a value; in the graph, it is looked at in each batch.

    Args:
      owner: the method that gives it.
      name: of the value.
      value: `[B, ...]`.
      weight: `[B, ...]`, of numbers or booleans.
    """
    if not (value.shape.is_fully_defined() and weight.shape.is_fully_defined()):
        shapes = tf.shape(value), tf.shape(weight)
        told = [f"{_SHAPE} {owner} {name}", *map(tf.strings.as_string, shapes)]
        same = tf.reduce_all(tf.equal(*shapes))  # nothing is broadcast
        with tf.control_dependencies([_asserted(same, told)]):
            weight = tf.identity(weight)
    if weight.dtype.is_bool:
        return weight
    bad = weight < 0
    if weight.dtype.is_floating:
        bad |= ~tf.math.is_finite(weight)
    told = [f"{_MARK} {owner} {name}", tf.boolean_mask(weight, bad)[:1]]
    good = ~tf.reduce_any(bad)
    with tf.control_dependencies([_asserted(good, told)]):
        return tf.identity(weight)


def _asserted(condition: tf.Tensor, told: Iterable[object]) -> tf.Operation:
    operation = tf.raw_ops.Assert(condition=condition, data=list(told), summarize=8)
    return tf.no_op() if operation is None else operation  # executed eagerly


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Tells of weights that can't be any.

    Raises:
      task.TaskError: a weight is negative or not finite, or of another shape.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        shapes = re.search(rf"\[{_SHAPE} (\S+) (\S+)\] (\[.*?\]) (\[.*?\])", f"{error}")
        if shapes:
            owner, name, one, other = shapes.groups()
            raise TaskError(
                f"{owner} gives {name!r} in the shape {one} and a weight in "
                f"the shape {other}. Expected one shape for both. Say how much each "
                "number counts: tf.broadcast_to(weight, tf.shape(value))."
            ) from None
        found = re.search(rf"\[{_MARK} (\S+) (\S+)\] \[+([^\]\s]*)", str(error))
        if found is None:
            raise
        owner, name, weight = found.groups()
        raise TaskError(
            f"{owner} gives {name!r} a weight of {weight}. Expected weights "
            "that are finite and at least 0. Leave out what should not count with a "
            f'weight of 0: {{"{name}": (value, tf.maximum(weight, 0.0))}}.'
        ) from None
