"""Metrics that are no means of examples: of Keras, and of all predictions of a split.

>>> import keras, tensorflow as tf
>>> from line import Line
>>> from trainer.model import measures
>>> class Told(Line):
...     def metrics(self): return {"share": keras.metrics.BinaryAccuracy()}
>>> found = measures.Measures(Told())
>>> found.update({"share": (tf.constant([[1.0], [0.0]]), tf.constant([[0.9], [0.8]]))})
>>> found.results()
{'share': 0.5}

They are begun anew at each evaluation, so no checkpoint need hold them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, final

import keras
import numpy as np

from trainer.compat import autograph
from trainer.model.contract import is_value_name
from trainer.task import Task, TaskError


def names(task: Task) -> frozenset[str]:
    """What the metrics of a task are called; not to be asked while it is traced."""
    return frozenset(given(task))


def given(task: Task) -> dict[str, keras.metrics.Metric]:
    """Fresh metrics of a task, by name.

    Raises:
      task.TaskError: one of them is no metric of Keras.
    """
    if type(task).metrics is Task.metrics:
        return {}
    name = f"{type(task).__name__}.metrics()"
    every = task.metrics()
    if not isinstance(every, Mapping):
        raise TaskError(
            f"{name} returns {type(every).__name__}; expected metrics by name: return "
            '{"auc": keras.metrics.AUC()}.'
        )
    for key, one in every.items():
        if not isinstance(one, keras.metrics.Metric) or not is_value_name(key):
            raise TaskError(
                f"{name} gives {key!r} as {type(one).__name__}; expected metrics of "
                "Keras by names of letters, digits, '_', '-' and '.': return "
                '{"auc": keras.metrics.AUC()}.'
            )
    return dict(every)


@final
class Measures:
    """The metrics of one task, over one split.

    Attributes:
      metrics: of Keras, by name.
      variables: of all of them.
    """

    def __init__(self, task: Task) -> None:
        self._where = type(task).__name__
        self.metrics = given(task)
        self.variables = [v for one in self.metrics.values() for v in one.variables]

    @autograph.unconverted
    def update(self, arguments: Mapping[str, tuple[Any, ...]]) -> None:
        """Lets each metric see a batch; traced.

        Args:
          arguments: of its `update_state`, by name.

        Raises:
          task.TaskError: one of them is not given what it measures.
        """
        for name, metric in self.metrics.items():
            if name not in arguments:
                raise TaskError(
                    f"{self._where}.values() gives nothing for the metric {name!r} of "
                    "metrics(). Expected what it measures, as its update_state takes "
                    f'it: {{"{name}": (batch["label"], scores)}}.'
                )
            try:
                metric.update_state(*arguments[name])
            except (TypeError, ValueError) as error:
                shapes = ", ".join(str(one.shape) for one in arguments[name])
                raise TaskError(
                    f"{self._where}.values() gives {name!r} as {shapes}, which "
                    f"{type(metric).__name__} can't take: {error} Expected what its "
                    f"update_state takes, (labels, predictions) or with a weight."
                ) from error

    def results(self) -> dict[str, float]:
        """What each metric says of the batches since it was reset.

        Raises:
          task.TaskError: that is no number.
        """
        found = {}
        for name, metric in self.metrics.items():
            value = np.asarray(metric.result())
            if value.ndim:
                raise TaskError(
                    f"the metric {name!r} of {self._where}.metrics() gives an array of "
                    f"shape {value.shape}; expected one number, which can be ranked. "
                    "Reduce it in a metric of your own: result(self) returns a scalar."
                )
            found[name] = float(value)
        return found


def scored(
    task: Task,
    examples: Mapping[str, Any],
    predictions: Mapping[str, Any],
    others: Collection[str] = (),
) -> dict[str, float]:
    """`Task.scores` of a whole split, checked.

    Args:
      task: whose.
      examples: arrays `[N, ...]` by name.
      predictions: arrays `[N, ...]` by name.
      others: names that are taken, by values and metrics.

    Raises:
      task.TaskError: it gives no numbers by name, or one by a name that is taken.
    """
    where, numbers = f"{type(task).__name__}.scores()", {}
    every = task.scores(examples, predictions)
    if not isinstance(every, Mapping):
        raise TaskError(
            f"{where} returns {type(every).__name__}; expected numbers by name: return "
            '{"error_rate": 0.25}.'
        )
    for name, value in every.items():
        array = np.asarray(value)
        if array.ndim or array.dtype.kind not in "fiub" or not is_value_name(name):
            raise TaskError(
                f"{where} gives {name!r} as {type(value).__name__}; expected one "
                "number by a name of letters, digits, '_', '-' and '.': float(value)."
            )
        if name in others:
            raise TaskError(
                f"{where} gives {name!r}, which values() or metrics() gives as well. "
                f'Expected a name of its own. Rename it, such as "whole_{name}".'
            )
        numbers[name] = float(array)
    return numbers


def scores(task: Task) -> bool:
    """Whether a task looks at all predictions of a split."""
    return type(task).scores is not Task.scores
