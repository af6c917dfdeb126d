"""The train loop, inside one graph.

    >>> import keras, numpy as np
    >>> from trainer import data, task
    >>> from trainer.model import state, steps
    >>> class Line(task.Task):
    ...     def sources(self): return {"train": {"x": np.ones([4, 2], np.float32)}}
    ...     def networks(self): return keras.Sequential([keras.layers.Dense(1)])
    ...     def optimizers(self): return keras.optimizers.SGD(0.5)
    ...     def values(self, networks, batch, training):
    ...         return {"loss": networks(batch["x"])[:, 0]}
    ...     def predictions(self, networks, batch): return {"y": networks(batch["x"])}
    >>> source = data.split(Line().sources(), "train")
    >>> inputs = data.Shuffled(task=Line(), source=source, batch_size=2, seed=0)
    >>> current = state.build(Line(), inputs.batch, seed=0)
    >>> train = steps.TrainLoop(Line(), current, inputs)
    >>> train.run(100)                         # a hundred steps, one call
    >>> list(train.take_means()), int(current.step)
    (['loss'], 100)

Python is asked once per chunk of steps, not once per step. The only `tf.GradientTape`
of the framework is here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import keras
import numpy as np
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat import autograph
from trainer.data.inputs import Input
from trainer.model import captures, means, state, trained
from trainer.model.contract import checked_values, loss_of
from trainer.model.evaluation import EvaluationLoop
from trainer.model.means import Sums, Value
from trainer.task import Task

__all__ = ["EvaluationLoop", "NonFiniteError", "TrainLoop"]


class _Losses(NamedTuple):
    """By optimizer: its loss, and that as the optimizer scales it."""

    plain: Sums
    scaled: Sums


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
        self._run = tf.function(self._loop)
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

    def _loop(self, count: tf.Tensor) -> dict[str, tf.Tensor]:
        # The sums travel through the loop as tensors: one assignment a chunk.
        sums = {name: v.read_value() for name, v in self._state.totals.items()}
        finite = {
            name: tf.constant(True)
            for optimizer in self._state.optimizers
            for name in _watched(optimizer)
        }
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
        """One optimizer step on one batch; all gradients at one point.

        Returns:
          The values, and of each loss and of its gradients whether they are finite.
        """
        tape, values, losses = self._forward(number)
        optimizers = self._state.optimizers
        gradients = {
            name: tape.gradient(loss, self._state.trained[name])
            for name, loss in losses.scaled.items()
        }
        self._seen = tape.watched_variables()
        trained.check(gradients, self._state.trained)
        finite: dict[str, tf.Tensor] = {}
        for name, optimizer in optimizers.items():
            optimizer.apply(gradients[name], self._state.trained[name])
            norm = tf.linalg.global_norm(gradients[name])
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                norm = tf.constant(0.0)  # it skips what is too large, and scales less
            watched = zip(_watched(name), (losses.plain[name], norm), strict=True)
            finite |= {what: tf.math.is_finite(one) for what, one in watched}
        return values, finite

    def _forward(
        self, number: tf.Tensor
    ) -> tuple[tf.GradientTape, dict[str, Value], _Losses]:
        batch = self._inputs.batch(number)
        optimizers = self._state.optimizers
        with tf.GradientTape(persistent=len(optimizers) > 1) as tape:
            values = checked_values(
                self._task, self._state.networks, batch, training=True
            )
            losses = {name: means.loss(values[loss_of(name)]) for name in optimizers}
            # An optimizer that scales divides the gradients again when it applies them.
            scaled = {k: optimizers[k].scale_loss(loss) for k, loss in losses.items()}
        return tape, values, _Losses(losses, scaled)

    def _reached(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Those of the variables that any loss depends on; found by tracing."""
        reached = []

        def trace(number: tf.Tensor) -> None:
            tape, _, losses = self._forward(number)
            for loss in losses.plain.values():
                gradients = tape.gradient(loss, variables)
                pairs = zip(variables, gradients, strict=True)
                reached.extend([one for one, slope in pairs if slope is not None])

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
def _watched(optimizer: str) -> tuple[str, str]:
    """What must stay finite: a loss and the norm of its gradients."""
    loss = loss_of(optimizer)
    return loss, f"the gradient of {loss}"
