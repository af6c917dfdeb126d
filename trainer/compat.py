"""What TensorFlow traces it first converts (AutoGraph), for the authors of tasks alone.

    values = compat.converted(task.values)(networks, batch, training)

An `if` or a `for` over tensors works in a task as in any `tf.function`. The framework
itself is written without them, but for the functions that it hands to `tf.function`. To
convert the rest, too, made every start of a run slower by two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import keras
import tensorflow as tf
from keras.src.random import seed_generator
from tensorflow.python.autograph.core import config

_F = TypeVar("_F", bound=Callable[..., object])

config.CONVERSION_RULES = (
    config.DoNotConvert(__package__),
    *config.CONVERSION_RULES,
)


def converted(function: _F) -> _F:
    """The function as it is traced where all around it is converted."""
    autograph = tf.__internal__.autograph
    result: _F = autograph.tf_convert(function, autograph.control_status_ctx())
    return result


def global_seed() -> tf.Variable:
    """The state that `keras.random` draws from where no seed is given."""
    return seed_generator.global_seed_generator().state


def begin_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has the `fit` that is starting begin at an epoch, as `BackupAndRestore` does."""
    model._initial_epoch = epoch
