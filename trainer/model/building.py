"""A state, built: networks, then optimizers, then the tree. That order loses nothing.

>>> import keras, tensorflow as tf
>>> from line import Line
>>> from trainer.model import building
>>> batch = {"x": tf.ones([4, 1]), "y": tf.ones([4, 1])}
>>> current = building.build(Line(), lambda number: batch, seed=0)
>>> current.networks.built, list(current.totals), len(current.trained["optimizer"])
(True, ['loss', 'examples'], 2)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from trainer.model import means, measures, optimizers, seeding
from trainer.model.contract import check_losses, check_methods, own_step
from trainer.model.optimization import Tracing
from trainer.model.state import State
from trainer.model.values import checked_step
from trainer.task import Batch, Task, TaskError
from trainer.task.given import at_step


def build(
    task: Task,
    batch: Callable[[tf.Tensor], Batch],
    *,
    seed: int,
    iterator: Any = None,
    ema: float = 0.0,
) -> State:
    """Builds what a task trains, by tracing alone: no random state moves.

    Args:
      task: gives the parts.
      batch: the training input, from a step (int64 scalar); traced, not run.
      seed: of the initial weights and of every random generator.
      iterator: of the input, where that is a stream.
      ema: the decay of a moving average of the weights; 0: none is kept.

    Raises:
      task.TaskError: the task doesn't keep its side of the contract.
    """
    check_methods(task)
    seeding.begin_anew(seed)
    measured = measures.names(task)
    networks = task.networks()
    extra = task.state(networks) if own_step(task) else None
    asked = Tracing(task, networks, seed=seed, measured=measured)
    values = _traced(batch, lambda found: step_values(task, networks, found, asked))
    given = optimizers.given(task, networks)
    if own_step(task):
        _check_asked(task, list(given), asked)
    else:
        check_losses(task, given, sorted(values))
    return State(
        networks=networks,
        given=given,
        sum_names=means.sum_names(values),
        extra=task.state(networks) if extra is None else extra,
        iterator=iterator,
        ema=ema,
    )


def step_values(
    task: Task, networks: Any, batch: Batch, asked: Tracing
) -> dict[str, means.Value]:
    """What a step computes of a batch, with nothing applied; traced."""
    if own_step(task):
        return checked_step(task, networks, batch, asked)
    return asked.values(batch)


def _traced(
    batch: Callable[[tf.Tensor], Batch],
    values: Callable[[Batch], Mapping[str, means.Value]],
) -> dict[str, means.Value]:
    """What a batch gives, as tensors of a graph; every layer is built on the way."""

    def trace(number: tf.Tensor) -> Mapping[str, means.Value]:
        found = batch(number)
        with at_step(number):
            return values(found)

    spec = tf.TensorSpec([], tf.int64)
    traced = tf.function(trace, autograph=False).get_concrete_function(spec)
    return dict(traced.structured_outputs)


def _check_asked(task: Task, names: list[str], asked: Tracing) -> None:
    """Each optimizer must be asked for, and no other."""
    name = type(task).__name__
    if unknown := [one for one in asked.asked if one not in names]:
        raise TaskError(
            f"{name}.step() asks for the optimizer {unknown[0]!r}; optimizers() gives "
            f"{', '.join(names)}. Expected one of these: optimize.apply(gradients, "
            f"{names[0]!r})."
        )
    applied = names if asked.applies_all else asked.applied
    if idle := [one for one in names if one not in applied]:
        raise TaskError(
            f"{name}.step() applies nothing to the optimizer {idle[0]!r}. Expected "
            f"that each is used: optimize.apply(gradients, {idle[0]!r}). Or leave it "
            "out of optimizers()."
        )
