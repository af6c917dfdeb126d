"""What Keras doesn't tell of networks and random numbers."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras.src.random import seed_generator


def layers_of(network: keras.Model) -> list[keras.layers.Layer]:
    """The network and every layer in it at any depth, outer ones first.

    Private: `Layer._flatten_layers`.

    Reason: a layer deep inside is asked for its configuration, or its statistics.
    Risk: if the name goes, `export` and `average` fail.
    Public alternative: `Model.layers` ends at the first level, and layers that are no
    models have none; `tf.train.TrackableView` doesn't see layers in plain lists.
    """
    return list(network._flatten_layers())


def global_seed_state() -> keras.Variable:
    """The variable behind `keras.random` where no seed is given.

    Private: `keras.src.random.seed_generator.global_seed_generator`.

    Reason: it is part of the state of a run. Risk: if the name goes, no run starts.
    Public alternative: none; `keras.utils.set_random_seed` sets, and can't read.
    """
    return seed_generator.global_seed_generator().state


def begin_at_epoch(model: keras.Model, epoch: int | None) -> None:
    """Has the `fit` that is starting begin at an epoch, counted from 0.

    Private: `Model._initial_epoch`, as Keras' own `BackupAndRestore` sets it.

    Reason: `fit` decides where it begins before any callback is asked. Risk: with
    another name, a run that is resumed begins at its first epoch again.
    Public alternative: the argument `initial_epoch`, which the user would have to give.
    """
    model._initial_epoch = epoch


@contextlib.contextmanager
def calls_noted(
    networks: Iterable[keras.Model],
) -> Iterator[dict[int, inspect.BoundArguments]]:
    """Notes with which arguments networks are called first, by their `id`.

    Private: that `Layer.__call__` looks `call` up on the layer itself.

    Reason: only its calls tell what a subclassed network takes. Risk: if `call` is
    looked up on the class, nothing is noted, and an export has no signature for it.
    Public alternative: `Model.inputs`, which functional networks alone have.
    """
    noted: dict[int, inspect.BoundArguments] = {}
    patched = list(dict.fromkeys(networks))
    for network in patched:
        vars(network)["call"] = _noting(network, network.call, noted)
    try:
        yield noted
    finally:
        for network in patched:
            del vars(network)["call"]


def _noting(
    network: keras.Model, call: Any, noted: dict[int, inspect.BoundArguments]
) -> Any:
    # Keras asks for the names of the arguments of what it calls.
    @functools.wraps(call)
    def noting(*arguments: Any, **named: Any) -> Any:
        bound = inspect.signature(call).bind(*arguments, **named)
        noted.setdefault(id(network), bound)
        return call(*arguments, **named)

    return noting
