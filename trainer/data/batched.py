"""Datasets whose elements are batches: how they were made, how many examples they are.

>>> import tensorflow as tf
>>> from trainer.data import batched
>>> batches = tf.data.Dataset.range(10).batch(4).prefetch(1)
>>> len(batched.made_by(batches)), batched.examples(batches.skip(1))
(1, 6)
"""

from __future__ import annotations

import tensorflow as tf

from trainer.compat.datasets import batch_size, functions, inputs
from trainer.data.datasets import kind

PADDED = ("PaddedBatch", "GroupByWindow")
_BATCHES = ("Batch", "ParallelBatch", "PaddedBatch", "Rebatch")
_BATCH_OPS = ("BatchDatasetV2", "ParallelBatchDataset", "PaddedBatchDatasetV2")
# One element comes out for each that goes in, in their order, or in another one.
_ORDERED = ("Map", "ParallelMap", "Prefetch", "Options", "Cache", "AssertCardinality")
_ALIKE = (*_ORDERED, "Shuffle", "Restructured")
_OTHERS = ("Take", "Skip", "Repeat", "Shard", "Filter", "Zip", "Concatenate")
_SELECTED = "DirectedInterleave"

_UNKNOWN = int(tf.data.UNKNOWN_CARDINALITY)


def made_by(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """What makes the batches that a dataset gives; nothing: it gives examples.

    Told from what it ends in: `batch` and what lets batches pass. Batches have one
    leading dimension in all of their parts; windows that were made by `batch` and
    taken apart by a `map` don't.
    """
    leading, found = _leading(dataset), _made_by(dataset)
    sizes = {None, *(batch_size(one) or None for one in found)}
    return found if len(leading) == 1 and (leading <= sizes or sizes == {None}) else []


def examples(dataset: tf.data.Dataset) -> int:
    """How many examples the batches of a dataset are, as `cardinality` counts."""
    count = _cardinality(dataset)
    size = next(iter(_leading(dataset)), None)
    if count >= 0 and size:
        return count * size
    name, below = kind(dataset), inputs(dataset)
    found = [examples(one) for one in below] if name not in _BATCHES else []
    if name in _BATCHES and name != "Rebatch":
        return _cardinality(below[0])
    if name in _ALIKE:
        return found[0]
    if name == "Zip":
        return found[0] if len(set(found)) == 1 else _UNKNOWN
    if name == "Concatenate":
        return sum(found) if min(found) >= 0 else _UNKNOWN
    if name == "Repeat" and count >= 0 < found[0]:
        return found[0] * (count // _cardinality(below[0]))
    if name in ("Take", "Skip"):
        return _part(dataset, found[0])
    return _UNKNOWN if count >= 0 else count


def _made_by(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    name, below = kind(dataset), inputs(dataset)
    if name in _BATCHES or (name == "GroupByWindow" and _batches_inside(dataset)):
        return [dataset]
    if name not in (*_ALIKE, *_OTHERS, _SELECTED):
        return []
    every = [_made_by(one) for one in below[name == _SELECTED :]]
    return [one for some in every for one in some] if all(every) else []


def _leading(dataset: tf.data.Dataset) -> set[int | None]:
    """The leading dimensions of what it gives; that of a single value is 0."""
    return {
        one.shape[0] if one.shape.rank else one.shape.rank
        for one in tf.nest.flatten(dataset.element_spec)
        if isinstance(one, tf.TensorSpec | tf.RaggedTensorSpec | tf.SparseTensorSpec)
    }


def _batches_inside(dataset: tf.data.Dataset) -> bool:
    return any(
        node.op in _BATCH_OPS
        for function in functions(dataset)
        for node in function.graph.as_graph_def().node
    )


def _part(dataset: tf.data.Dataset, whole: int) -> int:
    """The examples that `take` and `skip` leave; the last batch alone may be small."""
    (below,) = inputs(dataset)
    count, every, size = _cardinality(dataset), _cardinality(below), _size(below)
    if min(count, every, whole) < 0 or not size:
        return _UNKNOWN
    if kind(dataset) == "Take":
        return min(whole, count * size)
    return max(0, whole - (every - count) * size)


def _size(dataset: tf.data.Dataset) -> int:
    """Of all batches but the last one; 0: not known."""
    if kind(dataset) in _BATCHES:
        return batch_size(dataset)
    through = kind(dataset) in (*_ORDERED, "Take", "Skip")
    return _size(inputs(dataset)[0]) if through else 0


def _cardinality(dataset: tf.data.Dataset) -> int:
    return int(dataset.cardinality().numpy())
