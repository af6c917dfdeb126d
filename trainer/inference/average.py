"""The weights of the best checkpoints, averaged into a new one.

    >>> from line import Line
    >>> from trainer.checkpoint import catalog, layout, retention
    >>> from trainer.config import options
    >>> from trainer.inference import average
    >>> choices = options.RunOptions(run_dir="runs/line", batch_size=4)
    >>> found = catalog.scan(layout.RunDirectory(choices.directory()))
    >>> rule = retention.Best.parse("loss:min")
    >>> average.average(choices, Line(), found.entries[1:], rule).prefix
    PosixPath('runs/line/averaged/loss/ckpt-30')

"Averaging weights leads to wider optima" (P. Izmailov et al., 2018,
https://arxiv.org/abs/1803.05407): the mean of the weights of good checkpoints is often
better than each. What batch normalisation knows of the old weights is worth nothing
with the new ones, so it is measured anew on training data, as that paper says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer import data
from trainer.checkpoint import catalog, layout, retention, selection, writer
from trainer.checkpoint.layout import RunDirectory
from trainer.compat.networks import layers_of
from trainer.config import options
from trainer.data.adapt import steps_per_epoch
from trainer.data.inputs import Input
from trainer.inference import loaded
from trainer.model import ema, loading, measures, steps
from trainer.model.building import step_values
from trainer.model.contract import network_items
from trainer.model.optimization import Tracing
from trainer.storage import files
from trainer.task import Task
from trainer.task.given import at_step

_OF_STREAM = 100


@dataclasses.dataclass(frozen=True)
class Average:
    """A checkpoint of averaged weights.

    Attributes:
      prefix: the path that `--checkpoint` takes.
      metrics: of its evaluation.
      beats: whether it is better than the best of its parents.
    """

    prefix: pathlib.Path
    metrics: dict[str, float]
    beats: bool


def average(
    choices: options.RunOptions,
    task: Task,
    entries: Sequence[catalog.Entry],
    rule: retention.Best,
) -> Average:
    """Averages checkpoints, evaluates the result and saves it.

    All else in the new checkpoint, such as the optimizer, is that of the best one, and
    so is its step. It lies in `averaged/<metric>`, where no rule deletes it.

    Args:
      choices: of the run.
      task: of the run; it must have a split `valid`.
      entries: at least two, the best first.
      rule: by which they are the best.

    Raises:
      selection.DamagedCheckpointError: the files of one are not what was committed.
      layout.OutsideError: a link in the run directory leads out of it.
      OSError: the new one can't be written.
    """
    RunDirectory(choices.directory()).check_links()
    found = loaded.load(choices, task, entries[0], feeds=True)
    task = found.task
    current = found.state
    loading.load_all(entries[0], current)
    live = ema.averaged(network_items(current.networks))
    means = {name: tf.zeros(one.shape, tf.float64) for name, one in live.items()}
    for entry in entries:
        loading.load_networks(entry, current)
        for name, variable in live.items():
            means[name] += tf.cast(variable, tf.float64) / len(entries)
    loading.load_networks(entries[0], current)  # the task's own state is the best one's
    for name, variable in live.items():
        variable.assign(tf.cast(means[name], variable.dtype))
    _measure_batches(task, found, choices.batch_size)
    current.averages.reset()
    valid = found.examples(choices.eval_batch_size)
    every = steps.EvaluationLoop(task, current.networks, valid, step=current.step)
    metrics = every.run() or {}
    directory = RunDirectory(choices.directory()).averaged(rule.metric)
    best = selection.verified(entries[0])
    current.progress = dataclasses.replace(current.progress, metrics=metrics)
    current.pack()
    files.make_directory(directory)
    draft = dataclasses.replace(best, metrics=metrics)
    writer.write_anew(current.tree, directory, draft)
    return Average(
        prefix=layout.prefix(directory, best.step),
        metrics=metrics,
        beats=rule.improves(metrics[rule.metric], best.metrics[rule.metric]),
    )


def _measure_batches(task: Task, found: loaded.Restored, batch_size: int) -> None:
    """Gives batch normalisation the mean statistics of an epoch of training batches."""
    if found.inputs is not None:
        with contextlib.closing(found.inputs) as inputs:
            _measure(task, found, inputs, _batches(found.sources, batch_size))


def _batches(sources: Mapping[str, Any], batch_size: int) -> int:
    """How many batches training takes in an epoch; 100 where that is unknown."""
    epoch = steps_per_epoch(data.split(sources, "train"), batch_size)
    return _OF_STREAM if epoch is None else math.ceil(epoch)


def _measure(task: Task, found: loaded.Restored, inputs: Input, count: int) -> None:
    networks = network_items(found.state.networks)
    layers = {
        layer: layer.momentum
        for network in networks.values()
        for layer in layers_of(network)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    }
    if not layers:
        return

    every, apart = found.state.networks, measures.names(task)

    def forward(number: tf.Tensor) -> None:
        # Of n + 1 batches, the mean of the first n weighs n times as much as the last.
        momentum = tf.cast(number / (number + 1), tf.float32)
        for layer in layers:
            layer.momentum = momentum
        batch = inputs.batch(number)
        given = {"seed": inputs.seed, "number": number, "measured": apart}
        with at_step(found.state.step):
            step_values(task, every, batch, Tracing(task, every, **given))

    spec = tf.TensorSpec([], tf.int64)
    measured = {
        id(one.value)
        for layer in layers
        for one in (layer.moving_mean, layer.moving_variance)
    }
    traced = tf.function(forward, autograph=False).get_concrete_function(spec)
    moved = traced.graph.variables
    others = [variable for variable in moved if id(variable) not in measured]
    before = [variable.read_value() for variable in others]
    for number in range(count):
        traced(tf.constant(number, tf.int64))
    for layer, momentum in layers.items():
        layer.momentum = momentum
    for variable, value in zip(others, before, strict=True):
        variable.assign(value)
