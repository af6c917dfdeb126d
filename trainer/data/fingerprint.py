"""Whether the data are the same at each start of a run, seen from a few examples.

    >>> import numpy as np
    >>> from trainer.data import fingerprint
    >>> one = fingerprint.fingerprint({"train": {"x": np.arange(1000.0)}})
    >>> other = fingerprint.fingerprint({"train": {"x": np.arange(1000.0)[::-1]}})
    >>> one["train"]["length"], one["train"]["examples"], one == other
    (1000, 'x float64 ()', False)

The cost depends on the size of an example, not on their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import xxhash

from trainer.compat.datasets import chain, functions
from trainer.data import datasets
from trainer.data.adapt import Adapted, count_examples
from trainer.data.graph_digest import GraphDigest
from trainer.data.grouping import Grouped
from trainer.data.indexed import Indexed
from trainer.data.several import Several
from trainer.data.sources import as_tensor, common_length, outline
from trainer.data.splits import taken

_SAMPLE = 64
_FIRST = 4


def fingerprint(sources: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What can be told of each split; JSON.

    Args:
      sources: what `Task.sources` gave.

    Returns:
      By split, of several sources by `train/name`, an object with:
        length: the number of examples; -1 where it is unknown or there is no end.
        examples: names, dtypes and shapes of an example; of a dataset its parts, too.
        digest: of 64 examples, the first and the last among them, in their order and
          by value. Of a dataset those that come first; empty for `train`, of which
          `Stream.check` gives one, and for one that writes files or runs Python, which
          must not be opened for a look.
        code: digest of the functions of a dataset; empty for others.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, given in sorted(sources.items()):
        one = taken(given, name)
        if isinstance(one, Several):
            inner = {f"{name}/{key}": source for key, source in one.sources.items()}
            found |= {path: _of_split(path, source) for path, source in inner.items()}
        else:
            found[name] = _of_split(name, one)
    return found


def _of_split(name: str, given: Any) -> dict[str, Any]:
    if isinstance(given, Adapted):
        return _of_dataset(given, opened=name != "train")
    if isinstance(given, Grouped):
        found = _of_split(name, given.source)
        return {**found, "digest": digest([found["digest"], given.lengths])}
    return _of_indexed(given) if isinstance(given, Indexed) else _of_source(given)


def digest(examples: Any) -> str:
    """Of tensors or arrays, nested in any way: dtypes, shapes and values."""
    found = xxhash.xxh3_128()
    _add(found, examples)
    return found.hexdigest()


def sample(length: int) -> np.ndarray:
    """Which of so many examples are looked at: int64, evenly spread, both ends."""
    count = min(length, _SAMPLE)
    return np.unique(np.linspace(0, length - 1, count).round().astype(np.int64))


def _of_indexed(given: Indexed) -> dict[str, Any]:
    outlined = given.outline
    spec = {"/".join(path): one for path, one in outlined.spec.items()}
    return {
        "length": len(given),
        "examples": outline(spec),
        "digest": outlined.digest,
        "code": "",
    }


def _of_source(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        length = common_length(given)
        examples = {
            name: as_tensor(name, _rows(array, sample(length)))
            for name, array in given.items()
        }
    else:
        length = len(given)
        examples = dict(given.gather(tf.constant(sample(length))))
    spec = {
        name: tf.TensorSpec(one.shape[1:], one.dtype) for name, one in examples.items()
    }
    return {
        "length": length,
        "examples": outline(spec),
        "digest": digest(examples),
        "code": "",
    }


def _rows(array: Any, rows: np.ndarray) -> Any:
    """Those rows of an array, without a copy of the whole."""
    if isinstance(array, np.ndarray):
        return array[rows]
    if isinstance(array, tf.Tensor | tf.Variable | tf.RaggedTensor):
        return tf.gather(array, rows)
    return np.asarray([array[int(row)] for row in rows])


def _of_dataset(split: Adapted, *, opened: bool) -> dict[str, Any]:
    given, code, python = split.dataset, GraphDigest(), False
    for part in chain(given):
        python = python or datasets.runs_python(part)
        for function in functions(part):
            code.add(function)
    safe = opened and not python and not datasets.writes(given)
    return {
        "length": count_examples(split),
        "examples": split.outline,
        "digest": digest(list(given.take(_FIRST))) if safe else "",
        "code": code.hexdigest(),
    }


def _add(found: Any, value: Any) -> None:
    """Adds a value with its structure: no two structures are the same bytes."""
    if isinstance(value, Mapping):
        found.update(f"mapping {len(value)};".encode())
        for name in sorted(value):
            found.update(f"{name!r}:".encode())
            _add(found, value[name])
    elif isinstance(value, list | tuple):
        found.update(f"list {len(value)};".encode())
        for one in value:
            _add(found, one)
    elif isinstance(value, tf.RaggedTensor | tf.SparseTensor):
        found.update(type(value).__name__.encode())
        _add(found, tf.nest.flatten(value, expand_composites=True))
    else:
        array = np.asarray(value)
        found.update(f"{array.dtype.str} {array.shape};".encode())
        if array.dtype == object:
            for one in array.flat:
                content = one if isinstance(one, bytes) else repr(one).encode()
                found.update(f"{len(content)} ".encode() + content)
        else:
            found.update(np.ascontiguousarray(array).tobytes())
