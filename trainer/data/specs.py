"""The outline of a batch as JSON, so that a network is built without the data.

>>> import tensorflow as tf
>>> from trainer.data import specs
>>> written = specs.written({"x": tf.TensorSpec([8, None], tf.float32)})
>>> written
{'x': {'dtype': 'float32', 'shape': [8, None]}}
>>> specs.read(written)["x"]
TensorSpec(shape=(8, None), dtype=tf.float32, name=None)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf


def of(batch: Any) -> Any:
    """The outline of tensors, nested in any way."""
    return tf.nest.map_structure(
        lambda one: (
            tf.TensorSpec(one.shape, one.dtype) if isinstance(one, tf.Tensor) else one
        ),
        batch,
    )


def written(spec: Any) -> dict[str, Any] | None:
    """As JSON; None if there is anything but tensors in mappings."""
    if isinstance(spec, Mapping):
        found = {str(name): written(one) for name, one in spec.items()}
        return None if None in found.values() else found
    if type(spec) is not tf.TensorSpec or spec.shape.rank is None:
        return None
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}


def read(given: Mapping[str, Any]) -> Any:
    """What `written` wrote.

    Raises:
      KeyError, TypeError, ValueError, AttributeError: it is nothing of the kind.
    """
    if isinstance(given.get("dtype"), str):
        return tf.TensorSpec(given["shape"], tf.as_dtype(given["dtype"]))
    return {str(name): read(one) for name, one in given.items()}


def placeholders(spec: Any) -> Any:
    """Tensors like that in the graph that is traced; it can't be run."""
    return tf.nest.map_structure(
        lambda one: tf.compat.v1.placeholder(one.dtype, one.shape), spec
    )


def made_up(spec: Mapping[str, tf.TensorSpec], count: int) -> dict[str, np.ndarray]:
    """Examples like that, always the same: numbers in [0, 1), or zeros, or ""."""
    chance = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for name, one in spec.items():
        shape = [count, *(3 if size is None else size for size in one.shape[1:])]
        if one.dtype == tf.string:
            found[name] = np.full(shape, b"", "S1")
        elif one.dtype.is_floating:
            found[name] = chance.random(shape).astype(one.dtype.as_numpy_dtype)
        else:
            found[name] = np.zeros(shape, one.dtype.as_numpy_dtype)
    return found
