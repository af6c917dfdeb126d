"""The input of training from a source with random access, and that of an evaluation.

>>> import numpy as np
>>> from trainer import data
>>> batches = data.ordered(data.Arrays({"x": np.arange(3)}), batch_size=2)
>>> [counts.numpy().tolist() for batch, counts in batches]
[[True, True], [True, False]]
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.data import failures
from trainer.data.adapt import Adapted, adapted, ready
from trainer.data.augment import augmented
from trainer.data.decoding import decodes
from trainer.data.examples import Examples
from trainer.data.grouping import drawn, ungrouped
from trainer.data.indexed import Indexed
from trainer.data.order import places
from trainer.data.padding import Padding
from trainer.data.random import augmentation_seeds
from trainer.task import Source, Task

_EVALUATED = 0  # the seed of what is random where nothing should be


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Shuffled:
    """The training input: an endless, shuffled, augmented walk over a source."""

    task: Task
    source: Source
    batch_size: int
    seed: int
    iterator: None = None
    rebuilt: tuple[Any, ...] = ()

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The batch of `step` (int64 scalar): tensors `[batch_size, ...]` by name."""
        size = self.batch_size
        numbers = places(step, size)
        indices = drawn(self.source, numbers, batch_size=size, seed=self.seed)
        batch = autograph.converted(ungrouped(self.source).gather)(indices)
        batch = Padding.of(self.task).padded(batch, rows=size)
        seeds = augmentation_seeds(self.seed, numbers)
        return augmented(self.task, batch, seeds, step)

    @contextlib.contextmanager
    def reading(self, first: int, count: int) -> Iterator[None]:
        """Nothing to do: the batches are made in the step that takes them."""
        yield

    def again(self, step: int) -> dict[str, tf.Tensor]:
        """The batch of a step once more."""
        return self.batch(tf.constant(step, tf.int64))

    def skip(self, count: int) -> None:
        """Nothing to do: the number of a batch says which it is."""

    def close(self) -> None:
        """Nothing to do."""


@autograph.unconverted
def ordered(
    given: Any,
    batch_size: int,
    task: Task | None = None,
    *,
    padding: Padding | None = None,
) -> Any:
    """The input of an evaluation: every example exactly once.

    Args:
      given: a source, or a finite dataset.
      batch_size: examples per batch; fewer if a source has fewer.
      task: whose `decode` the examples go through; None: they don't.
      padding: of batches, if it is not the task's own.

    Returns:
      A `tf.data.Dataset` of batches by name and of which of their rows count (bool
      `[B]`). All batches have one size; the rows that don't count repeat others.
      But the batches of a dataset that are taken as they are stay so.
    """
    given = ungrouped(given)
    # What is padded may be in one of several sources of training only.
    padding = padding or dataclasses.replace(Padding.of(task), partly=True)
    if isinstance(given, tf.data.Dataset):
        given = adapted(given, "examples")
    if isinstance(given, Adapted):
        every = ready(given, task, _EVALUATED)
        if every.whole:
            return _whole(every.dataset)
        return _filled(every.dataset, batch_size, padding)
    batch_size = min(batch_size, len(given))
    last, count = len(given) - 1, math.ceil(len(given) / batch_size)
    if isinstance(given, Indexed) or (task is not None and decodes(task)):
        found = Examples(source=given, task=task, batch_size=batch_size, partly=True)
        return _read(found, last, count)

    @autograph.unconverted
    def gather(number: tf.Tensor) -> Any:
        numbers = places(number, batch_size)
        rows = tf.minimum(numbers, last)
        batch = autograph.converted(given.gather)(rows)
        return padding.padded(batch, rows=batch_size), numbers <= last

    return tf.data.Dataset.range(count).map(gather).prefetch(2)


def _read(examples: Examples, last: int, count: int) -> tf.data.Dataset:
    """So many batches of examples, whose last index that is; and which rows count."""
    batch_size = examples.batch_size

    def rows(number: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
        indices = tf.minimum(places(number, size), last)
        return indices, augmentation_seeds(_EVALUATED, indices)

    @autograph.unconverted
    def counts(number: tf.Tensor) -> tf.Tensor:
        return places(number, batch_size) <= last

    numbers = tf.data.Dataset.range(count)
    batches = examples.batches(0, count, rows)
    every = examples.ready(tf.data.Dataset.zip(batches, numbers.map(counts)))
    failures.searched(every, lambda number: examples.failing(number, rows))
    return every


def _whole(batches: tf.data.Dataset) -> tf.data.Dataset:
    @autograph.unconverted
    def count(batch: Any) -> Any:
        return batch, tf.ones([tf.shape(next(iter(batch.values())))[0]], tf.bool)

    return batches.map(count).prefetch(2)


def _filled(
    given: tf.data.Dataset, batch_size: int, padding: Padding
) -> tf.data.Dataset:
    @autograph.unconverted
    def fill(batch: Any) -> Any:
        count = tf.shape(next(iter(batch.values())))[0]
        rows = tf.minimum(tf.range(batch_size), count - 1)
        full = {name: tf.gather(one, rows) for name, one in batch.items()}
        return full, tf.range(batch_size) < count

    return padding.batched(given, batch_size).map(fill).prefetch(2)
