"""Numbers of examples in, batches of examples out: read, decoded, side by side.

The result is the same for any number of threads: TensorFlow gives back in order what
it has worked on out of order.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.data import records
from trainer.data.indexed import Indexed
from trainer.data.padding import Padding
from trainer.data.random import augmentation_seeds
from trainer.data.sources import DataError
from trainer.task import Batch, Source, Task, TaskError

_CHUNK = 32
_CHUNK_BYTES = 4_000_000
_AHEAD_BYTES = 16_000_000
_READERS = 4  # more of them get in the way of decoding
_PREFETCHED = 4

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
      partly: whether `Task.pad` may name what isn't there, but in another source.
    """

    source: Indexed | Source
    task: Task | None
    batch_size: int
    readers: int = 0
    prefetched: int = _PREFETCHED
    partly: bool = False

    def batches(self, first: int, count: int, places: Places) -> tf.data.Dataset:
        """Batches by name, `count` of them from number `first` on.

        Args:
          first: number of the first batch.
          count: of batches; -1: without an end.
          places: from the number of a piece (int64 scalar) and the size of pieces to
            the indices (int64 `[B]`) and the seeds (int32 `[B, 2]`) of its examples.
        """
        self._check()
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
        if self._decodes or not self._stacks:
            found = pieces.unbatch().map(self._decode, tf.data.AUTOTUNE, True)
            return self._padding.batched(
                found,
                self.batch_size,
                drop_remainder=True,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
        whole = pieces.map(lambda examples, seeds: examples)
        if self._padding.fills:
            return whole.map(lambda one: self._padding.padded(one, self.batch_size))
        return whole if per_batch == 1 else whole.batch(per_batch, True).map(_joined)

    def ready(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """The batches, prepared ahead of time."""
        return ready(batches, self.prefetched)

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
        return self.task is not None and decodes(self.task)

    @property
    def _stacks(self) -> bool:
        return not isinstance(self.source, Indexed) or self._source.stacks

    def _chunk(self) -> int:
        """How many examples are read at once: a divisor of the size of a batch."""
        if not isinstance(self.source, Indexed):
            return self.batch_size
        if not self._stacks:
            return 1
        fitting = _CHUNK_BYTES // max(1, self.source.outline.example_bytes)
        most = max(1, min(_CHUNK, fitting))
        return max(n for n in range(1, most + 1) if self.batch_size % n == 0)

    def _readers(self, size: int) -> int:
        if not isinstance(self.source, Indexed):
            return 1
        fitting = _AHEAD_BYTES // max(1, size * self.source.outline.example_bytes)
        return self.readers or max(1, min(_READERS, fitting))

    def _read(self, indices: tf.Tensor) -> Any:
        if isinstance(self.source, Indexed):
            return self._source.nested(self._source.read(indices))
        return dict(autograph.converted(self.source.gather)(indices))

    def _decode(self, example: Any, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        if self.task is None or not self._decodes:
            return dict(example)
        given = autograph.converted(self.task.decode)(example, seed)
        name = type(self.task).__name__
        if not isinstance(given, Mapping) or not given:
            raise TaskError(
                f"{name}.decode() returns {type(given).__name__}; expected tensors by "
                'name: return {"image": image, "label": example["label"]}.'
            )
        return {key: tf.convert_to_tensor(one) for key, one in given.items()}


def ready(batches: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Batches, so many of them prepared ahead of time, always in their order."""
    options = tf.data.Options()
    options.deterministic = True
    return batches.prefetch(count).with_options(options)


def decodes(task: Task) -> bool:
    """Whether a task says how an example is decoded."""
    return type(task).decode is not Task.decode


def decoded(task: Task, given: tf.data.Dataset, seed: int) -> tf.data.Dataset:
    """The examples of a dataset, each through `Task.decode` if the task has it."""
    if not decodes(task):
        return given

    def decode(number: tf.Tensor, example: Any) -> Any:
        (own,) = tf.unstack(augmentation_seeds(seed, number[None]), num=1)
        return autograph.converted(task.decode)(example, own)

    return given.enumerate().map(decode, tf.data.AUTOTUNE, True)


def _joined(pieces: Batch) -> Any:
    """Tensors `[pieces, size, ...]` as `[pieces * size, ...]`."""
    return tf.nest.map_structure(
        lambda one: tf.reshape(one, [one.shape[0] * one.shape[1], *one.shape[2:]]),
        pieces,
    )
