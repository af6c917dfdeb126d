"""The task of the examples in docstrings: a line through points of one.

They run where `runs/line` is a finished run of it, with checkpoints at 10, 20 and 30.
"""

import dataclasses

import keras
import numpy as np

from trainer import task


@dataclasses.dataclass(frozen=True)
class Line(task.Task):
    """One dense layer, plain gradient descent."""

    rate: float = 0.1

    def sources(self):
        x = np.linspace(0, 1, 8, dtype="float32")[:, None]
        return {"train": {"x": x, "y": 2 * x}, "valid": {"x": x[:4], "y": 2 * x[:4]}}

    def networks(self):
        return keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])

    def optimizers(self):
        return keras.optimizers.SGD(self.rate)

    def values(self, networks, batch, training):
        answers = networks(batch["x"], training=training)
        return {"loss": (answers - batch["y"])[:, 0] ** 2}

    def predictions(self, networks, batch):
        return {"y": networks(batch["x"])}
