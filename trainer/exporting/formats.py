"""The formats of an export: how each is written, and the line that loads it.

    >>> import pathlib
    >>> from line import Line
    >>> from trainer.exporting import formats
    >>> model = Line().networks()
    >>> files = formats.write("keras", pathlib.Path(), {"model": model}, {})
    >>> formats.usage("keras", files.values())
    ('load  keras.models.load_model("model.keras")',)

Keras writes what it can write; its refusals are explained with the way around them.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import keras
from absl import logging

from trainer.compat.networks import layers_of
from trainer.exporting import runtimes, saved_model
from trainer.exporting.saved_model import ExportError

SUFFIX = {
    "keras": ".keras",
    "h5": ".h5",
    "weights": ".weights.h5",
    "tflite": ".tflite",
    "onnx": ".onnx",
}
_LOADING = {
    "saved_model": 'load  tf.saved_model.load("{}").signatures["serving_default"]',
    "keras": 'load  keras.models.load_model("{}")',
    "h5": 'load  keras.models.load_model("{}")',
    "weights": 'load  model.load_weights("{}")',
    "tflite": 'load  tf.lite.Interpreter("{}").get_signature_runner()',
    "onnx": 'load  onnxruntime.InferenceSession("{}")',
}


def write(
    kind: str,
    directory: pathlib.Path,
    networks: Mapping[str, keras.Model],
    signatures: saved_model.Signatures,
) -> dict[str, pathlib.Path]:
    """Writes the files of an export.

    Args:
      kind: the format.
      directory: that exists and is empty.
      networks: by name.
      signatures: the functions of what is no file of Keras', as they were traced.

    Returns:
      By network, where its file is; for a SavedModel the directory, as `saved_model`;
      for `tflite` and `onnx` the file of the predictions, as `model`.

    Raises:
      ExportError: a network, or the predictions, can't be written in this format.
    """
    if kind == "saved_model":
        saved_model.write(directory, signatures)
        return {"saved_model": directory}
    if kind in runtimes.KINDS:
        path = directory / f"model{SUFFIX[kind]}"
        runtimes.write(kind, path, signatures[saved_model.PREDICTIONS])
        return {"model": path}
    files = {name: directory / f"{name}{SUFFIX[kind]}" for name in networks}
    for name, network in networks.items():
        if kind == "weights":
            with _as_built(network):
                network.save_weights(files[name])
        else:
            _save(network, files[name], name=name, kind=kind)
    return files


def _save(network: keras.Model, path: pathlib.Path, *, name: str, kind: str) -> None:
    """Has Keras write a network with its layers."""
    _check_layers(network)
    try:
        with _quiet():
            network.save(path)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ExportError(
            f"Keras can't write the network {name!r} as {kind}: {error} Export it as "
            "saved_model or weights, which need no configuration of layers."
        ) from error


@contextlib.contextmanager
def _as_built(network: keras.Model) -> Iterator[None]:
    """Meanwhile Keras reads and writes weights also where only parts were called.

    Its layers have them, and it asks for a call of the whole before it looks there.
    """
    built, network.built = network.built, True
    try:
        yield
    finally:
        network.built = built


def usage(kind: str, paths: Iterable[pathlib.Path]) -> tuple[str, ...]:
    """The line that loads each file."""
    return tuple(_LOADING[kind].format(path) for path in paths)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Keras' advice against HDF5: whoever asks for it knows why."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _check_layers(network: keras.Model) -> None:
    """Asks each layer for the configuration from which it is made again.

    The inner ones come first: one that holds others asks them for theirs.
    """
    for layer in reversed(layers_of(network)):
        try:
            layer.get_config()
        except NotImplementedError as error:
            name = type(layer).__name__
            raise ExportError(
                f"the layer {layer.name!r} ({name}) does not say how it was made, so "
                f"no file can hold it. Add to the class {name}: def get_config(self): "
                "return {**super().get_config(), ...every argument of __init__...}, "
                "and above it @keras.saving.register_keras_serializable(). Or export "
                "as saved_model or weights."
            ) from error
