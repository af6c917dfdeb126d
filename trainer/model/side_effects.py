"""What an evaluation moves, put back: it leaves no trace in the training.

    >>> import tensorflow as tf
    >>> from trainer.model import side_effects
    >>> calls = tf.Variable(0)
    >>> traced = tf.function(lambda: calls.assign_add(1)).get_concrete_function()
    >>> with side_effects.undone(traced):
    ...     [int(traced()) for _ in range(3)]
    [1, 2, 3]
    >>> int(calls)
    0

Such are the state of a recurrent layer or a generator, a metric, and a table.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import tensorflow as tf

from trainer.model import captures


@contextlib.contextmanager
def undone(
    function: Any, metrics: Iterable[keras.metrics.Metric] = ()
) -> Iterator[None]:
    """Puts back, in the end, what a concrete function may have moved.

    It costs no memory, except for what is moved.

    Args:
      function: a `tf.types.experimental.ConcreteFunction`.
      metrics: those of them that the function captures begin anew, so that what they
        have counted in training doesn't enter what they say of an evaluation.
    """
    captured = {id(variable.handle): variable for variable in function.graph.variables}
    used = [
        metric
        for metric in metrics
        if any(id(one.value.handle) in captured for one in metric.variables)
    ]
    for metric in used:
        captured |= {id(one.value.handle): one.value for one in metric.variables}
    before = [(variable, variable.read_value()) for variable in captured.values()]
    tables = [
        _as_it_is(one)
        for one in captures.of(function.graph)
        if one.is_table and one.written
    ]
    for metric in used:
        metric.reset_state()
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        for put_back in tables:
            put_back()


def _as_it_is(table: captures.Capture) -> Callable[[], None]:
    """Reads a table that is written; the result brings it back to that."""
    (attributes, *_) = (node.attr for node in table.uses if "Tin" in node.attr)
    keys, values = tf.raw_ops.LookupTableExportV2(
        table_handle=table.handle,
        Tkeys=tf.as_dtype(attributes["Tin"].type),
        Tvalues=tf.as_dtype(attributes["Tout"].type),
    )

    def put_back() -> None:
        tf.raw_ops.LookupTableImportV2(
            table_handle=table.handle, keys=keys, values=values
        )

    return put_back
