"""Training input without random access: a `tf.data.Dataset`, whose iterator is state.

Where examples can't be had by number, the position in the stream must be saved. What
the iterator buffers (a shuffle buffer above all) goes into every checkpoint, and saving
waits for the disk, since an iterator can't be copied aside. Prefer a source with random
access (`data`) where there is one.

    >>> import tensorflow as tf
    >>> from trainer.data import datasets
    >>> datasets.describe(tf.data.Dataset.range(60).map(lambda x: {"x": x}))
    'a stream of x int64 (): Range, Map; 60 examples'
"""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator
from typing import final

import tensorflow as tf
from absl import logging

from trainer.compat import autograph
from trainer.compat.datasets import chain
from trainer.data.datasets import describe, runs_python, unshuffled, writes
from trainer.data.fingerprint import digest
from trainer.data.order import places
from trainer.data.random import augmentation_seeds
from trainer.errors import KeepstepError
from trainer.task import Task

__all__ = ["Stream", "StreamError", "describe"]

_LARGE_BYTES = 1_000_000
_FIRST = 4


class StreamError(KeepstepError, ValueError):
    """A stream's position can't be saved."""


@final
class Stream:
    """The training input from a dataset of single examples; it is repeated for ever.

    Attributes:
      dataset: of batches, without an end.
      iterator: over it; belongs into the checkpoint.
      rebuilt: None: nothing is made anew at a start.

    Raises:
      StreamError: the dataset can't be opened twice.
    """

    rebuilt = None

    def __init__(
        self,
        *,
        task: Task,
        dataset: tf.data.Dataset,
        batch_size: int,
        seed: int,
    ) -> None:
        if writer := writes(dataset):
            raise StreamError(
                f"the training stream has a {writer}, which writes files of its own: "
                "opened again after a kill, it would find half of them. Leave it out, "
                "or write the data to a file beforehand and read that."
            )
        self._task = task
        self._given = dataset
        self._batch_size = batch_size
        self._seed = seed
        self.dataset = dataset.repeat().batch(batch_size, drop_remainder=True)
        self.iterator = iter(self.dataset)

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The next batch: tensors `[batch_size, ...]` by name.

        Args:
          step: int64 scalar; seeds the augmentation, the stream keeps its own place.
        """
        seeds = augmentation_seeds(self._seed, places(step, self._batch_size))
        augment = autograph.converted(self._task.augment)
        return dict(augment(self.iterator.get_next(), seeds))

    def skip(self, count: int) -> None:
        """Passes over `count` batches."""
        for _ in range(count):
            self.iterator.get_next()

    @contextlib.contextmanager
    def reading(self, first: int, count: int) -> Iterator[None]:
        """Nothing to do: the checkpoint says where the stream is."""
        yield

    def again(self, step: int) -> None:
        """Nothing: what a stream has given is gone."""

    def close(self) -> None:
        """Nothing to do."""

    def check(self) -> str:
        """Saves the position after one batch, to know at the start what will come.

        Its size is told where it is large: that goes into every checkpoint.

        Returns:
          A digest of the first examples, before they are shuffled: at each start of a
          run it is the same.

        Raises:
          StreamError: it can't be saved; says why. Or the stream is empty.
        """
        iterator = iter(self.dataset)
        first = next(iterator, None)
        if first is None:
            raise StreamError(
                "the training stream is empty: it ended before its first example."
            )
        with tempfile.TemporaryDirectory() as directory:
            try:
                checkpoint = tf.train.Checkpoint(input=iterator)
                checkpoint.write(str(pathlib.Path(directory, "input")))
            except (tf.errors.OpError, NotImplementedError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise StreamError(
                    f"the position of the training stream can't be saved: {reason} "
                    "Make it of TensorFlow ops without hidden state (no "
                    "from_generator, py_function or tf.random.*), or give a source "
                    "with random access (trainer.data)."
                ) from error
            size = sum(
                path.stat().st_size for path in pathlib.Path(directory).iterdir()
            )
        if size > _LARGE_BYTES:
            logging.warning(
                "the position of the training stream is %.1f MB, in every checkpoint, "
                "for what it has in its buffers is part of it: make shuffle buffers "
                "smaller, or give a source with random access (trainer.data)",
                size / 1e6,
            )
        parts = [one for one in unshuffled(self._given) if not _python(one)]
        return digest([list(one.take(_FIRST)) for one in parts])


def _python(dataset: tf.data.Dataset) -> bool:
    return any(runs_python(one) for one in chain(dataset))
