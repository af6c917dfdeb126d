"""Arrays in memory whose rows are of unequal lengths.

>>> from trainer.data import ragged
>>> found = ragged.tensor("tokens", [[3, 1], [4, 1, 5]])
>>> found.shape.as_list(), found.row_lengths().numpy().tolist()
([2, None], [2, 3])
>>> ragged.tensor("y", [0.5, 1.5]).shape.as_list()
[2]
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data.records import ValueProblemError

_PYTHON = (list, tuple)
_INT32 = np.iinfo(np.int32)


def tensor(name: str, value: Any) -> Any:
    """A tensor; a `tf.RaggedTensor` where the rows are of unequal lengths.

    Args:
      name: for messages.
      value: an array, or a sequence of arrays or lists.

    Raises:
      ValueProblemError: the rows differ in more than their first dimension.
    """
    if isinstance(value, tf.RaggedTensor):
        if value.ragged_rank != 1:
            raise ValueProblemError(
                f"{name!r} is ragged in {value.ragged_rank} dimensions, "
                f"{tuple(value.shape)}. Expected rows [length, ...] that differ in "
                "their first dimension only. Fill the others: value.to_tensor()."
            )
        return value
    rows = _rows(value)
    if rows is None:
        return tf.convert_to_tensor(value)
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    try:
        if lengths.min() == lengths.max():
            return tf.convert_to_tensor(_stacked(value))
        flat = _flat([row for row in rows if len(row)])
    except ValueError as error:
        raise ValueProblemError(
            f"the rows of {name!r} can't be put together: {error}. Expected rows "
            "[length, ...] of one dtype that differ in their first dimension only. "
            "Reshape or pad them: np.asarray(row)."
        ) from None
    return tf.RaggedTensor.from_row_lengths(flat, lengths)


def is_ragged(value: Any) -> bool:
    """Whether it is a sequence of rows of unequal lengths, not put together yet."""
    rows = _rows(value)
    if rows is None:
        return False
    return _is_objects(value) or len(set(map(len, rows))) > 1


def is_single(value: Any) -> bool:
    """Whether it is one value and no rows."""
    if isinstance(value, _PYTHON):
        return False
    shape = getattr(value, "shape", None)
    return np.ndim(value) == 0 if shape is None else len(shape) == 0


def length(value: Any) -> int:
    """How many rows there are."""
    return int(value.nrows()) if isinstance(value, tf.RaggedTensor) else len(value)


def lengths(value: Any) -> np.ndarray:
    """Of each row; int64 `[N]`."""
    if isinstance(value, tf.RaggedTensor):
        found: np.ndarray = value.row_lengths().numpy()
        return found
    return np.fromiter((len(row) for row in value), np.int64, len(value))


def _rows(value: Any) -> Sequence[Any] | None:
    """The rows of what may be ragged; None: a tensor holds it as it is."""
    if not isinstance(value, _PYTHON) and not _is_objects(value):
        return None
    if not len(value) or isinstance(value[0], str | bytes):
        return None
    if any(is_single(row) for row in value):
        return None
    rows: Sequence[Any] = value
    return rows


def _is_objects(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def _stacked(value: Any) -> Any:
    return np.stack(list(value)) if _is_objects(value) else value


def _flat(rows: Sequence[Any]) -> np.ndarray:
    """All rows, one after the other; numbers of Python as TensorFlow takes them."""
    if not all(isinstance(row, _PYTHON) for row in rows):
        return np.concatenate([np.asarray(row) for row in rows])
    flat = np.asarray(list(itertools.chain.from_iterable(rows)))
    if flat.dtype == np.float64:
        return flat.astype(np.float32)
    if flat.dtype == np.int64 and flat.min() >= _INT32.min and flat.max() <= _INT32.max:
        return flat.astype(np.int32)
    return flat
