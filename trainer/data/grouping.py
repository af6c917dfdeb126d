"""Batches of examples of similar lengths: a pure function of (seed, step), too.

The examples are sorted by length once, and cut into buckets. In each epoch, each bucket
is shuffled in itself; what comes out is cut into batches, and these are shuffled. It is
all block ciphers, as in `order`: nothing is saved, and any step is at hand at once.

>>> import numpy as np, tensorflow as tf
>>> from trainer.data import grouping
>>> lengths = np.arange(100) % 10
>>> source = grouping.group_by_length([{"x": "a" * n} for n in lengths], lengths)
>>> numbers = tf.range(100, dtype=tf.int64)
>>> found = source.places(numbers, batch_size=5, seed=7).numpy()
>>> sorted(found) == list(range(100))
True
>>> int(np.ptp(lengths[found].reshape(20, 5), axis=1).max())
1
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.data import order, ragged
from trainer.data.order import permuted
from trainer.data.random import row_keys
from trainer.data.sources import DataError

_BUCKETS = 64  # of a large source: each is so much of it
_LEAST_BATCHES = 4  # in a bucket of a small one


@final
class Grouped:
    """A source whose training batches are of similar lengths. Use `group_by_length`.

    Attributes:
      source: the examples.
      lengths: of each; int64 `[N]`.
    """

    def __init__(self, source: Any, lengths: np.ndarray) -> None:
        self.source = source
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def of(self, source: Any) -> Grouped:
        """The same lengths of the same examples, which are read by another source."""
        return Grouped(source, self.lengths)

    def places(self, numbers: tf.Tensor, *, batch_size: int, seed: int) -> tf.Tensor:
        """Which examples these are.

        Args:
          numbers: of training examples, counted from the very first; int64 `[B]`.
          batch_size: examples per batch.
          seed: of the run.

        Returns:
          int64 `[B]`, places in the source.
        """
        found = self._borders(batch_size)
        borders = tf.constant(found, tf.int64)
        keys = len(found) + 1  # of each epoch: one for the batches, and the buckets'
        epochs = numbers // len(self)
        of_batches = row_keys(seed, epochs * keys)
        sorted_places = self._places_by_length(numbers, batch_size, seed, of_batches)
        buckets = tf.searchsorted(borders[1:], sorted_places, side="right")
        buckets = tf.cast(buckets, tf.int64)
        first = tf.gather(borders, buckets)
        inside = permuted(
            sorted_places - first,
            tf.gather(borders, buckets + 1) - first,
            row_keys(seed, epochs * keys + 1 + buckets),
        )
        return tf.gather(self._by_length, first + inside)

    def _places_by_length(
        self, numbers: tf.Tensor, batch_size: int, seed: int, keys: tf.Tensor
    ) -> tf.Tensor:
        """Places among the sorted: batches of neighbours, in an order by the keys.

        An epoch begins and ends inside of a batch. Its first piece and its last are of
        no full batch; each lies among the lengths that the batch draws, and so the two
        pieces of one batch, of two epochs, fit together.
        """
        count = tf.constant(len(self), tf.int64)
        epochs, place = numbers // count, numbers % count
        head = tf.minimum(-(epochs * count) % batch_size, count)
        full = (count - head) // batch_size
        tail = count - head - full * batch_size
        head_at = _drawn(epochs * count // batch_size, full, seed)
        tail_at = _drawn((epochs + 1) * count // batch_size, full, seed)
        number = tf.clip_by_value((place - head) // batch_size, 0, full - 1)
        batch = permuted(tf.maximum(number, 0), tf.maximum(full, 1), keys)
        inside = place - head - number * batch_size
        zero = tf.zeros_like(place)
        whole = batch * batch_size + inside
        whole += tf.where(batch >= head_at, head, zero)
        whole += tf.where(batch >= tail_at, tail, zero)
        first = head_at * batch_size + place + tf.where(tail_at < head_at, tail, zero)
        last = tail_at * batch_size + place - head - full * batch_size
        last += tf.where(head_at <= tail_at, head, zero)
        in_tail = place >= head + full * batch_size
        return tf.where(place < head, first, tf.where(in_tail, last, whole))

    @functools.cached_property
    def _sorted(self) -> np.ndarray:
        return np.argsort(self.lengths, kind="stable")

    @functools.cached_property
    def _by_length(self) -> tf.Tensor:
        with tf.init_scope():  # a graph captures it, and holds no copy
            return tf.constant(self._sorted, tf.int64)

    def _borders(self, batch_size: int) -> np.ndarray:
        """Where the buckets begin among the sorted, and the end of the last."""
        count = len(self)
        size = max(_LEAST_BATCHES * batch_size, -(-count // _BUCKETS))
        lengths = self.lengths[self._sorted]
        ends = np.arange(size, count - size // 2, size)
        # Examples of one length are in one bucket, so that all of them mix.
        ends = np.searchsorted(lengths, lengths[ends - 1], side="right")
        return np.unique(np.concatenate([[0], ends, [count]]))


def group_by_length(source: Any, lengths: Any) -> Grouped:
    """Training examples in batches of similar lengths, so that little is padded.

    A batch is still a function of the seed and the step, and each epoch has each
    example once. Evaluations keep the order of the source.

    Args:
      source: what `Task.sources` may give, except for a `tf.data.Dataset`.
      lengths: the length of each example, whole numbers `[N]`; or the name of an
        array, where the source is arrays by name.

    Raises:
      DataError: there is not one length for each example.
    """
    if isinstance(source, tf.data.Dataset):
        raise DataError(
            "a tf.data.Dataset can't be grouped by length: it has no examples by "
            "number. Expected a source with __len__. Group the dataset itself: "
            "dataset.bucket_by_sequence_length(...)."
        )
    if isinstance(lengths, str):
        lengths = _of_array(source, lengths)
    found = np.asarray(lengths)
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise DataError(
            f"the lengths to group by are {found.dtype} {found.shape}. Expected whole "
            "numbers [N], one for each example: "
            'np.array([len(one["tokens"]) for one in examples]).'
        )
    return Grouped(source, found.astype(np.int64))


def drawn(source: Any, numbers: tf.Tensor, *, batch_size: int, seed: int) -> tf.Tensor:
    """Which examples of a source the training examples of these numbers are.

    Args:
      source: grouped by length or not.
      numbers: counted from the very first; int64 `[B]`.
      batch_size: examples per batch.
      seed: of the run.
    """
    if isinstance(source, Grouped):
        return source.places(numbers, batch_size=batch_size, seed=seed)
    return order.drawn(numbers, length=len(source), seed=seed)


def ungrouped(source: Any) -> Any:
    """The examples alone, as an evaluation reads them."""
    return source.source if isinstance(source, Grouped) else source


def _drawn(number: tf.Tensor, count: tf.Tensor, seed: int) -> tf.Tensor:
    """A place from 0 to `count` for each batch of that number, at random by it."""
    keys = row_keys(seed, -1 - number)  # those of epochs count up from 0
    return tf.cast(keys[:, 0], tf.int64) * (count + 1) // 2**32


def _of_array(source: Any, name: str) -> np.ndarray:
    if not isinstance(source, Mapping):
        raise DataError(
            f"the lengths to group by are {name!r}, a name, and the examples are a "
            f"{type(source).__name__}. Expected a length for each: np.array([len(one"
            f'["{name}"]) for one in examples]).'
        )
    if name not in source:
        raise DataError(
            f"the lengths to group by are those of {name!r}, which is not there; there "
            f"are {', '.join(source)}. Name one of these."
        )
    return ragged.lengths(source[name])
