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

import contextlib
import functools
from collections.abc import Callable, Iterable
from typing import Any, final

import keras
import tensorflow as tf
from absl import logging

from trainer.base.errors import KeepstepError
from trainer.compat.datasets import chain
from trainer.data import datasets, one_pass
from trainer.data.fingerprint import digest
from trainer.model import means, measures, side_effects
from trainer.model.means import Sums
from trainer.model.prediction import Predictor, joined
from trainer.model.values import means_and_measured
from trainer.storage import failpoints
from trainer.task import Batch, Task
from trainer.task.given import at_step

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
        step: Any = 0,
        metrics: Iterable[keras.metrics.Metric] = (),
        allow_inexact: bool = False,
    ) -> None:
        """The evaluation of one split.

        Args:
          task: whose values.
          networks: what `task.networks()` gave.
          batches: what `data.ordered` gives.
          step: that is evaluated: a number, or the variable of the state.
          metrics: of the state; those that `values` moves begin anew each time.
          allow_inexact: accept other examples than the last time.

        Raises:
          data.DataError: there is no end to the batches, or there are none.
        """
        one_pass.check(batches)
        self._task = task
        self._networks = networks
        self._step = step
        self._measures = measures.Measures(task)
        self._metrics = (*metrics, *self._measures.metrics.values())
        self._allow_inexact = allow_inexact
        self._digest = ""
        self._predictor: Predictor | None = None
        self._smaller: dict[int, Any] = {}
        self.batches = batches

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The values that an evaluation gives; found by tracing, nothing is run.

        What `Task.scores` gives is not among them: that is known when it was given.
        """
        return tuple(sorted([*self._outline, *self._measures.metrics]))

    @property
    def fresh(self) -> list[Any]:
        """The variables that begin anew at each evaluation."""
        return self._measures.variables

    @functools.cached_property
    def traced(self) -> Any:
        """What `run` runs on each full batch, as a concrete function."""
        return self._traced(self.batches.element_spec[0])

    def run(self, stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
        """The means by name, or None if `stop()` became true on the way.

        The last batch is as large as what is left, so that no example is in it twice:
        losses over pairs, and metrics that count what they see, are right in it too.

        What a network moves when it is called, such as the state of a recurrent layer,
        a generator, a metric or a table, is put back: an evaluation leaves no trace in
        the training.

        Raises:
          ChangedExamplesError: Python gave other examples than the last time.
          data.DataError: an example can't be read, or there is none.
          task.TaskError: a weight is negative or not finite.
        """
        sums = {name: tf.constant(0.0, tf.float64) for name in self._sums}
        seen = []
        with means.told(), contextlib.ExitStack() as undone:
            undone.enter_context(side_effects.undone(self.traced, self._metrics))
            for batch, counts in one_pass.elements(self.batches):
                if stop():
                    return None
                failpoints.point("evaluation")
                if self._from_python:
                    seen.append(digest(batch))
                if counts.numpy().all():
                    sums = self.traced(batch, sums)
                else:
                    last = _rows(batch, counts)
                    add_last = self._traced_last(int(counts.numpy().sum()))
                    undone.enter_context(side_effects.undone(add_last))
                    sums = add_last(last, sums)
            measured = self._measures.results()
        self._compare(" ".join(seen))
        found = self._means({name: float(one.numpy()) for name, one in sums.items()})
        return self._with_scores(found | measured, stop)

    def _with_scores(
        self, found: dict[str, float], stop: Callable[[], bool]
    ) -> dict[str, float] | None:
        """With what the task says of all predictions together."""
        if not measures.scores(self._task):
            return found
        if self._predictor is None:
            spec = self.batches.element_spec[0]
            self._predictor = Predictor(self._task, self._networks, spec)
        pairs = []
        for pair in self._predictor.run(self.batches):
            if stop():
                return None
            pairs.append(pair)
        examples, predicted = map(joined, zip(*pairs, strict=True))
        return found | measures.scored(self._task, examples, predicted, found)

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

    @functools.cached_property
    def _outline(self) -> dict[str, means.Value]:
        traced = tf.function(self._values, autograph=False).get_concrete_function(
            self.batches.element_spec[0]
        )
        return dict(traced.structured_outputs)

    @property
    def _sums(self) -> tuple[str, ...]:
        return means.sum_names(self._outline)

    def _means(self, sums: dict[str, float]) -> dict[str, float]:
        for name in means.uncounted(sums):
            logging.warning(
                "the mean of %r is NaN: all of its weights are 0 in this split", name
            )
        found = means.of_sums(sums)
        return {name: found[name] for name in sorted(found)}

    def _traced(self, spec: Any) -> Any:
        sums = {name: tf.TensorSpec([], tf.float64) for name in self._sums}
        function = tf.function(self._add_batch, autograph=False)
        return function.get_concrete_function(spec, sums)

    def _traced_last(self, rows: int) -> Any:
        """What `run` runs on a batch that is not full."""
        if rows not in self._smaller:
            spec = tf.nest.map_structure(
                lambda one: tf.TensorSpec([rows, *one.shape[1:]], one.dtype),
                self.batches.element_spec[0],
            )
            self._smaller[rows] = self._traced(spec)
        return self._smaller[rows]

    def _add_batch(self, batch: Batch, sums: Sums) -> Sums:
        found, measured = self._given(batch)
        self._measures.update(measured)
        return means.added(sums, found)

    def _values(self, batch: Batch) -> dict[str, means.Value]:
        return self._given(batch)[0]

    def _given(self, batch: Batch) -> tuple[dict[str, means.Value], dict[str, Any]]:
        with at_step(self._step):
            return means_and_measured(
                self._task, self._networks, batch, False, self._measures.metrics
            )


def _rows(batch: Batch, counts: tf.Tensor) -> Any:
    """Those rows of a batch that count."""
    return tf.nest.map_structure(lambda one: one[counts], batch)
