"""The evaluation loop, inside one graph for each batch.

>>> import keras, numpy as np
>>> from trainer import data, task
>>> from trainer.model import evaluation
>>> class Line(task.Task):
...     def sources(self): return {"train": {"x": np.ones([4, 2], np.float32)}}
...     def networks(self): return keras.Sequential([keras.layers.Dense(1)])
...     def optimizers(self): return keras.optimizers.SGD()
...     def values(self, networks, batch, training):
...         return {"loss": networks(batch["x"])[:, 0] * 0 + batch["x"][:, 1]}
>>> batches = data.ordered(data.split(Line().sources(), "train"), batch_size=3)
>>> evaluation.EvaluationLoop(Line(), Line().networks(), batches).run()
{'loss': 1.0}
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, final

import keras
import tensorflow as tf

from trainer.compat import autograph
from trainer.compat.datasets import chain
from trainer.data import datasets, failures
from trainer.data.fingerprint import digest
from trainer.errors import KeepstepError
from trainer.model import side_effects
from trainer.model.contract import checked_values
from trainer.storage import failpoints
from trainer.task import Batch, Task

Sums = dict[str, tf.Tensor]
PYTHON_AGAIN = (
    "A generator must begin anew each time it is called: make its random generator, "
    'its file and its counters inside of it, or give arrays: {"valid": {"x": ...}}.'
)


class ChangedExamplesError(KeepstepError, RuntimeError):
    """An evaluation was given other examples than the one before."""


@final
class EvaluationLoop:
    """Means of a task's values over a whole split, each example counted once."""

    def __init__(
        self,
        task: Task,
        networks: Any,
        batches: tf.data.Dataset,
        *,
        metrics: Iterable[keras.metrics.Metric] = (),
        allow_inexact: bool = False,
    ) -> None:
        """The evaluation of one split.

        Args:
          task: whose values.
          networks: what `task.networks()` gave.
          batches: what `data.ordered` gives.
          metrics: of the state; those that `values` moves begin anew each time.
          allow_inexact: accept other examples than the last time.
        """
        self._task = task
        self._networks = networks
        self._metrics = tuple(metrics)
        self._allow_inexact = allow_inexact
        self._digest = ""
        self.batches = batches

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The values that an evaluation gives; found by tracing, nothing is run."""
        traced = tf.function(self._values, autograph=False).get_concrete_function(
            self.batches.element_spec[0]
        )
        return tuple(sorted(traced.structured_outputs))

    @functools.cached_property
    def traced(self) -> Any:
        """What `run` runs on each batch, as a concrete function; nothing is run."""
        sums = {name: tf.TensorSpec([], tf.float64) for name in self._sums}
        function = tf.function(self._add_batch, autograph=False)
        return function.get_concrete_function(*self.batches.element_spec, sums)

    def run(self, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """The means by name, or None if `stop()` became true on the way.

        What a network moves when it is called, such as the state of a recurrent layer,
        a generator, a metric or a table, is put back: an evaluation leaves no trace in
        the training.

        Raises:
          ChangedExamplesError: Python gave other examples than the last time.
        """
        add_batch = self.traced
        sums = {name: tf.constant(0.0, tf.float64) for name in self._sums}
        seen = []
        with side_effects.undone(add_batch, self._metrics):
            for batch, counts in failures.passed_on(self.batches):
                if stop():
                    return None
                failpoints.point("evaluation")
                sums = add_batch(batch, counts, sums)
                if self._from_python:
                    seen.append(digest(batch))
        self._compare(" ".join(seen))
        examples = float(sums["examples"].numpy())
        return {name: float(sums[name].numpy()) / examples for name in self.names}

    @functools.cached_property
    def _from_python(self) -> bool:
        return any(map(datasets.runs_python, chain(self.batches)))

    def _compare(self, seen: str) -> None:
        """What Python gives is known only when it was given, so it is looked at."""
        found = digest(seen)
        if self._digest not in ("", found) and not self._allow_inexact:
            raise ChangedExamplesError(
                "the examples to evaluate are not those of the last evaluation: the "
                "Python function that gives them remembers something. A run that is "
                "killed and resumed would evaluate others. " + PYTHON_AGAIN
            )
        self._digest = found

    @property
    def _sums(self) -> tuple[str, ...]:
        return (*self.names, "examples")

    def _add_batch(self, batch: Batch, counts: tf.Tensor, sums: Sums) -> Sums:
        return add(sums, self._values(batch), counts)

    def _values(self, batch: Batch) -> Sums:
        return checked_values(self._task, self._networks, batch, training=False)


@autograph.unconverted
def add(sums: Sums, values: Sums, counts: tf.Tensor) -> Sums:
    """Adds the values of the rows that count, in double precision."""
    first = next(iter(values.values()))
    added = {}
    for name, value in values.items():
        rows = tf.broadcast_to(counts, tf.shape(value))
        total = tf.reduce_sum(tf.where(rows, tf.cast(value, tf.float64), 0.0))
        if value.shape != first.shape:  # of another one of several sources
            total *= first.shape[0] / value.shape[0]
        added[name] = sums[name] + total
    counts = tf.broadcast_to(counts, tf.shape(first))
    added["examples"] = sums["examples"] + tf.reduce_sum(tf.cast(counts, tf.float64))
    return added
