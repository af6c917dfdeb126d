"""Handwritten digits, 8x8: a small convolutional network on real data.

The data is the test set of the UCI "Optical Recognition of Handwritten Digits"
(E. Alpaydin, C. Kaynak, 1998); see `models/data/README.md`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer import data, figures, task

_SPLITS = {"train": 0, "valid": 1, "test": 2}


@task.register("digits")
@dataclasses.dataclass(frozen=True)
class Digits(task.Task):
    """Handwritten digits 8x8 (UCI), a CNN with batch normalisation and dropout."""

    width: int = 32
    dropout: float = 0.2
    learning_rate: float = 1e-3
    decay_steps: int = 1200
    weight_decay: float = 0.01
    max_shift: int = 1

    best = ("accuracy:max",)

    def sources(self) -> dict[str, Any]:
        path = pathlib.Path(__file__).with_name("data") / "digits.npz"
        arrays = data.npz(path, ["image", "label", "split"])
        return {
            name: {
                key: arrays[key][arrays["split"] == number]
                for key in ("image", "label")
            }
            for name, number in _SPLITS.items()
        }

    def networks(self) -> keras.Model:
        layers = keras.layers
        # Statistics that settle within an epoch: there are but 19 steps in one.
        normalise = functools.partial(layers.BatchNormalization, momentum=0.9)
        return keras.Sequential(
            [
                layers.Input([8, 8]),
                layers.Rescaling(1 / 16),
                layers.Reshape([8, 8, 1]),
                layers.Conv2D(self.width, 3, padding="same", use_bias=False),
                normalise(),
                layers.ReLU(),
                layers.Conv2D(2 * self.width, 3, padding="same", use_bias=False),
                normalise(),
                layers.ReLU(),
                layers.MaxPooling2D(),
                layers.Dropout(self.dropout),
                layers.Flatten(),
                layers.Dense(4 * self.width, activation="relu"),
                layers.Dropout(self.dropout),
                layers.Dense(10),
            ]
        )

    def optimizers(self) -> keras.optimizers.Optimizer:
        rate = keras.optimizers.schedules.CosineDecay(
            self.learning_rate, self.decay_steps
        )
        return keras.optimizers.AdamW(rate, weight_decay=self.weight_decay)

    def values(
        self, networks: Any, batch: task.Batch, training: bool
    ) -> Mapping[str, tf.Tensor]:
        logits = networks(batch["image"], training=training)
        return {
            "loss": keras.losses.sparse_categorical_crossentropy(
                batch["label"], logits, from_logits=True
            ),
            "accuracy": tf.argmax(logits, -1) == tf.cast(batch["label"], tf.int64),
        }

    def predictions(self, networks: Any, batch: task.Batch) -> dict[str, tf.Tensor]:
        logits = networks(batch["image"], training=False)
        return {"digit": tf.argmax(logits, -1), "probability": tf.nn.softmax(logits)}

    def figures(
        self, examples: Mapping[str, Any], predictions: Mapping[str, Any]
    ) -> dict[str, figures.Image]:
        return figures.of_classification(
            examples["image"], examples["label"], predictions["probability"]
        )

    def augment(self, batch: task.Batch, seeds: tf.Tensor) -> task.Batch:
        """Moves each image by up to `max_shift` pixels, its own way each epoch."""
        reach = self.max_shift
        padded = tf.pad(batch["image"], [[0, 0], [reach, reach], [reach, reach]])
        moves = tf.cast(data.uniform(seeds, [2]) * (2 * reach + 1), tf.int32)
        window = tf.range(8)
        rows = tf.gather(padded, moves[:, :1] + window, axis=1, batch_dims=1)
        moved = tf.gather(rows, moves[:, 1:] + window, axis=2, batch_dims=1)
        return {**batch, "image": moved}
