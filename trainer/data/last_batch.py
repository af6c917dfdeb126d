"""The batch that a stream gave last, kept for a look at it when its loss is bad.

A stream can't give a batch twice. The batch isn't copied: a variable holds on to the
tensors until the next batch takes their place. Nothing that training computes reads
them, so no checkpoint holds them.

>>> import tensorflow as tf
>>> from trainer.data.last_batch import LastBatch
>>> last = LastBatch({"x": tf.TensorSpec([2], tf.float32)})
>>> last.batch() is None
True
>>> last.keep({"x": tf.constant([0.5, 1.5])})
>>> last.batch()["x"].numpy().tolist()
[0.5, 1.5]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import tensorflow as tf


@final
class LastBatch:
    """Holds on to one batch.

    Attributes:
      resources: of the variables in which it lies.
    """

    def __init__(self, spec: Mapping[str, tf.TensorSpec]) -> None:
        """For batches by name, of this outline; there is none yet."""
        with tf.device("CPU"):  # where an input is, so that nothing is copied
            self._kept = tf.Variable(False, name="kept", trainable=False)
            self._parts = {
                name: tf.Variable(
                    tf.zeros([0], one.dtype),
                    shape=tf.TensorShape(None),
                    trainable=False,
                    name=f"last_{name}",
                )
                for name, one in spec.items()
            }
        self._spec = dict(spec)
        every = (self._kept, *self._parts.values())
        self.resources: tuple[Any, ...] = tuple(one.handle for one in every)

    def keep(self, batch: Mapping[str, tf.Tensor]) -> None:
        """Takes the place of the one before."""
        for name, variable in self._parts.items():
            variable.assign(batch[name])
        self._kept.assign(True)

    def batch(self) -> dict[str, tf.Tensor] | None:
        """The one that was kept last; None: there was none."""
        if not self._kept.numpy():
            return None
        return {
            name: tf.ensure_shape(variable.value(), self._spec[name].shape)
            for name, variable in self._parts.items()
        }
