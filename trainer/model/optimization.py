"""What a step asks for while it is traced: values, gradients, and to apply them.

>>> import keras, tensorflow as tf
>>> from line import Line
>>> from trainer.model import optimization
>>> network = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
>>> asked = optimization.Tracing(Line(), network, seed=0)
>>> with tf.GradientTape() as tape:
...     loss = asked.loss(network(tf.ones([2, 1]))[:, 0])
>>> [one.shape.as_list() for one in asked.gradients(tape, loss)]
[[1, 1], [1]]

Everything that is applied passes through here, in the usual step and in an author's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.compat import autograph
from trainer.data.random import step_seed
from trainer.model import means, optimizers, trained
from trainer.model.contract import check_losses, loss_of, network_items
from trainer.model.norms import Norms
from trainer.model.values import checked_value, checked_values
from trainer.task import Batch, Gradients, Task, TaskError


class Tracing:
    """Builds what a step calls, before there is any optimizer: it applies nothing.

    Attributes:
      asked: the names of the optimizers that were asked for anything.
      applied: of those that were asked to apply gradients; with `applies_all`, as the
        usual step does, it is all of them.
    """

    def __init__(
        self,
        task: Task,
        networks: Any,
        *,
        seed: int,
        number: Any = 0,
        measured: Collection[str] = (),
    ) -> None:
        self._task = task
        self._networks = networks
        self._seed = seed
        self._number = number
        self._measured = measured
        self.asked: dict[str, None] = {}
        self.applied: dict[str, None] = {}
        self.applies_all = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the optimizers; there are none yet."""
        self.applies_all = True
        return ()

    @property
    def seed(self) -> tf.Tensor:
        """int32 `[2]`, another one in each step."""
        return step_seed(self._seed, tf.cast(self._number, tf.int64))

    @autograph.unconverted
    def variables(self, optimizer: str = "optimizer") -> list[Any]:
        """Those that an optimizer trains; here all that there are by now."""
        self.asked[optimizer] = None
        items = network_items(self._networks)
        return optimizers.variables("optimizer", None, items)

    @autograph.unconverted
    def values(self, batch: Batch) -> dict[str, means.Value]:
        """What the task gives of a batch in training, checked."""
        return checked_values(self._task, self._networks, batch, True, self._measured)

    @autograph.unconverted
    def loss(self, value: Any) -> tf.Tensor:
        """The mean over the batch."""
        where = f"{type(self._task).__name__}.step()"
        return means.loss(checked_value(where, "loss", value, None))

    @autograph.unconverted
    def losses(self, values: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """By optimizer, the mean that it minimises.

        Raises:
          task.TaskError: there is no such value.
        """
        check_losses(self._task, self.names, values)
        return {name: self.loss(values[loss_of(name)]) for name in self.names}

    @autograph.unconverted
    def gradients(
        self, tape: tf.GradientTape, loss: tf.Tensor, optimizer: str = "optimizer"
    ) -> list[Any]:
        """The gradients of a loss, zeros where it does not reach."""
        variables = self.variables(optimizer)
        self._check_loss(loss)
        found = tape.gradient(loss, variables)
        pairs = zip(found, variables, strict=True)
        return [tf.zeros(v.shape, v.dtype) if g is None else g for g, v in pairs]

    @autograph.unconverted
    def apply(self, gradients: Gradients, optimizer: str = "optimizer") -> None:
        """Notes that the optimizer will have something to apply."""
        del gradients
        self.asked[optimizer] = None
        self.applied[optimizer] = None

    def _check_loss(self, loss: Any) -> None:
        if not tf.is_tensor(loss) or loss.shape.rank != 0:
            raise TaskError(
                f"{type(self._task).__name__}.step() takes the gradients of "
                f"{getattr(loss, 'shape', type(loss).__name__)}; expected one number, "
                'the mean over the batch: optimize.loss(values["loss"]).'
            )


class Applied(Tracing):
    """Takes gradients and applies them.

    Attributes:
      finite: by name, whether a loss was finite (bool scalar).
      watched: the trainable variables that tapes have seen.
      reached: those of `probed` that have a gradient.
    """

    def __init__(
        self,
        task: Task,
        networks: Any,
        *,
        seed: int,
        number: tf.Tensor,
        optimizer_items: Mapping[str, keras.optimizers.Optimizer],
        variables: Mapping[str, Sequence[Any]],
        norms: Norms,
        measured: Collection[str] = (),
        probed: Sequence[tf.Variable] = (),
    ) -> None:
        """What one step asks for; see `Tracing`.

        Args:
          task: whose step it is.
          networks: built.
          seed: of the run.
          number: of the step.
          optimizer_items: by name, built.
          variables: that each trains.
          norms: of gradients, where they are added.
          measured: the names of the task's metrics.
          probed: it is found out whether a loss reaches these.
        """
        super().__init__(task, networks, seed=seed, number=number, measured=measured)
        self._optimizers = optimizer_items
        self._variables = variables
        self._norms = norms
        self._probed = tuple(probed)
        self._graph = tf.compat.v1.get_default_graph()
        self.finite: dict[str, tf.Tensor] = {}
        self.watched: list[tf.Variable] = []
        self.reached: list[tf.Variable] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the optimizers."""
        return tuple(self._optimizers)

    @autograph.unconverted
    def variables(self, optimizer: str = "optimizer") -> list[Any]:
        """Those that an optimizer trains; that there is one was seen by `Tracing`."""
        return list(self._variables[optimizer])

    @autograph.unconverted
    def gradients(
        self, tape: tf.GradientTape, loss: tf.Tensor, optimizer: str = "optimizer"
    ) -> list[Any]:
        """The gradients of a loss, computed with the loss scaling of the optimizer."""
        variables = self.variables(optimizer)
        self._check_loss(loss)
        if tf.compat.v1.get_default_graph() is self._graph:
            # Inside a condition or a loop, the norms tell.
            name = loss_of(optimizer)
            good = tf.math.is_finite(loss)
            self.finite[name] = self.finite.get(name, tf.constant(True)) & good
        scale = self._scale(optimizer, loss.dtype)
        found = tape.gradient(loss, [*variables, *self._probed], output_gradients=scale)
        self.watched += tape.watched_variables()
        pairs = zip(self._probed, found[len(variables) :], strict=True)
        self.reached += [one for one, slope in pairs if slope is not None]
        del found[len(variables) :]
        if scale is None:
            return list(found)
        return [_mapped(one, lambda g: g / tf.cast(scale, g.dtype)) for one in found]

    @autograph.unconverted
    def apply(self, gradients: Gradients, optimizer: str = "optimizer") -> None:
        """Lets the optimizer apply gradients, and notes their norm.

        Raises:
          task.TaskError: they are not one for each variable, or there is none at all.
        """
        variables, given = self.variables(optimizer), list(gradients)
        if len(given) != len(variables):
            raise TaskError(
                f"{type(self._task).__name__}.step() applies {len(given)} gradients; "
                f"the optimizer {optimizer!r} trains {len(variables)} variables. "
                "Expected one for each, None where there is none: optimize.gradients("
                f"tape, loss, {optimizer!r})."
            )
        trained.check({optimizer: given}, {optimizer: variables})
        super().apply(given, optimizer)
        one = self._optimizers[optimizer]
        scale = self._scale(optimizer, tf.float32)
        scales = isinstance(one, keras.optimizers.LossScaleOptimizer)
        self._norms.add(optimizer, given, only_finite=scales)
        if scale is not None:  # it divides what it is given again
            given = [_mapped(g, lambda g: g * tf.cast(scale, g.dtype)) for g in given]
        one.apply(given, variables)

    def _scale(self, optimizer: str, dtype: tf.DType) -> tf.Tensor | None:
        """By how much the optimizer divides the gradients that it applies."""
        one = self._optimizers[optimizer]
        if not isinstance(one, keras.optimizers.LossScaleOptimizer) and (
            one.loss_scale_factor is None
        ):
            return None
        return one.scale_loss(tf.ones([], dtype))


def _mapped(gradient: Any, change: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """A gradient changed; of one that is for some rows, those."""
    if isinstance(gradient, tf.IndexedSlices):
        rows = change(gradient.values)
        return tf.IndexedSlices(rows, gradient.indices, gradient.dense_shape)
    return None if gradient is None else change(gradient)
