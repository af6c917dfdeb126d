"""Input that is a pure function of (seed, step): there is no iterator to lose.

Training example number `p` (`p = step * batch_size + i`) belongs to epoch `p // N`.
Its place in the source is `p % N` under a permutation that the seed and the epoch
choose, so each epoch sees each example once, resuming at any step costs nothing, and
nothing is saved. The permutation is a block cipher, not a table:
`tf.raw_ops.RandomIndexShuffle`,
https://www.tensorflow.org/api_docs/python/tf/random/experimental/index_shuffle.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.compat import autograph
from trainer.errors import KeepstepError
from trainer.task import Source, Task

_CIPHER_ROUNDS = 8
# With fewer, the images of neighbouring numbers are correlated.
_MIXING_ROUNDS = 24
_UNIFORM_BITS = 24  # all that a float32 in [0, 1) can hold


class DataError(KeepstepError, ValueError):
    """Examples are missing or do not fit together."""


@final
class Arrays:
    """A source of arrays in memory: `{"image": [N, ...], "label": [N]}`.

    Raises:
      DataError: there is no array, or they do not have one common length above 0.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        for name, array in arrays.items():
            if not np.shape(array):
                raise DataError(
                    f"{name!r} is a single value; expected an array with one entry an "
                    "example."
                )
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(
                f"the arrays of a source have the lengths {lengths}; expected one "
                "common length of at least 1."
            )
        self._length = next(iter(lengths.values()))
        # A large NumPy array in a graph would be copied into it; a tensor is captured.
        self._tensors = {k: tf.convert_to_tensor(v) for k, v in arrays.items()}

    def __len__(self) -> int:
        return self._length

    @autograph.unconverted
    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The examples at `indices` (int64 `[B]`)."""
        return {
            name: tf.gather(array, indices) for name, array in self._tensors.items()
        }


def npz(path: str | pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of an `.npz` file. Pickled objects are refused.

    Raises:
      DataError: there is no such file, or it has no such array.
    """
    wanted = ", ".join(names)
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if missing := [name for name in names if name not in file]:
                raise DataError(
                    f"{path} has no array {missing[0]!r}; it has "
                    f"{', '.join(sorted(file)) or 'none'}. Expected {wanted}."
                )
            arrays = {name: file[name] for name in names}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise DataError(
                        f"{path} cannot be read as an .npz with the arrays {wanted}: "
                        f"{name!r} is no array."
                    )
            return arrays
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}. Expected an .npz with the arrays {wanted}."
        ) from None
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(
            f"{path} cannot be read as an .npz with the arrays {wanted}: {error}"
        ) from error


def split(sources: Mapping[str, Any], name: str) -> Any:
    """The examples of one split: a source, or a `tf.data.Dataset`.

    A mapping of arrays becomes a source.

    Raises:
      DataError: there is no such split.
    """
    if name not in sources:
        raise DataError(
            f"the task has no split {name!r}; it has {', '.join(sorted(sources))}."
        )
    given = sources[name]
    return Arrays(given) if isinstance(given, Mapping) else given


def describe(spec: Mapping[str, tf.TensorSpec]) -> str:
    """What one example is made of, such as `image uint8 (8, 8), label uint8 ()`."""
    return ", ".join(
        f"{name} {one.dtype.name} {tuple(one.shape)}" for name, one in spec.items()
    )


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
        length = len(self.source)
        numbers = places(step, self.batch_size)
        keys = _keys(self.seed, numbers // length)
        indices = tf.raw_ops.RandomIndexShuffle(
            index=numbers % length,
            seed=keys,
            max_index=tf.constant(length - 1, tf.int64),
            rounds=_CIPHER_ROUNDS,
        )
        batch = autograph.converted(self.source.gather)(indices)
        seeds = augmentation_seeds(self.seed, numbers)
        return dict(autograph.converted(self.task.augment)(batch, seeds))


def ordered(given: Source | tf.data.Dataset, batch_size: int) -> Any:
    """The input of an evaluation: every example exactly once.

    Args:
      given: a source, or a finite dataset of single examples.
      batch_size: examples a batch.

    Returns:
      A `tf.data.Dataset` of batches by name and of which of their rows count (bool
      `[B]`). All batches have one shape; the rows that don't count repeat others.
    """
    if isinstance(given, tf.data.Dataset):

        @autograph.unconverted
        def fill(batch: Any) -> Any:
            count = tf.shape(next(iter(batch.values())))[0]
            rows = tf.minimum(tf.range(batch_size), count - 1)
            full = {name: tf.gather(one, rows) for name, one in batch.items()}
            return full, tf.range(batch_size) < count

        return given.batch(batch_size).map(fill).prefetch(2)
    last = len(given) - 1

    @autograph.unconverted
    def gather(number: tf.Tensor) -> Any:
        numbers = places(number, batch_size)
        rows = tf.minimum(numbers, last)
        return autograph.converted(given.gather)(rows), numbers <= last

    batches = math.ceil(len(given) / batch_size)
    return tf.data.Dataset.range(batches).map(gather).prefetch(2)


def places(number: tf.Tensor, batch_size: int) -> tf.Tensor:
    """The numbers of the examples of a batch, counted from the very first: int64."""
    return number * batch_size + tf.range(batch_size, dtype=tf.int64)


def augmentation_seeds(seed: int, numbers: tf.Tensor) -> tf.Tensor:
    """int32 `[B, 2]`: another one at each place of the walk through all epochs."""
    high = tf.bitwise.bitwise_xor(numbers // 2**31, seed)
    return tf.cast(tf.stack([high, numbers % 2**31], axis=1), tf.int32)


@autograph.unconverted
def uniform(seeds: tf.Tensor, shape: Sequence[int] = ()) -> tf.Tensor:
    """Random numbers in [0, 1) that depend on each example's own seed only.

    `tf.random.stateless_uniform` takes one seed a call; this one takes one a row, at
    once. The numbers are a block cipher's image of 0, 1, 2, ... under the row's seed.

    Args:
      seeds: int32 `[B, 2]`.
      shape: of the numbers of one example.

    Returns:
      float32 `[B, *shape]`.
    """
    count = math.prod(shape)
    rows = tf.shape(seeds)[0]
    keys = tf.pad(tf.bitcast(seeds, tf.uint32), [[0, 0], [0, 1]])
    bits = _mixed(keys, count) // 2 ** (63 - _UNIFORM_BITS)
    numbers = tf.cast(bits, tf.float32) * 2.0**-_UNIFORM_BITS
    return tf.reshape(numbers, tf.concat([[rows], tf.constant(shape, tf.int32)], 0))


def _keys(seed: int, epochs: tf.Tensor) -> tf.Tensor:
    """uint32 `[B, 3]`, as RandomIndexShuffle takes its seeds: one a row.

    For a small source the cipher uses only the low bits of each word, so seed and epoch
    are mixed into all of them first; the last column keeps the keys of `uniform` apart.
    """
    rows = tf.shape(epochs)[0]
    seeds, ones = tf.ones_like(epochs) * seed, tf.ones_like(epochs)
    plain = tf.cast(tf.stack([seeds, epochs, ones], axis=1), tf.uint32)
    return tf.cast(tf.reshape(_mixed(plain, 3), [rows, 3]) % 2**32, tf.uint32)


def _mixed(keys: tf.Tensor, count: int) -> tf.Tensor:
    """`count` random numbers of 63 bits for each row of keys (uint32 `[B, 3]`).

    The cipher's image of 0, 1, 2, ... in its full width, where it uses all of its key.
    """
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.tile(tf.range(count, dtype=tf.int64), [tf.shape(keys)[0]]),
        seed=tf.repeat(keys, count, axis=0),
        max_index=tf.constant(2**63 - 1, tf.int64),
        rounds=_MIXING_ROUNDS,
    )
