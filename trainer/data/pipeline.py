"""The input of training from a source with random access, and that of an evaluation.

>>> import numpy as np
>>> from trainer import data
>>> batches = data.ordered(data.Arrays({"x": np.arange(3)}), batch_size=2)
>>> [counts.numpy().tolist() for batch, counts in batches]
[[True, True], [True, False]]
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.data.order import places, shuffled
from trainer.data.random import augmentation_seeds
from trainer.task import Source, Task


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The training input: an endless, shuffled, augmented walk over a source."""

    task: Task
    source: Source
    batch_size: int
    seed: int

    def skip(self, count: int) -> None:
        """Nothing to do: the number of a batch says which it is."""

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The batch of `step` (int64 scalar): tensors `[batch_size, ...]` by name."""
        indices = shuffled(
            step,
            batch_size=self.batch_size,
            length=len(self.source),
            seed=self.seed,
        )
        batch = autograph.converted(self.source.gather)(indices)
        seeds = augmentation_seeds(self.seed, places(step, self.batch_size))
        return dict(autograph.converted(self.task.augment)(batch, seeds))


def ordered(given: Source | tf.data.Dataset, batch_size: int) -> Any:
    """The input of an evaluation: every example exactly once.

    Args:
      given: a source, or a finite dataset of single examples.
      batch_size: examples per batch.

    Returns:
      A `tf.data.Dataset` of batches by name and of which of their rows count (bool
      `[B]`). All batches have one shape; the rows that don't count repeat others.
    """
    if isinstance(given, tf.data.Dataset):

        def fill(batch: Any) -> Any:
            count = tf.shape(next(iter(batch.values())))[0]
            rows = tf.minimum(tf.range(batch_size), count - 1)
            full = {name: tf.gather(one, rows) for name, one in batch.items()}
            return full, tf.range(batch_size) < count

        return given.batch(batch_size).map(fill).prefetch(2)
    last = len(given) - 1

    def gather(number: tf.Tensor) -> Any:
        numbers = places(number, batch_size)
        rows = tf.minimum(numbers, last)
        return autograph.converted(given.gather)(rows), numbers <= last

    batches = math.ceil(len(given) / batch_size)
    return tf.data.Dataset.range(batches).map(gather).prefetch(2)
