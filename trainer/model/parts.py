"""The data and the state of a task, built: training begins here, and so does inference.

>>> from line import Line
>>> from trainer.model import parts
>>> sources = parts.seeded_sources(Line(), seed=0)
>>> inputs, state, spec = parts.build(
...     Line(), sources, batch_size=4, seed=0, ema=0.0
... )
>>> state.networks.count_params()
2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import keras
import tensorflow as tf

from trainer import data
from trainer.data import specs
from trainer.data.inputs import Input, training
from trainer.data.splits import taken
from trainer.model import building, state
from trainer.task import Task, TaskError


@final
class Sources(dict[str, Any]):
    """The data of a task by split, ready to be read.

    Attributes:
      given: what the task itself gave.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__({name: taken(one, name) for name, one in given.items()})
        self.given = given


def seeded_sources(task: Task, seed: int) -> Sources:
    """The task's data; what it draws at random without a seed depends on `seed`.

    Raises:
      data.DataError: a split is nothing that can be read.
      task.TaskError: there are no splits.
    """
    keras.utils.set_random_seed(seed)
    given = task.sources()
    if not isinstance(given, Mapping):
        raise TaskError(
            f"{type(task).__name__}.sources() returns {type(given).__name__}; expected "
            'the data by split: return {"train": ..., "valid": ...}.'
        )
    return Sources(given)


def build(
    task: Task,
    sources: Mapping[str, Any],
    *,
    batch_size: int,
    seed: int,
    ema: float,
) -> tuple[Input, state.State, Any]:
    """The batches that training sees, and the state that it moves.

    Args:
      task: gives the parts.
      sources: of the task, by split.
      batch_size: examples per step.
      seed: of weights, order, augmentation and dropout.
      ema: the decay of a moving average of the weights; 0: none is kept.

    Returns:
      These two, and the outline of a batch.

    Raises:
      data.DataError: there is no split `train`.
    """
    examples = data.split(sources, "train")
    inputs = training(task, examples, batch_size=batch_size, seed=seed)
    seen: list[Any] = []

    def batch(step: tf.Tensor) -> Any:
        found = inputs.batch(step)
        seen.append(specs.of(found))
        return found

    built = building.build(task, batch, seed=seed, iterator=inputs.iterator, ema=ema)
    return inputs, built, seen[-1]


def without_data(task: Task, spec: Any, *, seed: int, ema: float) -> state.State:
    """The state for batches like `spec`; for all that doesn't train."""

    def batch(number: tf.Tensor) -> Any:
        return specs.placeholders(spec)

    return building.build(task, batch, seed=seed, ema=ema)
