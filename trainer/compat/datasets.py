"""What a `tf.data.Dataset` is made of, and the resource of its iterator.

The public alternative to the first three, `tf.raw_ops.DatasetToGraphV2`, copies all
data into the graph that it gives: memory in proportion to the data, 2 GB at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

ITERATOR_RESOURCE = "_iterator_resource"
STOPS_ON_EMPTY = "_stop_on_empty_dataset"
BATCH_SIZE = "_batch_size"
RESHUFFLES = "_reshuffle_each_iteration"
FILENAME = "_filename"


def chain(dataset: tf.data.Dataset) -> Iterator[tf.data.Dataset]:
    """A dataset and all that it is made from, the last first.

    Private: `Dataset._inputs`. Reason: hidden state is looked for in each.
    Risk: if the name goes, a run on a stream fails at its start.
    """
    waiting = [dataset]
    while waiting:
        one = waiting.pop()
        waiting += one._inputs()
        yield one


def inputs(dataset: tf.data.Dataset) -> list[tf.data.Dataset]:
    """The datasets that one is made from directly.

    Private: `Dataset._inputs`. Reason and risk: as for `chain`.
    """
    return list(dataset._inputs())


def functions(dataset: tf.data.Dataset) -> list[Any]:
    """The concrete functions of one dataset, such as that of `map`.

    Private: `Dataset._functions` and what it gives. Reason and risk: as for `chain`.
    """
    return [one.function for one in dataset._functions()]


def batch_size(dataset: tf.data.Dataset) -> int:
    """How many elements a `batch` puts together; 0 of any other dataset.

    Private: `_batch_size` of what `batch` and `padded_batch` give. Reason: how many
    examples `take` and `skip` leave of a dataset of batches. Risk: with another name
    such a dataset has no epochs. Public alternative: none.
    """
    size = getattr(dataset, BATCH_SIZE, None)
    return int(size) if size is not None else 0


def filename(dataset: tf.data.Dataset) -> str:
    """The file of a `cache`; "" of one in memory, and of any other dataset.

    Private: `_filename` of what `cache` gives. Reason: a second opening finds what the
    first one left there. Risk: with another name such a cache is not refused.
    Public alternative: none.
    """
    name = getattr(dataset, FILENAME, None)
    return name.numpy().decode(errors="replace") if name is not None else ""


def reshuffles(dataset: tf.data.Dataset) -> bool:
    """Whether it is a shuffle that draws another order each time it is iterated.

    Private: `_reshuffle_each_iteration` of what `shuffle` gives. Risk: with another
    name an evaluation in another order each time is not refused.
    """
    # None, too, makes TensorFlow draw anew: that is what the op does by default.
    return getattr(dataset, RESHUFFLES, False) is not False


def stops_on_empty(dataset: tf.data.Dataset) -> bool:
    """Whether sampling from datasets ends as soon as one of them does.

    Private: `_stop_on_empty_dataset` of what `sample_from_datasets` gives. Reason: one
    that goes on can't be restored. Risk: with another name, finite datasets to sample
    from are refused in any case. Public alternative: none.
    """
    return bool(getattr(dataset, STOPS_ON_EMPTY, False))


def iterator_resource(node: Any) -> Any:
    """The resource tensor of an iterator; None of anything else.

    Private: `_iterator_resource`. Reason: the audit compares it with what the train
    loop captures. Risk: with another name, streams are refused as unsaved.
    Public alternative: none.
    """
    return getattr(node, ITERATOR_RESOURCE, None)
