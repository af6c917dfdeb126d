"""The train loop and the evaluation loop, each inside one graph.

    train = steps.TrainLoop(task, state, input)
    train.run(100)                         # a hundred steps, one call
    means = train.take_means()             # since the last time

Python is asked once a chunk of steps, not once a step. The only `tf.GradientTape` of
the framework is here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, final

import keras
import tensorflow as tf

from trainer import data
from trainer.compat import autograph
from trainer.data import stream
from trainer.errors import KeepstepError
from trainer.model import state
from trainer.storage import failpoints
from trainer.task import Batch, Task, checked_values, loss_of

Sums = dict[str, tf.Tensor]


class NonFiniteError(KeepstepError, ArithmeticError):
    """A loss or a gradient became NaN or infinite."""


@final
class TrainLoop:
    """Trains the networks of a state, many steps a call."""

    def __init__(
        self,
        task: Task,
        current: state.State,
        inputs: data.Shuffled | stream.Stream,
    ) -> None:
        self._task = task
        self._state = current
        self._inputs = inputs
        self._run = tf.function(self._loop)

    @functools.cached_property
    def traced(self) -> Any:
        """The loop as a `tf.types.experimental.ConcreteFunction`; nothing is run."""
        return self._run.get_concrete_function(tf.TensorSpec([], tf.int64))

    def run(self, count: int) -> None:
        """Trains `count` steps; returns when they are done.

        Raises:
          NonFiniteError: a loss or a gradient was not finite; the loop stopped at that
            very step.
        """
        finite = self.traced(tf.constant(count, tf.int64))
        bad = [name for name in finite if not finite[name].numpy()]
        if bad:
            raise NonFiniteError(
                f"{' and '.join(bad)} became NaN or infinite at step "
                f"{int(self._state.step.numpy())}. Nothing was saved over the last "
                "good checkpoint. Lower the learning rate, clip the gradients, or look "
                "at the data; with the same choices it will happen again."
            )

    def take_means(self) -> dict[str, float]:
        """The means of the training values since the last call; begins anew."""
        totals = {name: float(v.numpy()) for name, v in self._state.totals.items()}
        for variable in self._state.totals.values():
            variable.assign(0.0)
        examples = totals.pop("examples")
        return {name: total / examples for name, total in totals.items() if examples}

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
            sums = _add(sums, values, tf.constant(True))
            if not tf.reduce_all(list(finite.values())):
                break
        for name, variable in self._state.totals.items():
            variable.assign(sums[name])
        return finite

    @autograph.unconverted
    def _step(self, number: tf.Tensor) -> tuple[Sums, dict[str, tf.Tensor]]:
        """One optimizer step on one batch; all gradients at one point.

        Returns:
          The values, and of each loss and of its gradients whether they are finite.
        """
        batch = self._inputs.batch(number)
        optimizers = self._state.optimizers
        with tf.GradientTape(persistent=len(optimizers) > 1) as tape:
            values = checked_values(
                self._task, self._state.networks, batch, training=True
            )
            losses = {
                name: tf.reduce_mean(values[loss_of(name)]) for name in optimizers
            }
            # An optimizer that scales divides the gradients again when it applies them.
            scaled = {k: optimizers[k].scale_loss(loss) for k, loss in losses.items()}
        gradients = {
            name: tape.gradient(loss, self._state.trained[name])
            for name, loss in scaled.items()
        }
        finite: dict[str, tf.Tensor] = {}
        for name, optimizer in optimizers.items():
            optimizer.apply(gradients[name], self._state.trained[name])
            norm = tf.linalg.global_norm(gradients[name])
            if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                norm = tf.constant(0.0)  # it skips what is too large, and scales less
            watched = zip(_watched(name), (losses[name], norm), strict=True)
            finite |= {what: tf.math.is_finite(one) for what, one in watched}
        return values, finite


@final
class EvaluationLoop:
    """Means of a task's values over a whole split, each example counted once."""

    def __init__(self, task: Task, networks: Any, batches: Any) -> None:
        """Takes what `data.ordered` gives as `batches`."""
        self._task = task
        self._networks = networks
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

        What a network moves when it is called, such as the state of a recurrent layer
        or a generator, is put back: an evaluation leaves no trace in the training.
        """
        add = self.traced
        sums = {name: tf.constant(0.0, tf.float64) for name in self._sums}
        with state.unmoved(add):
            for batch, counts in self.batches:
                if stop():
                    return None
                failpoints.point("evaluation")
                sums = add(batch, counts, sums)
        examples = float(sums["examples"].numpy())
        return {name: float(sums[name].numpy()) / examples for name in self.names}

    @property
    def _sums(self) -> tuple[str, ...]:
        return (*self.names, "examples")

    def _add_batch(self, batch: Batch, counts: tf.Tensor, sums: Sums) -> Sums:
        return _add(sums, self._values(batch), counts)

    def _values(self, batch: Batch) -> Sums:
        return checked_values(self._task, self._networks, batch, training=False)


@autograph.unconverted
def _watched(optimizer: str) -> tuple[str, str]:
    """What must stay finite: a loss and the norm of its gradients."""
    loss = loss_of(optimizer)
    return loss, f"the gradient of {loss}"


@autograph.unconverted
def _add(sums: Sums, values: Sums, counts: tf.Tensor) -> Sums:
    """Adds the values of the rows that count, in double precision."""
    first = next(iter(values.values()))
    counts = tf.broadcast_to(counts, tf.shape(first))
    added = {
        name: sums[name]
        + tf.reduce_sum(tf.where(counts, tf.cast(value, tf.float64), 0.0))
        for name, value in values.items()
    }
    added["examples"] = sums["examples"] + tf.reduce_sum(tf.cast(counts, tf.float64))
    return added
