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

from trainer.base.errors import KeepstepError
from trainer.compat.datasets import chain
from trainer.data import failures, last_batch
from trainer.data.adapt import Adapted
from trainer.data.augment import augmented
from trainer.data.datasets import (
    describe,
    keeps_python,
    runs_python,
    unshuffled,
    writes,
)
from trainer.data.fingerprint import digest
from trainer.data.order import places
from trainer.data.padding import Padding
from trainer.data.random import augmentation_seeds
from trainer.data.resumable import stuck
from trainer.task import Batch, Task

__all__ = ["Stream", "StreamError", "describe"]

_LARGE_BYTES = 1_000_000
_FIRST = 4
_MOST_ROWS = 2**20  # of a batch that is taken as it is
_EMPTY = "the training stream is empty: it ended before its first example."
_STUCK = (
    "the training stream samples from datasets that end, and TensorFlow can't go on "
    "from a position where one of them has. Repeat each: sample_from_datasets("
    "[a.repeat(), b.repeat()], ...), or say stop_on_empty_dataset=True."
)
_UNSAVED = (
    "the position of the training stream can't be saved: {} Make it of TensorFlow ops "
    "without hidden state (no from_generator, py_function or tf.random.*), or give a "
    "source with random access (trainer.data)."
)


class StreamError(KeepstepError, ValueError):
    """A stream's position can't be saved."""


@final
class Stream:
    """The training input from a dataset; it is repeated for ever.

    Attributes:
      dataset: of batches, without an end.
      iterator: over it; belongs into the checkpoint.
      rebuilt: where the last batch lies, for a look at it if its loss is bad.

    Raises:
      StreamError: its position can't be saved; it was not opened.
    """

    def __init__(
        self,
        *,
        task: Task,
        given: Adapted,
        batch_size: int,
        seed: int,
    ) -> None:
        dataset = given.dataset
        if any(map(keeps_python, chain(dataset))):
            raise StreamError(
                _UNSAVED.format("it runs Python, whose state no checkpoint holds.")
            )
        if stuck(dataset):
            raise StreamError(_STUCK)
        if given.length == 0:
            raise StreamError(_EMPTY)
        if writer := writes(dataset):
            raise StreamError(
                f"the training stream has a {writer}, which writes files of its own: "
                "opened again after a kill, it would find half of them. Leave it out, "
                "or write the data to a file beforehand and read that."
            )
        self._task = task
        self._given = given
        self._batch_size = batch_size
        self.seed = seed
        self._weighed = False
        self.dataset = dataset.repeat()
        if not given.whole:
            self.dataset = Padding.of(task).batched(
                self.dataset, batch_size, drop_remainder=True
            )
        self.iterator = iter(self.dataset)
        self._last = last_batch.LastBatch(self.dataset.element_spec)
        self.rebuilt = self._last.resources

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The next batch: tensors `[B, ...]` by name.

        Args:
          step: int64 scalar; seeds the augmentation, the stream keeps its own place.
        """
        batch = self.iterator.get_next()
        self._last.keep(batch)
        return self._augmented(batch, step)

    def _augmented(self, batch: Batch, step: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers = places(step, self._batch_size)
        if self._given.whole:
            rows = tf.shape(next(iter(batch.values())))[0]
            numbers = step * _MOST_ROWS + tf.range(tf.cast(rows, tf.int64))
        seeds = augmentation_seeds(self.seed, numbers)
        return augmented(self._task, batch, seeds, step)

    def skip(self, count: int) -> None:
        """Passes over `count` batches."""
        for _ in range(count):
            self.iterator.get_next()

    @contextlib.contextmanager
    def reading(self, first: int, count: int) -> Iterator[None]:
        """While batches are taken; the first time, the position is weighed after it.

        Raises:
          StreamError: there is nothing to take.
          DataError: examples of unequal shapes were to be one batch.
        """
        try:
            with failures.told():
                yield
        except tf.errors.OutOfRangeError as error:
            raise StreamError(_EMPTY) from error
        if not self._weighed:
            self._weighed = True
            _tell(self._saved())

    def again(self, step: int) -> dict[str, tf.Tensor] | None:
        """The batch of a step once more, if it is the last one that was taken."""
        batch = self._last.batch()
        return batch and self._augmented(batch, tf.constant(step, tf.int64))

    def close(self) -> None:
        """Nothing to do."""

    def check(self) -> str:
        """Saves the position before the first batch, and looks at what comes first.

        The iterator isn't moved, and there is no other one over the whole: it would
        draw from the same shuffles.

        Returns:
          A digest of the first examples, before they are shuffled: at each start of a
          run it is the same.

        Raises:
          StreamError: it can't be saved; says why. Or the stream is empty.
        """
        self._saved()
        whole = self._given.dataset
        parts = [one for one in unshuffled(whole) if not _python(one)]
        looks = [list(one.take(_FIRST)) for one in parts]
        if looks == [[]] and parts == [whole]:
            raise StreamError(_EMPTY)
        return digest(looks)

    def _saved(self) -> int:
        """Saves the position, and returns the number of its bytes."""
        with tempfile.TemporaryDirectory() as directory:
            try:
                checkpoint = tf.train.Checkpoint(input=self.iterator)
                checkpoint.write(str(pathlib.Path(directory, "input")))
            except (tf.errors.OpError, NotImplementedError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise StreamError(_UNSAVED.format(reason)) from error
            return sum(
                path.stat().st_size for path in pathlib.Path(directory).iterdir()
            )


def _tell(size: int) -> None:
    if size > _LARGE_BYTES:
        logging.warning(
            "the position of the training stream is %.1f MB, in every checkpoint, "
            "for what it has in its buffers is part of it: make shuffle buffers "
            "smaller, or give a source with random access (trainer.data)",
            size / 1e6,
        )


def _python(dataset: tf.data.Dataset) -> bool:
    return any(runs_python(one) for one in chain(dataset))
