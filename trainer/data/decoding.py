"""`Task.decode`: run on examples, and told with the example that it fails at.

>>> from line import Line
>>> from trainer.data import decoding
>>> decoding.decodes(Line())
False
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.compat import autograph
from trainer.data import failures
from trainer.data.failures import SourceError
from trainer.data.indexed import Indexed
from trainer.data.random import augmentation_seeds
from trainer.task import Task, TaskError
from trainer.task.given import at_step


def decodes(task: Task) -> bool:
    """Whether a task says how an example is decoded."""
    return type(task).decode is not Task.decode


def decode(
    task: Task, example: Any, seed: tf.Tensor, number: Any
) -> dict[str, tf.Tensor]:
    """An example as `Task.decode` gives it.

    Args:
      task: that decodes.
      example: of its source, by name.
      seed: int32 `[2]`.
      number: of the step that the example is for, int64 scalar.

    Raises:
      task.TaskError: it gives no tensors by name.
    """
    with at_step(number):
        given = autograph.converted(task.decode)(example, seed)
    if not isinstance(given, Mapping) or not given:
        raise TaskError(
            f"{type(task).__name__}.decode() returns {type(given).__name__}; expected "
            'tensors by name: return {"image": image, "label": example["label"]}.'
        )
    return {key: tf.convert_to_tensor(one) for key, one in given.items()}


@autograph.unconverted
def decoded(task: Task, given: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """The examples of a dataset, each through `Task.decode` if the task has it."""
    if not decodes(task):
        return given

    def one(number: tf.Tensor, example: Any) -> Any:
        (own,) = tf.unstack(augmentation_seeds(seed, number[None]), num=1)
        return autograph.converted(task.decode)(example, own)

    return given.enumerate().map(one, tf.data.AUTOTUNE, True)


def failing(
    task: Task, source: Indexed, indices: tf.Tensor, seeds: tf.Tensor, number: Any
) -> SourceError | None:
    """The first of some examples that can't be read or decoded, as an error.

    Args:
      task: that decodes.
      source: of the examples.
      indices: int64 `[B]`.
      seeds: int32 `[B, 2]`.
      number: of the step that they are for.
    """
    for index, seed in zip(indices.numpy().tolist(), seeds, strict=True):
        try:
            with at_step(number):
                task.decode(source.example(index), seed)
        except SourceError as error:
            return error
        except tf.errors.OpError as error:
            return _told(source.named(index), error)
    return None


def _told(name: str, error: tf.errors.OpError) -> SourceError:
    line = failures.place(error.__traceback__)
    return SourceError(
        f"{name} can't be decoded: {type(error).__name__}: {failures.plain(error)}"
        f"{f' ({line})' if line else ''}. Expected that decode(self, example, seed) "
        "takes every example. Mend this one, or leave it out of the source."
    )
