"""The train loop, inside one graph.

    >>> import keras, numpy as np
    >>> from trainer import data, task
    >>> from trainer.model import building, steps
    >>> class Line(task.Task):
    ...     def sources(self): return {"train": {"x": np.ones([4, 2], np.float32)}}
    ...     def networks(self): return keras.Sequential([keras.layers.Dense(1)])
    ...     def optimizers(self): return keras.optimizers.SGD(0.5)
    ...     def values(self, networks, batch, training):
    ...         return {"loss": networks(batch["x"])[:, 0]}
    ...     def predictions(self, networks, batch): return {"y": networks(batch["x"])}
    >>> source = data.split(Line().sources(), "train")
    >>> inputs = data.Shuffled(task=Line(), source=source, batch_size=2, seed=0)
    >>> current = building.build(Line(), inputs.batch, seed=0)
    >>> train = steps.TrainLoop(Line(), current, inputs)
    >>> train.run(100)                         # a hundred steps, one call
    >>> list(train.take_means()), int(current.step)
    (['loss'], 100)

Python is asked once per chunk of steps, not once per step. What a step is, the task
says: `Task.step` is the usual one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat import autograph
from trainer.data.inputs import Input
from trainer.model import captures, means, measures, state, trained
from trainer.model.contract import loss_of
from trainer.model.evaluation import EvaluationLoop
from trainer.model.means import Value
from trainer.model.optimization import Applied
from trainer.model.values import checked_step
from trainer.task import Task
from trainer.task.given import at_step

__all__ = ["EvaluationLoop", "NonFiniteError", "TrainLoop"]


class NonFiniteError(KeepstepError, ArithmeticError):
    """A loss or a gradient became NaN or infinite."""


@final
class TrainLoop:
    """Trains the networks of a state, many steps a call."""

    def __init__(
        self,
        task: Task,
        current: state.State,
        inputs: Input,
    ) -> None:
        self._task = task
        self._state = current
        self._inputs = inputs
        self._measured = measures.names(task)
        self._run = tf.function(self._loop)
        self._watched = [
            name
            for optimizer in current.optimizers
            for name in (loss_of(optimizer), _gradient_of(optimizer))
        ]
        self._seen: tuple[tf.Variable, ...] = ()

    @functools.cached_property
    def traced(self) -> Any:
        """The loop as a `tf.types.experimental.ConcreteFunction`; nothing is run.

        Raises:
          task.TaskError: a loss reaches none of the variables that its optimizer
            trains, or variables that no optimizer trains.
        """
        spec = tf.TensorSpec([], tf.int64)
        traced = self._run.get_concrete_function(spec)
        every = [v for some in self._state.trained.values() for v in some]
        left_out = trained.left_out(self._seen, every, self._state.tree)
        if left_out:  # seldom, and then it costs one more tracing
            moved = [one.variable for one in captures.of(traced.graph) if one.written]
            left_out = trained.left_out(left_out, moved, self._state.tree)
            trained.refuse(self._reached(left_out), self._state.variables())
        return traced

    def run(self, count: int) -> None:
        """Trains `count` steps; returns when they are done.

        Raises:
          NonFiniteError: a loss or a gradient was not finite; the loop stopped at that
            very step.
        """
        traced = self.traced
        with means.told(), self._inputs.reading(self._number(), count):
            finite = traced(tf.constant(count, tf.int64))
            bad = [name for name in finite if not finite[name].numpy()]
            if bad:
                raise NonFiniteError(
                    f"{' and '.join(bad)} became NaN or infinite at step "
                    f"{int(self._state.step.numpy())}. Nothing was saved over the last "
                    f"good checkpoint. {self._reason()}; with the same choices it will "
                    "happen again."
                )

    def _number(self) -> int:
        """Which batch comes next."""
        return int(self._state.step.numpy()) + int(self._state.skipped.numpy())

    def _reason(self) -> str:
        """What may have made a loss bad: the data are looked at first."""
        batch = self._inputs.again(self._number() - 1)
        if batch is None:
            return "Lower the learning rate, clip the gradients, or look at the data"
        found = [
            f"{name!r} in {count} of {len(one)} examples"
            for name, one in _flat(batch).items()
            if (count := _bad_rows(one))
        ]
        if found:
            return (
                f"The data of that step are not finite: {', '.join(found)}. Leave such "
                "examples out, or replace the values: "
                "tf.where(tf.math.is_finite(x), x, 0.0)"
            )
        return (
            "Lower the learning rate, or clip the gradients: the data of that step are "
            "finite"
        )

    def take_means(self) -> dict[str, float]:
        """The means of the training values since the last call; begins anew."""
        totals = {name: float(v.numpy()) for name, v in self._state.totals.items()}
        for variable in self._state.totals.values():
            variable.assign(0.0)
        left_out = means.uncounted(totals)
        found = means.of_sums(totals).items()
        return {name: mean for name, mean in found if name not in left_out}

    def take_norms(self) -> dict[str, float]:
        """The mean norms of gradients since the last call, by tag; begins anew."""
        return self._state.norms.take()

    def _loop(self, count: tf.Tensor) -> dict[str, tf.Tensor]:
        # The sums travel through the loop as tensors: one assignment a chunk.
        sums = {name: v.read_value() for name, v in self._state.totals.items()}
        finite = {name: tf.constant(True) for name in self._watched}
        for _ in tf.range(count):
            values, finite = self._step(self._state.step + self._state.skipped)
            self._state.averages.update(self._state.step)
            self._state.step.assign_add(1)
            sums = means.added(sums, values)
            if not tf.reduce_all(list(finite.values())):
                break
        for name, variable in self._state.totals.items():
            variable.assign(sums[name])
        return finite

    @autograph.unconverted
    def _step(self, number: tf.Tensor) -> tuple[dict[str, Value], dict[str, tf.Tensor]]:
        """One step on one batch, as the task says it.

        Returns:
          The values, and of each loss and of its gradients whether they are finite.
        """
        asked, values = self._traced_step(number)
        self._seen = tuple(asked.watched)
        finite = {name: tf.constant(True) for name in self._watched} | asked.finite
        for name in self._state.optimizers:
            finite[_gradient_of(name)] = self._state.norms.finite(name)
        return values, finite

    def _traced_step(
        self, number: tf.Tensor, probed: Sequence[tf.Variable] = ()
    ) -> tuple[Applied, dict[str, Value]]:
        batch = self._inputs.batch(number)
        asked = Applied(
            self._task,
            self._state.networks,
            seed=self._inputs.seed,
            number=number,
            optimizer_items=self._state.optimizers,
            variables=self._state.trained,
            norms=self._state.norms,
            measured=self._measured,
            probed=probed,
        )
        with at_step(self._state.step):
            values = checked_step(self._task, self._state.networks, batch, asked)
        return asked, values

    def _reached(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Those of the variables that any loss depends on; found by tracing."""
        reached: list[tf.Variable] = []

        def trace(number: tf.Tensor) -> None:
            asked, _ = self._traced_step(number, variables)
            reached.extend(asked.reached)

        traced = tf.function(trace, autograph=False)
        traced.get_concrete_function(tf.TensorSpec([], tf.int64))
        return list({id(one): one for one in reached}.values())


def _flat(batch: Mapping[str, Any]) -> dict[str, Any]:
    """Tensors by name; of several sources by `source/name`."""
    found: dict[str, Any] = {}
    for name, one in batch.items():
        inner = _flat(one) if isinstance(one, Mapping) else {"": one}
        found |= {f"{name}/{key}".rstrip("/"): value for key, value in inner.items()}
    return found


def _bad_rows(one: Any) -> int:
    """How many rows of a tensor `[B, ...]` hold a NaN or an infinity."""
    values = np.asarray(one)
    if not np.issubdtype(values.dtype, np.floating) or not len(values):
        return 0
    bad = ~np.isfinite(values.reshape(len(values), -1))
    return int(bad.any(axis=1).sum())


@autograph.unconverted
def _gradient_of(optimizer: str) -> str:
    return f"the gradient of {loss_of(optimizer)}"
