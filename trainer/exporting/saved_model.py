"""A SavedModel: the predictions as they were traced, with all that they compute with.

    >>> import pathlib, tensorflow as tf
    >>> from line import Line
    >>> from trainer.exporting import saved_model
    >>> from trainer.model import prediction
    >>> model, spec = Line().networks(), {"x": tf.TensorSpec([None, 1])}
    >>> with saved_model.noting({"model": model}) as noted:
    ...     predictor = prediction.Predictor(Line(), model, spec)
    >>> found = saved_model.signatures(predictor, noted)
    >>> saved_model.write(pathlib.Path("line"), found)
    >>> sorted(tf.saved_model.load("line").signatures)
    ['model', 'serving_default']

What is saved are functions, with the variables and tables that they take, wherever the
task keeps them. The networks themselves are not: Keras would trace each of them once
more, with inputs of its own choice.
"""

from __future__ import annotations

import contextlib
import inspect
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat.networks import calls_noted
from trainer.compat.tracking import saved_as_made
from trainer.model import captures, prediction

PREDICTIONS = "serving_default"
Signatures = dict[str, Any]
_HALF = (tf.float16, tf.bfloat16)


class ExportError(KeepstepError, RuntimeError):
    """A network, or the predictions, can't be exported; nothing was left behind."""


class Noted:
    """How networks are called, by their names."""

    def __init__(self, networks: Mapping[str, keras.Model]) -> None:
        self.networks = dict(networks)
        self.calls: Mapping[int, inspect.BoundArguments] = {}

    def call_of(self, name: str) -> inspect.BoundArguments | None:
        """The arguments of a call of a network; None: nobody knows how it is called."""
        network = self.networks[name]
        if (noted := self.calls.get(id(network))) is not None:
            return noted
        if not getattr(network, "inputs", None):
            return None
        sequential = isinstance(network, keras.Sequential)
        given = network.inputs[0] if sequential else network.input
        return inspect.signature(network.call).bind(given)


@contextlib.contextmanager
def noting(networks: Mapping[str, keras.Model]) -> Iterator[Noted]:
    """Notes how the networks are called by what is traced meanwhile."""
    noted = Noted(networks)
    with calls_noted(networks.values()) as noted.calls:
        yield noted


def signatures(predictor: prediction.Predictor, noted: Noted) -> Signatures:
    """The functions of an export: the predictions, and each network by its name.

    A network has one if it was called as a whole, with tensors, or tells its inputs.
    """
    found: Signatures = {PREDICTIONS: predictor.traced}
    for name in noted.networks:
        call = noted.call_of(name)
        traced = call and _traced(noted.networks[name], call)
        if traced and name not in found:
            found[name] = traced
    return found


def write(directory: pathlib.Path, found: Signatures) -> None:
    """Writes the functions with all that they take.

    Raises:
      captures.UnownedError: they take something that no file can hold.
    """
    module = tf.Module()
    owned = [one for traced in found.values() for one in captures.owners(traced.graph)]
    module.taken = list({id(one): one for one in owned}.values())
    with saved_as_made(module.taken):
        tf.saved_model.save(module, str(directory), signatures=found)


def _traced(network: keras.Model, call: inspect.BoundArguments) -> Any:
    """The network as a function of its tensors by name; None if it has others."""
    leaves = list(_leaves(call.arguments))
    taken = {name: one for name, one in leaves if _is_tensor(one)}
    if not taken or any(tf.is_tensor(o) and not _is_tensor(o) for _, o in leaves):
        return None

    def of_network(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        (_, first), *others = _filled(call.arguments, inputs).items()
        outputs = network(first, **dict(others))  # Keras takes one alone by its place
        return dict(_leaves({"output": outputs}))

    specs = {name: _spec(name, one) for name, one in taken.items()}
    traced = tf.function(of_network, autograph=False).get_concrete_function(**specs)
    outputs = traced.structured_outputs.values()
    plain = all(isinstance(one, tf.Tensor | tf.TensorSpec) for one in outputs)
    return traced if plain else None


def _leaves(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What stands in arguments, each with a name made of where it stands."""
    for name, value in arguments.items():
        yield from _below(value, (name,))


def _below(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, one in pairs:
            yield from _below(one, (*path, key))
    elif value is not None:
        yield _name(path), value


def _filled(value: Any, inputs: Mapping[str, Any], path: tuple[Any, ...] = ()) -> Any:
    """The arguments with the tensors of `inputs` in their places."""
    if isinstance(value, Mapping):
        return {k: _filled(one, inputs, (*path, k)) for k, one in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(one, inputs, (*path, n)) for n, one in enumerate(value)]
    return inputs[_name(path)] if _is_tensor(value) else value


def _name(path: tuple[Any, ...]) -> str:
    """A mapping's own keys where there are some: `inputs`, `inputs_0`, `tokens`."""
    keys = path[1:] if len(path) > 1 and isinstance(path[1], str) else path
    return re.sub(r"\W", "_", "_".join(map(str, keys)))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, tf.Tensor | keras.KerasTensor)


def _spec(name: str, value: Any) -> tf.TensorSpec:
    """What a call had; in mixed precision Keras makes halves of it by itself."""
    dtype = tf.as_dtype(value.dtype)
    return tf.TensorSpec(
        value.shape, tf.float32 if dtype in _HALF else dtype, name=name
    )
