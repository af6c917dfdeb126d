"""One pass over a dataset, from its first element to its end.

>>> import tensorflow as tf
>>> from trainer.data import one_pass
>>> [int(one) for one in one_pass.elements(tf.data.Dataset.range(3))]
[0, 1, 2]
>>> one_pass.check(tf.data.Dataset.range(3).repeat())
Traceback (most recent call last):
    ...
trainer.data.sources.DataError: the dataset to evaluate or predict has no end, ...
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.data import failures
from trainer.data.datasets import endless
from trainer.data.sources import DataError

_ENDLESS = (
    "the dataset to evaluate or predict has no end, and each of its examples counts "
    "once. Expected one that ends. Leave out repeat(), or say how many count: "
    "dataset.take(n)."
)
_EMPTY = (
    "the dataset to evaluate or predict is empty: it ended before its first example. "
    "Expected at least one. Look at the path or the filter that it comes from."
)


def check(dataset: tf.data.Dataset) -> None:
    """Refuses, without opening it, what is known to have no end or no elements.

    Raises:
      DataError: says which.
    """
    if endless(dataset):
        raise DataError(_ENDLESS)
    if dataset.cardinality() == 0:
        raise DataError(_EMPTY)


def elements(dataset: tf.data.Dataset) -> Iterator[Any]:
    """The elements of a dataset; what fails in reading them is told as it is.

    Raises:
      SourceError: an example can't be read or decoded.
      DataError: there is no end, or no element; examples of unequal shapes were to be
        one batch.
    """
    check(dataset)
    count = 0
    with failures.told(lambda: failures.search(dataset, count)):
        for one in dataset:
            yield one
            count += 1
    if not count:
        raise DataError(_EMPTY)
