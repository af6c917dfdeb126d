"""Exponential moving averages of weights: trained with raw ones, judged by these.

    >>> import keras
    >>> import tensorflow as tf
    >>> from trainer.model.ema import Averages
    >>> model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
    >>> averages = Averages({"model": model}, decay=0.5)
    >>> kernel, _ = model.variables
    >>> _ = kernel.assign_add([[1.0]])
    >>> averages.update(tf.constant(100, tf.int64))      # after each step
    >>> raw = kernel.numpy()
    >>> with averages.applied():                         # to evaluate
    ...     (raw - kernel.numpy()).round(3).tolist()
    [[0.5]]

Every floating-point variable of a network has one, the statistics of batch
normalisation included, so that they fit the averaged weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import final

import keras
import tensorflow as tf

from trainer.compat import autograph

NAME = "averages"  # of the part of a checkpoint tree


def averaged(networks: Mapping[str, keras.Model]) -> dict[str, tf.Variable]:
    """The variables that have averages, by the name that people know."""
    return {
        f"{network}/{variable.path}": variable.value
        for network, one in networks.items()
        for variable in one.variables
        if variable.value.dtype.is_floating
    }


@final
class Averages:
    """The averages of the networks of a state.

    Attributes:
      variables: by name, in the order of `averaged`; empty where the decay is 0.
    """

    def __init__(self, networks: Mapping[str, keras.Model], *, decay: float) -> None:
        live = averaged(networks) if decay else {}
        self._decay = decay
        self.variables = {
            name: tf.Variable(variable, trainable=False, name=name)
            for name, variable in live.items()
        }
        self._pairs = list(zip(live.values(), self.variables.values(), strict=True))

    @autograph.unconverted
    def update(self, step: tf.Tensor) -> None:
        """Moves the averages towards the networks.

        The decay is `min(decay, (1 + step) / (10 + step))`, as that of
        `tf.train.ExponentialMovingAverage`, so that initial weights are soon forgotten.

        Args:
          step: int64 scalar, how many were done before this one.
        """
        count = tf.cast(step, tf.float32)
        decay = tf.minimum(self._decay, (1 + count) / (10 + count))
        for live, average in self._pairs:
            average.assign_sub(tf.cast(1 - decay, average.dtype) * (average - live))

    def reset(self) -> None:
        """Begins anew at the networks as they are."""
        for live, average in self._pairs:
            average.assign(live)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """While this is open, the networks have their averages, if there are any."""
        before = [live.read_value() for live, _ in self._pairs]
        for live, average in self._pairs:
            live.assign(average)
        try:
            yield
        finally:
            for (live, _), value in zip(self._pairs, before, strict=True):
                live.assign(value)
