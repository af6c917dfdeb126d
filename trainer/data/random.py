"""Random numbers that depend on nothing but a seed for each example.

>>> import tensorflow as tf
>>> from trainer import data
>>> seeds = tf.constant([[0, 1], [0, 2]])
>>> data.uniform(seeds, [3]).shape.as_list()
[2, 3]
>>> bool(tf.reduce_all(data.uniform(seeds)[1:] == data.uniform(seeds[1:])))
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from trainer.compat import autograph

# With fewer, the images of neighbouring numbers are correlated.
_MIXING_ROUNDS = 24
_OF_STEPS = 2**30  # no walk through the data comes to 2^61 examples
_UNIFORM_BITS = 24  # all that a float32 in [0, 1) can hold


def augmentation_seeds(seed: int, numbers: tf.Tensor) -> tf.Tensor:
    """int32 `[B, 2]`: another one at each place of the walk through all epochs."""
    high = tf.bitwise.bitwise_xor(numbers // 2**31, seed)
    return tf.cast(tf.stack([high, numbers % 2**31], axis=1), tf.int32)


def place_of(seed: int, own: tf.Tensor) -> tf.Tensor:
    """The place (int64 scalar) of which `augmentation_seeds` made the seed `own`."""
    high, low = tf.unstack(tf.cast(own, tf.int64))
    return tf.bitwise.bitwise_xor(high, seed) * 2**31 + low


def step_seed(seed: int, number: tf.Tensor) -> tf.Tensor:
    """int32 `[2]`: another one in each step, and none of `augmentation_seeds`."""
    (own,) = tf.unstack(augmentation_seeds(seed ^ _OF_STEPS, number[None]), num=1)
    return own


@autograph.unconverted
def uniform(seeds: tf.Tensor, shape: Sequence[int] = ()) -> tf.Tensor:
    """Random numbers in [0, 1) that depend on each example's own seed only.

    `tf.random.stateless_uniform` takes one seed per call; this one takes one per row.
    The numbers are a block cipher's image of 0, 1, 2, ... under the row's seed.

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


def row_keys(seed: int, epochs: tf.Tensor) -> tf.Tensor:
    """uint32 `[B, 3]`, as RandomIndexShuffle takes its seeds: one per row.

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
