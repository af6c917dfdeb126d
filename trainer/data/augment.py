"""A batch as a task changes it at random, whatever way it came.

>>> import tensorflow as tf
>>> from line import Line
>>> from trainer.data import augment
>>> class Later(Line):
...     def augment(self, batch, seeds):
...         return {"x": batch["x"] * tf.cast(self.step_number, tf.float32)}
>>> augment.augmented(Later(), {"x": tf.ones([1])}, tf.zeros([1, 2]), 3)["x"].numpy()
array([3.], dtype=float32)
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from trainer.compat import autograph
from trainer.task import Task
from trainer.task.given import at_step


def augmented(
    task: Task, batch: Any, seeds: Any, number: tf.Tensor
) -> dict[str, tf.Tensor]:
    """What `Task.augment` makes of a batch.

    Args:
      task: whose.
      batch: tensors `[B, ...]` by name; of several sources, mappings of these.
      seeds: int32 `[B, 2]`, one for each example; of several sources, by name.
      number: of the batch, int64 scalar.
    """
    with at_step(number):
        return dict(autograph.converted(task.augment)(batch, seeds))
