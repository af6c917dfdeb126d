"""MNIST, 28x28: the classic network with one hidden layer, of layers of its own.

A sample of 5,000 images ships; `--set=data=keras` downloads all 70,000, and
`--set=data=PATH` reads them from an `mnist.npz`. See `models/data/README.md`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import data, figures, task

_SAMPLE = pathlib.Path(__file__).with_name("data") / "mnist_sample.npz"
_ARRAYS = ["x_train", "y_train", "x_test", "y_test"]
_VALID_SHARE = 6  # one of so many
_REMEDY = (
    "Fetch https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz "
    "(11 MB) and give it with --set=data=PATH, or leave --set=data out for the sample "
    "of 5,000 images that ships."
)


@keras.saving.register_keras_serializable(package="keepstep")
class Scale(keras.layers.Layer):  # type: ignore[misc]
    """Multiplies each input by a number of its own, which is learned.

    The number of inputs is known, so the weights are made at once, in `__init__`.

    Args:
      inputs: how many there are.
      **kwargs: what every layer takes.
    """

    def __init__(self, inputs: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.gain = self.add_weight(shape=[inputs], initializer="ones", name="gain")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.gain

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "inputs": self.inputs}


@keras.saving.register_keras_serializable(package="keepstep")
class Linear(keras.layers.Layer):  # type: ignore[misc]
    """Weighted sums of the inputs, each with a bias.

    The weights are made in `build`, when the number of inputs is known.

    Args:
      units: how many sums.
      activation: what is done to each, as Keras names it.
      **kwargs: what every layer takes.
    """

    def __init__(self, units: int, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = [input_shape[-1], self.units]
        self.kernel = self.add_weight(shape=shape, name="kernel")
        self.bias = self.add_weight(
            shape=[self.units], initializer="zeros", name="bias"
        )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return self.activation(x @ self.kernel + self.bias)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
        }


@task.register("mnist")
@dataclasses.dataclass(frozen=True)
class Mnist(task.Task):
    """Handwritten digits 28x28 (MNIST), a hidden layer and dropout, custom layers."""

    data: str = ""
    hidden: int = 512
    dropout: float = 0.2
    learning_rate: float = 1e-3
    max_shift: int = 1

    best = ("accuracy:max",)

    def sources(self) -> dict[str, Any]:
        """`test` is `x_test`; `valid` the last sixth of `x_train`, 10,000 of 60,000."""
        arrays = _load(self.data)
        count = len(arrays["x_train"])
        first = count - count // _VALID_SHARE
        splits = {
            "train": ("train", slice(first)),
            "valid": ("train", slice(first, None)),
            "test": ("test", slice(None)),
        }
        return {
            name: {"image": arrays[f"x_{part}"][of], "label": arrays[f"y_{part}"][of]}
            for name, (part, of) in splits.items()
        }

    def networks(self) -> keras.Model:
        layers = keras.layers
        return keras.Sequential(
            [
                layers.Input([28, 28]),
                layers.Rescaling(1 / 255),
                layers.Flatten(),
                Scale(28 * 28),
                Linear(self.hidden, "relu"),
                layers.Dropout(self.dropout),
                Linear(10),
            ]
        )

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(self.learning_rate)

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
        """Moves each image by up to `max_shift` pixels; the margins are blank."""
        reach = self.max_shift
        moves = tf.cast(data.uniform(seeds, [2]) * (2 * reach + 1), tf.int32) - reach
        places = tf.range(28 * 28) + 28 * moves[:, :1] + moves[:, 1:]
        pixels = tf.reshape(batch["image"], [-1, 28 * 28])
        moved = tf.gather(pixels, places % (28 * 28), axis=1, batch_dims=1)
        return {**batch, "image": tf.reshape(moved, [-1, 28, 28])}


def _load(where: str) -> dict[str, np.ndarray]:
    """The arrays of an `mnist.npz`, checked.

    Args:
      where: a path; "keras" for Keras' own download; empty for the sample.

    Raises:
      DataError: it cannot be read or downloaded, or does not hold MNIST.
    """
    try:
        if where == "keras":
            arrays = _download()
        else:
            path = pathlib.Path(where).expanduser() if where else _SAMPLE
            arrays = data.npz(path, _ARRAYS)
        for part in ("train", "test"):
            _check(where, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    except data.DataError as error:
        raise data.DataError(f"{error}\n{_REMEDY}") from error
    return arrays


def _download() -> dict[str, np.ndarray]:
    """From Keras' cache, which holds the whole file, checked by its hash, or none."""
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras reports on stdout
            train, test = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises no narrower one
        raise data.DataError(f"Keras cannot download MNIST: {error}") from error
    return dict(zip(_ARRAYS, [*train, *test], strict=True))


def _check(where: str, part: str, image: np.ndarray, label: np.ndarray) -> None:
    """Raises a DataError if these are not images and labels as MNIST has them."""
    if (
        image.dtype != np.uint8
        or image.shape[1:] != (28, 28)
        or len(image) < _VALID_SHARE
    ):
        raise data.DataError(
            f"{where}: 'x_{part}' is {image.dtype} {image.shape}; expected at least "
            f"{_VALID_SHARE} images, uint8 (N, 28, 28)."
        )
    if label.dtype.kind not in "iu" or label.shape != image.shape[:1]:
        raise data.DataError(
            f"{where}: 'y_{part}' is {label.dtype} {label.shape}; expected whole "
            f"numbers, uint8 ({len(image)},), as there are images."
        )
    if label.min() < 0 or label.max() > 9:
        raise data.DataError(
            f"{where}: 'y_{part}' has labels from {label.min()} to {label.max()}; "
            "expected 0 to 9."
        )
