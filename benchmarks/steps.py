"""Training steps per second: ours, Keras `fit` and the upper limit, side by side.

    python benchmarks/steps.py

Three ways train the same model with the same optimizer and batch size, each a fresh
copy of its own, all with op determinism:

ours         the train loop of the framework with its whole input: shuffle, gather,
             augmentation; 25 steps a call, and the means taken once a turn
keras fit    `compile` with steps_per_execution=25 and jit_compile=False, and `fit` on
             a `tf.data` pipeline: a full shuffle, batches, the same augmentation by
             stateless random numbers, prefetch
bare loop    `for _ in tf.range(25)` in one graph on one fixed batch: no input work and
             no metrics. Only the model and the optimizer are left: the upper limit

The ways take short turns, for a minute a task, so that a busy machine slows down all of
them alike. Tracing and filling the shuffle buffer are not measured. `steps/s` is the
median over all turns, `min-max` the slowest and the fastest one. Compare by `of bare`
and `of fit`: the median over rounds of the ratio to that way's turn in the same round,
with about its standard error; 1 is as fast. Where the error is above 0.03, the machine
was too busy: run it again.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from rich import console
from rich import table as tables

from models import digits
from trainer import data, task
from trainer.model import building, steps

_SEED = 0
_CHUNK = 25  # steps a call
_TURN_SECS = 0.3
_TASK_SECS = 60  # as many rounds as fit in, and at least these
_LEAST_ROUNDS = 5
_WAYS = ("ours", "keras fit", "bare loop")

Augment = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Images(task.Task):
    """20,000 images of 28x28 bytes, made up; a dense network with dropout."""

    def sources(self) -> dict[str, Any]:
        rng = np.random.default_rng(_SEED)
        return {
            "train": {
                "image": rng.integers(0, 256, [20_000, 28, 28, 1], np.uint8),
                "label": rng.integers(0, 10, 20_000),
            }
        }

    def networks(self) -> keras.Model:
        layers = keras.layers
        return keras.Sequential(
            [
                layers.Input([28, 28, 1]),
                layers.Rescaling(1 / 255),
                layers.Flatten(),
                layers.Dense(512, activation="relu"),
                layers.Dropout(0.2),
                layers.Dense(10),
            ]
        )

    def optimizers(self) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(1e-3)

    values = digits.Digits.values


def ours(one: task.Task, batch_size: int) -> Callable[[int], None]:
    """The framework's loop; the result trains that many steps."""
    source = data.split(one.sources(), "train")
    inputs = data.Shuffled(task=one, source=source, batch_size=batch_size, seed=_SEED)
    current = building.build(one, inputs.batch, seed=_SEED)
    loop = steps.TrainLoop(one, current, inputs)

    def run(count: int) -> None:
        for _ in range(count // _CHUNK):
            loop.run(_CHUNK)
        loop.take_means()

    return run


def bare(one: task.Task, batch_size: int) -> Callable[[int], None]:
    """The least that training can be: the model and the optimizer on one batch."""
    batch = data.split(one.sources(), "train").gather(tf.range(batch_size))
    keras.utils.set_random_seed(_SEED)
    network, optimizer = one.networks(), one.optimizers()
    optimizer.build(network.trainable_variables)

    @tf.function
    def chunk() -> None:
        for _ in tf.range(_CHUNK):
            with tf.GradientTape() as tape:
                values = one.values(network, batch, training=True)
                loss = tf.reduce_mean(values["loss"])
            gradients = tape.gradient(loss, network.trainable_variables)
            optimizer.apply(gradients, network.trainable_variables)

    def run(count: int) -> None:
        for _ in range(count // _CHUNK):
            chunk()

    return run


def pipeline(
    one: task.Task, batch_size: int, augment: Augment | None
) -> tf.data.Dataset:
    """The training input as it is written for `fit`."""
    arrays = one.sources()["train"]
    images = tf.data.Dataset.from_tensor_slices((arrays["image"], arrays["label"]))
    batches = (
        images.shuffle(len(arrays["label"]), seed=_SEED)
        .repeat()
        .batch(batch_size, drop_remainder=True)
    )
    if augment:
        batches = tf.data.Dataset.zip(batches, tf.data.Dataset.counter()).map(
            lambda batch, step: (augment(batch[0], step), batch[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def shift(images: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Moves each image by up to a pixel, as the digits task does."""
    moves = tf.random.stateless_uniform(
        [images.shape[0], 2], [_SEED, step], maxval=3, dtype=tf.int32
    )
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1]])
    rows = tf.gather(padded, moves[:, :1] + tf.range(8), axis=1, batch_dims=1)
    return tf.gather(rows, moves[:, 1:] + tf.range(8), axis=2, batch_dims=1)


class Turns(keras.callbacks.Callback):
    """Times the epochs of a `fit`, and in between the other ways.

    So one call of `fit` lasts for all rounds, and its input never starts anew.
    """

    def __init__(self, others: dict[str, Callable[[int], None]], count: int) -> None:
        super().__init__()
        self.rates: dict[str, list[float]] = {way: [] for way in _WAYS}
        self._others = others
        self._count = count
        self._end = time.perf_counter() + _TASK_SECS
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = {"keras fit": time.perf_counter() - self._began}
        # By turns who comes after `fit`, whose prefetch still fills its buffer then.
        for way in sorted(self._others, reverse=epoch % 2 == 0):
            seconds[way] = timed(self._others[way], self._count)
        if epoch:  # the first round is the warm-up
            for way, secs in seconds.items():
                self.rates[way].append(self._count / secs)
        late = time.perf_counter() > self._end
        self.model.stop_training = late and epoch >= _LEAST_ROUNDS


def timed(run: Callable[[int], None], count: int) -> float:
    """Seconds of `run(count)`."""
    began = time.perf_counter()
    run(count)
    return time.perf_counter() - began


def measure(
    one: task.Task, batch_size: int, augment: Augment | None = None
) -> dict[str, list[float]]:
    """Steps per second of each way, round by round."""
    others = {"ours": ours(one, batch_size), "bare loop": bare(one, batch_size)}
    others["bare loop"](_CHUNK)  # traces it
    chunk_secs = timed(others["bare loop"], 4 * _CHUNK) / 4
    count = _CHUNK * max(1, round(_TURN_SECS / chunk_secs))

    keras.utils.set_random_seed(_SEED)
    model = one.networks()
    model.compile(
        one.optimizers(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=_CHUNK,
        jit_compile=False,
    )
    turns = Turns(others, count)
    model.fit(
        pipeline(one, batch_size, augment),
        epochs=sys.maxsize,  # till `turns` stops it
        steps_per_epoch=count,
        shuffle=False,  # the pipeline does
        verbose=0,
        callbacks=[turns],
    )
    return turns.rates


def ratio(own: list[float], other: list[float]) -> str:
    """The median ratio of the rounds and its error."""
    quartiles = statistics.quantiles(a / b for a, b in zip(own, other, strict=True))
    error = (quartiles[2] - quartiles[0]) / len(own) ** 0.5
    return f"{quartiles[1]:.2f} ± {error:.2f}"


def add_rows(table: tables.Table, title: str, rates: dict[str, list[float]]) -> None:
    """One row a way."""
    for way in _WAYS:
        own = rates[way]
        table.add_row(
            title,
            way,
            f"{statistics.median(own):.0f}",
            ratio(own, rates["bare loop"]),
            ratio(own, rates["keras fit"]),
            f"{min(own):.0f}-{max(own):.0f}",
        )
        title = ""
    table.add_section()


def main() -> None:
    tf.config.experimental.enable_op_determinism()
    table = tables.Table("task", "way")
    for heading in ("steps/s", "of bare", "of fit", "min-max"):
        table.add_column(heading, justify="right")
    add_rows(table, "digits, batch 64", measure(digits.Digits(), 64, shift))
    add_rows(table, "dense, batch 128", measure(Images(), 128))
    console.Console().print(table)


if __name__ == "__main__":
    main()
