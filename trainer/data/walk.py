"""The endless, shuffled walk over one source: its batches from any step on.

>>> import numpy as np
>>> from line import Line
>>> from trainer import data
>>> from trainer.data import walk
>>> source = data.Arrays({"x": np.arange(4)})
>>> found = walk.walks(source, Line(), batch_size=2, seed=0)
>>> first, second = found.batches(0).take(2)
>>> sorted([*first["x"].numpy().tolist(), *second["x"].numpy().tolist()])
[0, 1, 2, 3]
"""

from __future__ import annotations

import dataclasses
from typing import Any, final

import tensorflow as tf

from trainer.data.examples import Examples
from trainer.data.failures import SourceError
from trainer.data.grouping import drawn, ungrouped
from trainer.data.order import places
from trainer.data.random import augmentation_seeds
from trainer.data.several import Several, seed_of
from trainer.task import Task


@final
@dataclasses.dataclass(frozen=True)
class Walk:
    """The batches of a source, each a function of its number.

    Attributes:
      examples: how they are read.
      source: them, grouped by length or not.
      seed: of their order, and of what is random in each.
    """

    examples: Examples
    source: Any
    seed: int

    def batches(self, first: int) -> tf.data.Dataset:
        """From number `first` on, without an end."""
        return self.examples.batches(first, -1, self._places)

    def failing(self, number: int) -> SourceError | None:
        """The first example of a batch that can't be read or decoded, as an error."""
        return self.examples.failing(number, self._places)

    def seeds(self, number: tf.Tensor) -> tf.Tensor:
        """The seeds (int32 `[B, 2]`) of the examples of a batch."""
        return augmentation_seeds(self.seed, places(number, self.examples.batch_size))

    def _places(self, number: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        numbers = places(number, size)
        batch_size = self.examples.batch_size
        indices = drawn(self.source, numbers, batch_size=batch_size, seed=self.seed)
        return indices, augmentation_seeds(self.seed, numbers)


def walks(given: Any, task: Task, *, batch_size: int, seed: int, **ways: Any) -> Any:
    """The walk over a source, or of several those by name.

    Args:
      given: what `splits.split` gave.
      task: whose `decode` the examples go through.
      batch_size: of a source that has none of its own.
      seed: of the run.
      **ways: how `Examples` is to read.
    """
    if isinstance(given, Several):
        sizes = given.sizes(batch_size)
        return {
            name: walks(
                source,
                task,
                batch_size=sizes[name],
                seed=seed_of(name, seed),
                **ways | {"partly": True},
            )
            for name, source in given.sources.items()
        }
    plain = ungrouped(given)
    examples = Examples(
        source=plain, task=task, batch_size=batch_size, seed=seed, **ways
    )
    return Walk(examples, given, seed)
