"""Keras' preprocessing layers as plain values, and made again of them.

    >>> import keras, numpy as np
    >>> from trainer.model import learned_layers
    >>> layer = keras.layers.StringLookup(vocabulary=["a", "b"])
    >>> config = learned_layers.config(layer, "'words'", name="words")
    >>> learned_layers.layer("StringLookup", config)(["b"]).numpy().tolist()
    [2]

What `adapt` found becomes an argument of the layer, so it has no variables: it is the
same in every checkpoint. No name of a class or a function is ever looked up but these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")
_KINDS = ("Discretization", "Normalization", *_LOOKUPS)


class UnfitError(ValueError):
    """Something that can't be recorded: a part of a sentence."""


def config(layer: keras.Layer, path: str, *, name: str) -> dict[str, Any]:
    """The arguments that make the layer again as it is: plain values and arrays.

    Args:
      layer: adapted.
      path: where it is, for messages.
      name: that it gets.

    Raises:
      UnfitError: it can't be made again of plain values.
    """
    kind = type(layer).__name__
    if kind not in _KINDS or type(layer) is not getattr(keras.layers, kind):
        raise UnfitError(f"{path} as the layer {kind}, which can't be made again.")
    found: dict[str, Any] = layer.get_config()
    found |= {"name": name, "dtype": layer.dtype_policy.name}
    if kind in _LOOKUPS:
        found |= _of_lookup(layer, kind, found, path)
    if kind == "Normalization":
        found |= _of_normalization(layer, path)
    if kind == "Discretization":
        bounds = layer.bin_boundaries
        if bounds is None:
            raise UnfitError(f"{path} as a Discretization that is not adapted yet.")
        found |= {"bin_boundaries": [float(one) for one in bounds], "num_bins": None}
    for key, value in found.items():
        if callable(value) or isinstance(value, dict):
            raise UnfitError(
                f"{path} as a {kind} whose {key} is a function, and no code is "
                "recorded. Make the layer in networks(), of the vocabulary that "
                "prepare() returns."
            )
    return found


def layer(kind: str, arguments: dict[str, Any]) -> keras.Layer:
    """The layer made again.

    Raises:
      TypeError, ValueError: these are not what `config` gave.
    """
    if kind not in _KINDS:
        raise ValueError(f"{kind!r} is no preprocessing layer of Keras")
    if any(isinstance(one, dict) for one in arguments.values()):
        raise ValueError("its configuration is not plain")
    if isinstance(arguments.get("vocabulary"), str):
        raise ValueError("its vocabulary is a file")
    shape = arguments.pop("shape", None)
    cls: Callable[..., keras.Layer] = getattr(keras.layers, kind)
    made = cls(**arguments)
    if shape is not None:
        made.build(shape)  # here, and not in the graph that happens to use it first
    return made


def _of_lookup(
    layer: keras.Layer, kind: str, config: dict[str, Any], path: str
) -> dict[str, Any]:
    if config["output_mode"] == "tf_idf":
        raise UnfitError(
            f"{path} as a {kind} with output_mode='tf_idf'. Return its vocabulary and "
            "its weights as a list and an array, and make the layer in networks()."
        )
    words = layer.get_vocabulary(include_special_tokens=False)
    if not len(words):
        raise UnfitError(f"{path} as a {kind} that is not adapted yet.")
    convert = int if kind == "IntegerLookup" else str
    config.pop("vocabulary_size", None)
    return {"vocabulary": [convert(one) for one in words], "idf_weights": None}


def _of_normalization(layer: keras.Layer, path: str) -> dict[str, Any]:
    if not layer.built:
        if layer.input_mean is None:
            raise UnfitError(f"{path} as a Normalization that is not adapted yet.")
        return {}
    mean, variance = layer.input_mean, layer.input_variance
    if mean is None:
        mean, variance = layer.adapt_mean, layer.adapt_variance
    shape = layer.get_build_config()["input_shape"]
    return {
        "mean": np.asarray(mean),
        "variance": np.asarray(variance),
        "shape": tuple(None if one is None else int(one) for one in shape),
    }
