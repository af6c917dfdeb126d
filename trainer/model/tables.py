"""Tables in checkpoints, in an order that depends on their content alone.

    >>> import tensorflow as tf
    >>> from trainer.model import tables
    >>> counts = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, 0)
    >>> counts.insert(["b", "a"], [2, 1])
    >>> tables.save_sorted(counts)      # a checkpoint has `a` before `b` from now on

A hash table gives its entries in an order that depends on the order in which they came.
After a resume they came in another one, so the same table would be other bytes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.compat import tracking

_TABLES = (
    tf.lookup.experimental.MutableHashTable,
    tf.lookup.experimental.DenseHashTable,
)


def save_sorted(node: Any) -> None:
    """From now on the node, if it is a table, is saved in the order of its keys."""
    if not isinstance(node, _TABLES):
        return
    table = node

    def serialize() -> dict[str, tf.Tensor]:
        keys, values = table.export()
        if tf.executing_eagerly():
            order = _order(keys.numpy(), _unused(table))
            keys, values = tf.gather(keys, order), tf.gather(values, order)
        return {"-keys": keys, "-values": values}

    tracking.save_as(table, serialize)


def _unused(table: Any) -> list[Any]:
    """The keys by which a dense table marks that there is no entry."""
    return [np.ravel(np.asarray(one)) for one in tracking.table_marks(table)]


def _order(keys: Any, unused: list[Any]) -> Any:
    """The places of keys `[N, ...]` when they are sorted, unused ones left out."""
    rows = keys.reshape([len(keys), math.prod(keys.shape[1:])])
    if keys.dtype == object:
        order = np.array(sorted(range(len(rows)), key=lambda n: tuple(rows[n])))
    else:
        order = np.lexsort(rows.T[::-1])
    used = np.ones([len(rows)], bool)
    for mark in unused:
        used &= (rows != mark).any(axis=1)
    order = order.astype(np.int64)
    return order[used[order]]
