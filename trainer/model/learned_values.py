"""What `Task.prepare` may return, as plain values and arrays, and back.

    >>> import numpy as np
    >>> from trainer.model import learned_values
    >>> packed = learned_values.packed({"mean": np.ones(2), "words": ["a"]}, "Mine")
    >>> learned_values.unpacked(packed)["words"], packed.outline["mapping"][1]
    (['a'], ['words', {'list': ['a']}])

No code is recorded. Of Keras' layers only those are taken that are made for this, and
of them what they learned: `learned_layers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.checkpoint.prepared_file import Prepared
from trainer.model import learned_layers
from trainer.task import Learned, TaskError

_EXPECTED = (
    "Expected arrays, tensors, numbers, texts, lists, tuples and mappings of these, or "
    "an adapted layer of Keras: Normalization, TextVectorization, StringLookup, "
    "IntegerLookup, Discretization"
)
_PLAIN = (bool, int, float, str, type(None))
_ARRAYS = (np.ndarray, np.generic, tf.Tensor, tf.Variable, keras.Variable)


def packed(given: Any, task: str) -> Prepared:
    """As a file can hold it.

    Args:
      given: what `prepare` returned.
      task: its class, for messages.

    Raises:
      task.TaskError: it is something that no file can hold.
    """
    if not isinstance(given, Mapping):
        raise TaskError(
            f"{task}.prepare() returns {type(given).__name__}; expected a mapping, "
            'such as return {"vocabulary": words}.'
        )
    arrays: dict[str, np.ndarray] = {}
    try:
        return Prepared(_packed(given, (), arrays), arrays)
    except learned_layers.UnfitError as error:
        raise TaskError(f"{task}.prepare() returns {error} {_EXPECTED}.") from error


def unpacked(given: Prepared) -> Learned:
    """The values; the same ones at each start, for they come from the same file.

    Raises:
      KeyError, TypeError, ValueError: it is not what `packed` made.
    """
    return Learned(_unpacked(given.outline, given.arrays))


def layers(given: Any) -> list[keras.Layer]:
    """The layers in what `unpacked` gave."""
    if isinstance(given, keras.Layer):
        return [given]
    inner = given.values() if isinstance(given, Mapping) else given
    if isinstance(inner, str | bytes | np.ndarray) or not hasattr(inner, "__iter__"):
        return []
    return [layer for one in inner for layer in layers(one)]


def _packed(value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, np.str_ | np.bytes_):
        value = value.item()
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, Mapping):
        return {"mapping": [_entry(*one, path, arrays) for one in value.items()]}
    if type(value) in (list, tuple):
        kind = type(value).__name__
        inner = [_packed(one, (*path, str(n)), arrays) for n, one in enumerate(value)]
        return {kind: inner}
    if isinstance(value, keras.Layer):
        name = re.sub(r"\W", "_", "_".join(path))
        config = learned_layers.config(value, _named(path), name=name)
        return {
            "layer": type(value).__name__,
            "config": _packed(config, path, arrays),
        }
    if isinstance(value, _ARRAYS):
        return _array(value, path, arrays)
    raise learned_layers.UnfitError(
        f"{_named(path)} as {type(value).__name__}, which no file can hold."
    )


def _entry(
    name: Any, value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]
) -> list[Any]:
    if isinstance(name, np.str_ | np.integer):
        name = name.item()
    if type(name) not in (str, int):
        raise learned_layers.UnfitError(
            f"{_named(path)} with the name {name!r}, which is neither a text nor a "
            "whole number."
        )
    return [name, _packed(value, (*path, str(name)), arrays)]


def _array(value: Any, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    # Names are those of files in an archive; two paths never make one.
    name = f"{len(arrays)}.{'.'.join(one for one in path if one.isidentifier())}"
    if len(path) == 1 and path[0].isidentifier():
        (name,) = path
    array = np.asarray(value)
    if array.dtype.kind in "OSU":
        arrays[name] = _texts(array, path)
        return {"texts": name}
    if array.dtype.kind not in "biufc":
        raise learned_layers.UnfitError(
            f"{_named(path)} with the dtype {array.dtype}, which no file can hold."
        )
    if isinstance(value, np.generic):  # there may be one for each word of a language
        return {"scalar": [array.dtype.str, array.tobytes().hex()]}
    arrays[name] = array
    return {"array": name}


def _texts(array: np.ndarray, path: tuple[str, ...]) -> np.ndarray:
    flat = [one.encode() if isinstance(one, str) else one for one in array.ravel()]
    for one in flat:
        if not isinstance(one, bytes):
            raise learned_layers.UnfitError(
                f"{_named(path)} as an array of {type(one).__name__}, which no file "
                "can hold."
            )
        if one.endswith(b"\0"):
            raise learned_layers.UnfitError(
                f"{_named(path)} with a text that ends with a zero byte, which an "
                "array of texts would lose."
            )
    return np.array(flat, "S").reshape(array.shape)


def _unpacked(node: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if type(node) in _PLAIN:
        return node
    ((kind, inner), *_) = node.items()
    if kind == "mapping":
        return {name: _unpacked(one, arrays) for name, one in inner}
    if kind == "list":
        return [_unpacked(one, arrays) for one in inner]
    if kind == "tuple":
        return tuple(_unpacked(one, arrays) for one in inner)
    if kind == "bytes":
        return bytes.fromhex(inner)
    if kind == "layer":
        return learned_layers.layer(inner, _unpacked(node["config"], arrays))
    if kind == "texts":
        return arrays[inner].astype(object)
    if kind == "scalar":
        dtype, content = inner
        return np.frombuffer(bytes.fromhex(content), dtype)[0]
    if kind == "array":
        found = arrays[inner]
        found.flags.writeable = False  # it is shared by all who look it up
        return found
    raise ValueError(f"there is no kind {kind!r}")


def _named(path: tuple[str, ...]) -> str:
    return repr("/".join(path))
