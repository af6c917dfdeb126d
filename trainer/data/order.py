"""The order of training: a pure function of (seed, step), so nothing is saved.

Training example number `p` (`p = step * batch_size + i`) belongs to epoch `p // N`.
Its place in the source is `p % N` under a permutation that the seed and the epoch
choose, so each epoch sees each example once, and resuming at any step costs nothing.
The permutation is a block cipher, not a table: `tf.raw_ops.RandomIndexShuffle`,
https://www.tensorflow.org/api_docs/python/tf/random/experimental/index_shuffle.

    >>> import tensorflow as tf
    >>> from trainer.data import order
    >>> step = tf.constant(0, tf.int64)
    >>> sorted(order.shuffled(step, batch_size=4, length=4, seed=7).numpy().tolist())
    [0, 1, 2, 3]
"""

from __future__ import annotations

import tensorflow as tf

from trainer.data.random import row_keys

_CIPHER_ROUNDS = 8


def places(number: tf.Tensor, batch_size: int) -> tf.Tensor:
    """The numbers of the examples of a batch, counted from the very first: int64."""
    return number * batch_size + tf.range(batch_size, dtype=tf.int64)


def shuffled(step: tf.Tensor, *, batch_size: int, length: int, seed: int) -> tf.Tensor:
    """Which examples the batch of a step consists of.

    Args:
      step: int64 scalar.
      batch_size: examples per batch.
      length: examples in the source.
      seed: of the run.

    Returns:
      int64 `[batch_size]`, places in the source.
    """
    return drawn(places(step, batch_size), length=length, seed=seed)


def drawn(numbers: tf.Tensor, *, length: int, seed: int) -> tf.Tensor:
    """Places in the source of the examples of these numbers, int64 `[B]`."""
    keys = row_keys(seed, numbers // length)
    return permuted(numbers % length, tf.constant(length, tf.int64), keys)


def permuted(index: tf.Tensor, count: tf.Tensor, keys: tf.Tensor) -> tf.Tensor:
    """Where places go under permutations.

    Args:
      index: int64 `[B]`, the places.
      count: int64 scalar or `[B]`, of how many.
      keys: uint32 `[B, 3]` of the permutations, what `random.row_keys` gives.
    """
    return tf.raw_ops.RandomIndexShuffle(
        index=index, seed=keys, max_index=count - 1, rounds=_CIPHER_ROUNDS
    )
