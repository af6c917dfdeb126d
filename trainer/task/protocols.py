"""What a task is given to work with, as it looks from the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf

Batch = Mapping[str, tf.Tensor]
Gradients = Sequence[tf.Tensor | tf.IndexedSlices | None]


class Source(Protocol):
    """Examples with random access; `data` has ready ones."""

    def __len__(self) -> int:
        """How many examples there are."""

    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The examples at `indices` (int64 `[B]`) as tensors `[B, ...]` by name.

        It is traced into the train loop: TensorFlow ops only, and no hidden state.
        """


class Optimization(Protocol):
    """What an own `step` asks the framework for.

        >>> import tensorflow as tf, trainer
        >>> from line import Line
        >>> class Careful(Line):                 # sharpness-aware minimisation
        ...     def step(self, networks, batch, optimize):
        ...         with tf.GradientTape() as tape:
        ...             loss = optimize.loss(optimize.values(batch)["loss"])
        ...         up = optimize.gradients(tape, loss)
        ...         moves = [0.05 * one / tf.linalg.global_norm(up) for one in up]
        ...         for one, move in zip(optimize.variables(), moves):
        ...             one.assign_add(move)
        ...         with tf.GradientTape() as tape:
        ...             values = optimize.values(batch)
        ...             loss = optimize.loss(values["loss"])
        ...         down = optimize.gradients(tape, loss)
        ...         for one, move in zip(optimize.variables(), moves):
        ...             one.assign_sub(move)
        ...         optimize.apply(down)
        ...         return values
        >>> trainer.train(Careful(), "runs/careful", steps=3, progress="none").step
        3

    An `if` or a `for` over tensors may stand around each of these calls.

    Attributes:
      names: of the optimizers; one alone is called `optimizer`.
      seed: int32 `[2]`, another one in each step, for `tf.random.stateless_*`.
    """

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def seed(self) -> tf.Tensor: ...

    def variables(self, optimizer: str = "optimizer") -> list[Any]:
        """Those that an optimizer trains."""

    def values(self, batch: Batch) -> Mapping[str, Any]:
        """What `Task.values` gives of a batch in training, checked, for `loss`.

        The regularisation losses of the networks are in every loss.
        """

    def loss(self, value: Any) -> tf.Tensor:
        """The mean over the batch (float scalar).

        Args:
          value: of `values`; or `[B]`, or `(value, weight)` as `values` may give them.
        """

    def losses(self, values: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """By optimizer, the mean that it minimises by its name: `loss`, `x_loss`."""

    def gradients(
        self, tape: tf.GradientTape, loss: tf.Tensor, optimizer: str = "optimizer"
    ) -> list[Any]:
        """The gradients of a loss for the variables of an optimizer.

        As `tape.gradient` gives them, but with its loss scaling, and a loss that is
        not finite ends the run.
        """

    def apply(self, gradients: Gradients, optimizer: str = "optimizer") -> None:
        """Lets an optimizer apply gradients to its variables; it clips them first.

        Args:
          gradients: one for each of `variables(optimizer)`; None where there is none.
          optimizer: its name.
        """
