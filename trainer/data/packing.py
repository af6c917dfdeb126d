"""Examples of unequal shapes, read many at a time: in one piece, and cut apart by ops.

>>> import numpy as np, tensorflow as tf
>>> from trainer.data import packing
>>> values, shapes = packing.pack([np.array([3, 1]), np.array([4, 1, 5])])
>>> values.tolist(), shapes.tolist()
([3, 1, 4, 1, 5], [[2], [3]])
>>> both = packing.packed(tf.constant(values), tf.constant(shapes))
>>> both.rows(tf.TensorSpec([None], tf.int64)).to_list()
[[3, 1], [4, 1, 5]]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf


class Packed(NamedTuple):
    """Arrays of one rank as their values, all in one row, and their shapes.

    Attributes:
      values: `tf.RaggedTensor` `[B, None]`; of one array a tensor `[None]`.
      shapes: int64 `[B, rank]`; of one array `[rank]`.
    """

    values: Any
    shapes: tf.Tensor

    def one(self, spec: tf.TensorSpec) -> tf.Tensor:
        """A single array, of that spec."""
        found = tf.reshape(self.values, self.shapes)
        found.set_shape(spec.shape)
        return found

    def rows(self, spec: tf.TensorSpec) -> tf.RaggedTensor:
        """All of them, of that spec, in which only the first dimension is not known."""
        lengths = self.shapes[:, 0]
        shape = [tf.reduce_sum(lengths), *spec.shape[1:]]
        values = tf.reshape(self.values.flat_values, shape)
        return tf.RaggedTensor.from_row_lengths(values, lengths, validate=False)


def packed(values: tf.Tensor, shapes: tf.Tensor) -> Packed:
    """What `pack` gave, as it can be cut apart."""
    sizes = tf.reduce_prod(shapes, 1)
    ragged = tf.RaggedTensor.from_row_lengths(values, sizes, validate=False)
    return Packed(ragged, shapes)


def pack(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The values of all, and the shape of each (int64 `[B, rank]`)."""
    values = np.concatenate([np.reshape(one, -1) for one in arrays])
    return [values, np.array([one.shape for one in arrays], np.int64)]
