"""Numbers of examples in, batches of examples out: read, decoded, side by side.

The result is the same for any number of threads: TensorFlow gives back in order what
it has worked on out of order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.data import decoding, records
from trainer.data.failures import SourceError
from trainer.data.indexed import Indexed
from trainer.data.padding import Padding
from trainer.data.random import place_of
from trainer.data.sources import DataError
from trainer.task import Batch, Source, Task

_CHUNK = 32
_CHUNK_BYTES = 4_000_000
_AHEAD_BYTES = 16_000_000
_READERS = 4  # more of them get in the way of decoding
_PREFETCHED = 4
_EVALUATED = 0  # the step that decode() is told in an evaluation

Places = Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """The examples of a source, batch by batch.

    Attributes:
      source: that is read, in Python or by its own ops.
      task: whose `decode` they go through; None: they don't.
      batch_size: examples per batch.
      readers: how many pieces of a batch are read at once; 0: a few.
      prefetched: batches that are ready ahead of time.
      seed: that the seeds of examples are made of in training; None: an evaluation,
        to which step 0 is as good as any.
      partly: whether `Task.pad` may name what isn't there, but in another source.
    """

    source: Indexed | Source
    task: Task | None
    batch_size: int
    readers: int = 0
    prefetched: int = _PREFETCHED
    seed: int | None = None
    partly: bool = False

    @autograph.unconverted
    def batches(self, first: int, count: int, places: Places) -> tf.data.Dataset:
        """Batches by name, `count` of them from number `first` on.

        Args:
          first: number of the first batch.
          count: of batches; -1: without an end.
          places: from the number of a piece (int64 scalar) and the size of pieces to
            the indices (int64 `[B]`) and the seeds (int32 `[B, 2]`) of its examples.
        """
        self._check()
        if self._in_ops:
            return self._batched(self._decoded_in_ops(first, count, places))
        size = self._chunk()
        per_batch = self.batch_size // size
        last = tf.int64.max if count < 0 else (first + count) * per_batch

        def read(number: tf.Tensor) -> Any:
            indices, seeds = places(number, size)
            return self._read(indices), seeds

        # A source read by ops of its own is not slower in one piece.
        pieces = tf.data.Dataset.range(first * per_batch, last).map(
            read, num_parallel_calls=self._readers(size), deterministic=True
        )
        if self._decodes:
            found = pieces.unbatch().map(self._decode, tf.data.AUTOTUNE, True)
            return self._batched(found)
        whole = pieces.map(lambda read, seeds: self._rows(read))
        if self._padding.fills:
            return whole.map(lambda one: self._padding.padded(one, self.batch_size))
        return whole if per_batch == 1 else whole.batch(per_batch, True).map(_joined)

    def ready(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches, prepared ahead of time."""
        return ready(batches, self.prefetched)

    def failing(self, number: int, places: Places) -> SourceError | None:
        """The first example of a batch that can't be read or decoded, as an error.

        Args:
          number: of the batch.
          places: as in `batches`.
        """
        if self.task is None or not isinstance(self.source, Indexed):
            return None
        indices, seeds = places(tf.constant(number, tf.int64), self.batch_size)
        step = number if self.seed is not None else _EVALUATED
        return decoding.failing(self.task, self._source, indices, seeds, step)

    def _check(self) -> None:
        """Raises `DataError` where batches can't be made of what is read."""
        if self._decodes or not isinstance(self.source, Indexed):
            return
        name, spec = self.source.name, self._source.spec
        for path, one in spec.items():
            if len(path) > 1:
                raise DataError(
                    f"the examples of {name!r} have {records.named(path)}, a name in a "
                    "name. Expected tensors by one name each. Say which in decode("
                    "self, example, seed): return {"
                    f'"{path[-1]}": example["{path[0]}"]["{path[1]}"], ...}}.'
                )
            if not one.shape.is_fully_defined() and path[0] not in self._padding.fills:
                raise DataError(
                    f"the examples of {name!r} have {records.named(path)} of unequal "
                    f"shapes, {tuple(one.shape)}. Expected one shape, so that batches "
                    "can be made of them. Fill it up, in the task: pad = "
                    f'{{"{path[0]}": 0}}. Or pad, cut or resize it in decode(self, '
                    f'example, seed): example["{path[0]}"][:100].'
                )
        self._padding.check({path[0]: one for path, one in spec.items()})

    @functools.cached_property
    def _padding(self) -> Padding:
        return dataclasses.replace(Padding.of(self.task), partly=self.partly)

    @functools.cached_property
    def _source(self) -> Any:
        """The source; what is padded may have any length in it."""
        if isinstance(self.source, Indexed) and self._padding.fills:
            return self.source.of_any_length(self._padding.fills)
        return self.source

    @property
    def _decodes(self) -> bool:
        return self.task is not None and decoding.decodes(self.task)

    def _chunk(self) -> int:
        """How many examples are read at once: a divisor of the size of a batch."""
        padded_whole = self._padding.fills and not self._decodes
        if padded_whole or not isinstance(self.source, Indexed):
            return self.batch_size
        fitting = _CHUNK_BYTES // max(1, self.source.outline.example_bytes)
        most = max(1, min(_CHUNK, fitting))
        return max(n for n in range(1, most + 1) if self.batch_size % n == 0)

    def _readers(self, size: int) -> int:
        if not isinstance(self.source, Indexed):
            return 1
        fitting = _AHEAD_BYTES // max(1, size * self.source.outline.example_bytes)
        return self.readers or max(1, min(_READERS, fitting))

    @property
    def _in_ops(self) -> bool:
        """Whether TensorFlow itself reads each example where it is decoded."""
        return self._decodes and isinstance(self.source, Indexed) and self.source.in_ops

    def _decoded_in_ops(
        self, first: int, count: int, places: Places
    ) -> tf.data.Dataset:
        """The examples, each read and decoded in one go, none by Python."""

        def decode(index: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._decoded(self._source.element(index), seed)

        # Where an example is costs more ops than to read it: found batch by batch.
        last = tf.int64.max if count < 0 else first + count
        numbers = tf.data.Dataset.range(first, last)
        found = numbers.map(lambda number: places(number, self.batch_size)).unbatch()
        return found.map(decode, self.readers or tf.data.AUTOTUNE, deterministic=True)

    def _batched(self, examples: tf.data.Dataset) -> tf.data.Dataset:
        return self._padding.batched(
            examples,
            self.batch_size,
            drop_remainder=True,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )

    def _read(self, indices: tf.Tensor) -> Any:
        if isinstance(self.source, Indexed):
            return self._source.read(indices)
        return dict(autograph.converted(self.source.gather)(indices))

    def _rows(self, read: Any) -> dict[str, Any]:
        found: dict[str, Any] = read
        if isinstance(self.source, Indexed):
            found = self._source.rows(read)
        return found

    def _decode(self, read: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        one = self._source.one(read) if isinstance(self.source, Indexed) else read
        return self._decoded(one, seed)

    def _decoded(self, example: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.task is None:
            return dict(example)
        step: Any = _EVALUATED
        if self.seed is not None:
            step = place_of(self.seed, seed) // self.batch_size
        return decoding.decode(self.task, example, seed, step)


def ready(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Batches, so many of them prepared ahead of time, always in their order."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.prefetch(count).with_options(options)


def _joined(pieces: Batch) -> Any:
    """Tensors `[pieces, size, ...]` as `[pieces * size, ...]`."""
    return tf.nest.map_structure(
        lambda one: tf.reshape(one, [one.shape[0] * one.shape[1], *one.shape[2:]]),
        pieces,
    )
