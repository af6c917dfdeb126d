"""The norms of gradients since the last report, and whether they stayed finite.

>>> import tensorflow as tf
>>> from trainer.model import norms
>>> found = norms.Norms(["optimizer"])
>>> found.add("optimizer", [tf.constant([3.0, 4.0])])
>>> found.add("optimizer", [tf.constant([0.0]), None])
>>> found.take()
{'gradient_norm': 2.5}

They are sums in variables, so a gradient may be applied inside of a condition or a
loop; being variables that training moves, they are part of the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, final

import tensorflow as tf

_COUNT = "/count"


@final
class Norms:
    """Sums of the global norms of the gradients that each optimizer applied.

    Attributes:
      variables: float64 scalars by name, for the checkpoint.
    """

    def __init__(self, optimizers: Iterable[str]) -> None:
        self._names = tuple(optimizers)
        self.variables = {
            name + kind: tf.Variable(0.0, dtype=tf.float64, name="norm")
            for name in self._names
            for kind in ("", _COUNT)
        }

    def add(
        self, optimizer: str, gradients: Sequence[Any], *, only_finite: bool = False
    ) -> None:
        """Adds the norm of what an optimizer is about to apply; traced.

        Args:
          optimizer: its name.
          gradients: one for each variable; None where there is none.
          only_finite: others are left out, as the optimizer does not apply them.
        """
        norm = tf.cast(tf.linalg.global_norm(gradients), tf.float64)
        one = tf.ones([], tf.float64)
        if only_finite:
            good = tf.math.is_finite(norm)
            norm, one = tf.where(good, norm, 0.0), tf.where(good, one, 0.0)
        self.variables[optimizer].assign_add(norm)
        self.variables[optimizer + _COUNT].assign_add(one)

    def finite(self, optimizer: str) -> tf.Tensor:
        """Whether every norm since the last report was finite (bool scalar)."""
        return tf.math.is_finite(self.variables[optimizer].read_value())

    def take(self) -> dict[str, float]:
        """The mean norms by tag, `gradient_norm/<optimizer>` for several; begins anew.

        What applied nothing since the last report is left out.
        """
        found = {}
        for name in self._names:
            total, count = self.variables[name], self.variables[name + _COUNT]
            if count.numpy():
                tag = (
                    f"gradient_norm/{name}" if len(self._names) > 1 else "gradient_norm"
                )
                found[tag] = float(total.numpy() / count.numpy())
            total.assign(0.0)
            count.assign(0.0)
        return found
