"""What a `tf.data.Dataset` is made of, without opening it.

>>> import tensorflow as tf
>>> from trainer.data import datasets
>>> numbers = tf.data.Dataset.range(9).map(lambda x: {"x": x}).batch(3)
>>> datasets.describe(numbers)
'a stream of x int64 (None,): Range, Map, Batch; 3 examples'
>>> datasets.writes(numbers.cache()), datasets.writes(numbers.cache("there"))
('', "cache('there')")
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.compat.datasets import (
    chain,
    filename,
    functions,
    inputs,
    reshuffles,
)
from trainer.data.indexed import Indexed, read_by
from trainer.data.sources import outline

# What never ends passes through them without an end, fewer or other elements or not.
_PASSING = (
    *("Filter", "FlatMap", "Interleave", "Map", "ParallelMap", "Shuffle", "Unbatch"),
    *("Batch", "ParallelBatch", "PaddedBatch", "Prefetch", "Options", "Window"),
)
# They keep files of their own, by which a second opening finds what the first one left.
_WRITERS = ("Snapshot", "Save", "ParallelSnapshot")
_KEEPS_PYTHON = {"PyFunc", "EagerPyFunc", "GeneratorDataset"}
_PYTHON = {*_KEEPS_PYTHON, "PyFuncStateless"}


def kind(dataset: tf.data.Dataset) -> str:
    """What a dataset is called after the method that made it, such as `Shuffle`."""
    return type(dataset).__name__.strip("_").removesuffix("Dataset")


def describe(dataset: tf.data.Dataset, unit: str = "examples") -> str:
    """What a position in a dataset depends on, as far as it can be told.

    Such as `a stream of x float32 (2,): TensorSlice, Shuffle, Map; 60000 examples`.
    """
    made_by = [kind(one) for one in chain(dataset)]
    count = int(dataset.cardinality().numpy())
    length = f"; {count} {unit}" if count >= 0 else ""
    examples = outline(dataset.element_spec)
    return f"a stream of {examples}: {', '.join(made_by[::-1])}{length}"


def writes(dataset: tf.data.Dataset) -> str:
    """Which part of a dataset writes to the disk while it is read; none: empty."""
    for one in chain(dataset):
        name = kind(one)
        if name in _WRITERS:
            return f"{name.lower()}()"
        if name == "Cache" and filename(one):
            return f"cache({filename(one)!r})"
    return ""


def endless(dataset: tf.data.Dataset) -> bool:
    """Whether it is known to have no end."""
    count = dataset.cardinality()
    if count != tf.data.UNKNOWN_CARDINALITY:
        return bool(count == tf.data.INFINITE_CARDINALITY)
    return kind(dataset) in _PASSING and endless(inputs(dataset)[0])


def unshuffled(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The largest parts of a dataset that give the same elements at each start.

    A shuffle may draw another order in each process, and be resumed exactly all the
    same, since its position is saved.
    """
    every = list(chain(dataset))
    if not any(reshuffles(one) or kind(one) == "Random" for one in every):
        return [dataset]
    return [part for one in inputs(dataset) for part in unshuffled(one)]


def runs_python(dataset: tf.data.Dataset) -> bool:
    """Whether a dataset itself calls Python: `from_generator`, `py_function`.

    A source that is read by index doesn't count: it was tried at the start.
    """
    return _calls(dataset, _PYTHON)


def keeps_python(dataset: tf.data.Dataset) -> bool:
    """Whether TensorFlow takes what a dataset calls in Python to have a state."""
    return _calls(dataset, _KEEPS_PYTHON)


def read(dataset: tf.data.Dataset) -> list[Indexed]:
    """The sources that a dataset itself reads by index."""
    return [
        source
        for function in functions(dataset)
        for nodes in _bodies(function.graph)
        for node in nodes
        if (source := read_by(node)) is not None
    ]


def _calls(dataset: tf.data.Dataset, ops: set[str]) -> bool:
    return any(
        node.op in ops and read_by(node) is None
        for function in functions(dataset)
        for nodes in _bodies(function.graph)
        for node in nodes
    )


def _bodies(graph: Any) -> Iterator[Any]:
    definition = graph.as_graph_def()
    yield definition.node
    for function in definition.library.function:
        yield function.node_def
