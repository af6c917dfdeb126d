"""What the elements of a `tf.data.Dataset` may be, and what is wrong with others.

>>> import tensorflow as tf
>>> from trainer.data import elements
>>> elements.odd("x", (tf.TensorSpec([]), tf.TensorSpec([])))[0]
"'x', a tuple of 2, in the place of a tensor"
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from trainer.data.records import ValueProblemError, by_name
from trainer.data.sources import DataError

_NAMES = "Expected tensors by one name each, or (x, y), or (x, y, weight). Name them: "


def check(spec: Any, name: str) -> None:
    """Refuses what no name can be given to, and what is no tensor at all.

    Args:
      spec: `tf.data.Dataset.element_spec`.
      name: of the split.

    Raises:
      DataError: says what is expected, and a line that gives it.
    """
    try:
        parts = by_name(spec)
    except ValueProblemError:
        raise DataError(
            f"the dataset of {name!r} gives tuples of {len(spec)}, which have no "
            f'names. {_NAMES}dataset.map(lambda a, b, c, d: {{"a": a, "b": b, ...}}).'
        ) from None
    for key, one in parts.items():
        for inner in tf.nest.flatten(one):
            if not isinstance(
                inner, tf.TensorSpec | tf.RaggedTensorSpec | tf.SparseTensorSpec
            ):
                problem, line = odd(key, inner)
                raise DataError(f"the dataset of {name!r} gives {problem}. {line}")


def odd(key: str, spec: Any) -> tuple[str, str]:
    """What is wrong with a part of an element, and the line that mends it.

    Args:
      key: its name.
      spec: of what is there instead of a tensor.
    """
    if isinstance(spec, Mapping):
        inner = next(iter(spec), "a")
        return f"{key!r}, which holds {', '.join(map(repr, spec))} in turn", (
            f'{_NAMES}dataset.map(lambda x, y: {{"{inner}": x["{inner}"], ..., '
            '"y": y}).'
        )
    if isinstance(spec, list | tuple):
        return f"{key!r}, a tuple of {len(spec)}, in the place of a tensor", (
            f'{_NAMES}dataset.map(lambda one: {{"{key}": one["{key}"][0], ...}}).'
        )
    if isinstance(spec, tf.RaggedTensorSpec):
        return f"{key!r} as a ragged tensor {tuple(spec.shape)}", (
            "Expected tensors of one shape. Make it dense before the batches are made: "
            f'{{**one, "{key}": one["{key}"].to_tensor(shape=[...])}}, or give '
            "examples of unequal lengths to dataset.padded_batch(n)."
        )
    if isinstance(spec, tf.SparseTensorSpec):
        return f"{key!r} as a sparse tensor {tuple(spec.shape)}", (
            "Expected tensors of one shape. Make it dense: "
            f'{{**one, "{key}": tf.sparse.to_dense(one["{key}"])}}.'
        )
    if isinstance(spec, tf.data.DatasetSpec):
        return f"{key!r} as datasets, as window() makes them", (
            "Expected tensors. Make one of each: dataset.flat_map(lambda window: "
            "window.batch(n))."
        )
    return f"{key!r} as {type(spec).__name__.removesuffix('Spec')}, without a value", (
        "Expected tensors. Leave it out, and name what is there: "
        'dataset.map(lambda x, _: {"x": x}).'
    )
