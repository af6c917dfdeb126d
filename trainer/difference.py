"""Two checkpoints compared, tensor by tensor, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from trainer import catalog

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def compare(one: catalog.Entry, other: catalog.Entry) -> Iterator[dict[str, Any]]:
    """One row a tensor of either checkpoint file.

    Yields:
      `{"variable", "equal", "differ": how many elements, "max_difference"}`. Equal
      means the same bits, NaN included; what only one has, or has in another shape,
      differs in all elements. The largest difference is absolute, of numbers only.
    """
    readers = [tf.train.load_checkpoint(str(entry.prefix)) for entry in (one, other)]
    keys = [set(reader.get_variable_to_shape_map()) for reader in readers]
    names = {**_names(readers[1]), **_names(readers[0])}
    for key in sorted(keys[0] | keys[1]):
        values = [
            np.asarray(reader.get_tensor(key)) if key in own else None
            for reader, own in zip(readers, keys, strict=True)
        ]
        yield {"variable": names.get(key, key), **_compare(*values)}


def _compare(one: Any, other: Any) -> dict[str, Any]:
    if one is None or other is None or one.shape != other.shape:
        size = max(array.size for array in (one, other) if array is not None)
        return {"equal": False, "differ": size, "max_difference": None}
    if one.dtype.kind in "OSU":
        differ, largest = int(np.sum(one != other)), None
    else:
        raw = [array.reshape(-1, 1).view(np.uint8) for array in (one, other)]
        differ = int(np.any(raw[0] != raw[1], axis=1).sum())
        far = np.abs(one.astype(np.float64) - other.astype(np.float64))
        largest = float(np.max(far, initial=0.0))
    equal = differ == 0 and one.dtype == other.dtype
    return {"equal": equal, "differ": differ, "max_difference": largest}


def _names(reader: Any) -> dict[str, str]:
    """By key, the names that people know the variables by."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(_OBJECT_GRAPH))
    return {
        attribute.checkpoint_key: f"{attribute.full_name} ({part})"
        for node in graph.nodes
        for attribute in node.attributes
        if (part := attribute.checkpoint_key.partition("/.ATTRIBUTES")[0])
    }
