"""Learning rates: as configured, as restored, as they are now.

>>> import keras
>>> from trainer.model import learning_rates
>>> learning_rates.constant(keras.optimizers.SGD(0.25))
0.25
>>> learning_rates.current({"optimizer": keras.optimizers.SGD(0.25)})
{'learning_rate': 0.25}
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

Optimizers = Mapping[str, keras.optimizers.Optimizer]


def constant(optimizer: keras.optimizers.Optimizer) -> float | None:
    """A constant one as a number; a schedule is a function of the step, so None."""
    rate = optimizer.learning_rate
    return float(rate) if isinstance(rate, keras.Variable) else None


def current(optimizers: Optimizers) -> dict[str, float]:
    """By tag: `learning_rate`, or `learning_rate/<optimizer>` for several."""
    alone = len(optimizers) == 1
    return {
        "learning_rate" if alone else f"learning_rate/{name}": float(
            tf.convert_to_tensor(optimizer.learning_rate).numpy()
        )
        for name, optimizer in optimizers.items()
    }


def apply(
    optimizers: Optimizers, configured: Mapping[str, float | None]
) -> dict[str, tuple[float, float]]:
    """Gives configured learning rates precedence over the restored ones.

    Args:
      optimizers: by name, restored.
      configured: by name, what `constant` gave before.

    Returns:
      By optimizer, where they differ: the restored and the configured one.
    """
    changed = {}
    for name, rate in configured.items():
        restored = constant(optimizers[name])
        if rate is not None and restored not in (None, rate):
            optimizers[name].learning_rate = rate
            changed[name] = (float(restored or 0), rate)
    return changed
