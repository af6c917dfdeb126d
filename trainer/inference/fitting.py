"""Arrays of the user's own, as the networks of a task take them.

>>> import tensorflow as tf
>>> from trainer.inference import fitting
>>> spec = tf.TensorSpec([None, 2], tf.float32)
>>> fitting.taken("mine.npz", "x", [[1, 2], [3, 4]], spec).dtype
dtype('float32')
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from trainer import data
from trainer.data import ragged
from trainer.data.sources import as_tensor


def taken(place: str, name: str, given: Any, spec: tf.TensorSpec) -> Any:
    """An array that fits, or rows of unequal lengths whose values do.

    Args:
      place: where it comes from, for messages.
      name: of it.
      given: `[N, ...]`, or rows of unequal lengths.
      spec: of a batch of the task.

    Raises:
      DataError: its shape or its values don't fit.
    """
    if not isinstance(given, tf.RaggedTensor) and not ragged.is_ragged(given):
        return _fitting(place, name, np.asarray(given), spec)
    rows = as_tensor(name, given)
    flat = tf.TensorSpec([None, *spec.shape[2:]], spec.dtype)
    return rows.with_values(_fitting(place, name, rows.values.numpy(), flat))


def _fitting(path: str, name: str, array: np.ndarray, spec: tf.TensorSpec) -> Any:
    """The array in the task's own dtype, where no value changes by that."""
    kind = spec.dtype.as_numpy_dtype
    shape = spec.shape[1:]
    if array.ndim == 0 or not shape.is_compatible_with(array.shape[1:]):
        expected = str(("N", *shape)).replace("'", "")
        raise data.DataError(
            f"{path}: {name!r} has shape {array.shape}; the task has "
            f"{tuple(shape)} an example, so expected {expected}."
        )
    texts = spec.dtype == tf.string and array.dtype.kind in "US"
    if array.dtype == kind or texts:
        return array
    same = array.dtype.kind == "f" and np.issubdtype(kind, np.floating)
    with np.errstate(invalid="ignore"):
        converted = array.astype(kind) if array.dtype.kind in "biuf" else None
    if converted is None or not (same or np.array_equal(converted, array)):
        raise data.DataError(
            f"{path}: {name!r} is {array.dtype}; the task has {spec.dtype.name}, which "
            "can't hold all of its values. Convert it as the task's own data was."
        )
    return converted
