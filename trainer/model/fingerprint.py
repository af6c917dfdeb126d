"""Whether a task's code and constants are the same at each start of a run.

    >>> import keras
    >>> import tensorflow as tf
    >>> from trainer.model import fingerprint
    >>> traced = tf.function(lambda x: 2 * x).get_concrete_function(1.0)
    >>> one = fingerprint.digest(traced, {"optimizer": keras.optimizers.SGD(0.1)})
    >>> other = fingerprint.digest(traced, {"optimizer": keras.optimizers.SGD(0.2)})
    >>> one == other
    False

Two starts of the same code trace the same graph, whatever else the process did; a
comment, the name of a variable and the number of threads don't enter it. A constant
that is drawn, or read from the clock or the environment, does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xxhash

from trainer.data.graph_digest import GraphDigest

_NAMES = ("name", "registered_name")


def digest(
    function: Any, optimizers: Mapping[str, keras.optimizers.Optimizer], *others: Any
) -> str:
    """Of what a run computes; 32 hexadecimal digits.

    Args:
      function: the traced train loop, a `tf.types.experimental.ConcreteFunction`.
      optimizers: by name, before anything is restored.
      others: more concrete functions, such as the traced evaluation.
    """
    graphs = GraphDigest()
    for one in (function, *others):
        graphs.add(one)
    configs = {name: _config(one) for name, one in optimizers.items()}
    text = json.dumps(configs, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(f"{graphs.hexdigest()} {text}".encode())


def _config(optimizer: keras.optimizers.Optimizer) -> Any:
    """The optimizer's settings; of one that can't say them, its class alone."""
    try:
        config = optimizer.get_config()
    except NotImplementedError:  # a schedule of one's own: it is in the graph
        config = {}
    return [type(optimizer).__name__, _plain(config)]


def _plain(value: Any) -> Any:
    """As JSON, floats exact; names aside, which count up in a process."""
    if isinstance(value, Mapping):
        return {str(k): _plain(one) for k, one in value.items() if k not in _NAMES}
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, tf.Tensor | tf.Variable | keras.Variable):
        return np.asarray(value).tolist()
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    return type(value).__name__
