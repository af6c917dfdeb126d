"""The values in a checkpoint file, read without building what they belong to.

    >>> from trainer.checkpoint import reader
    >>> found = reader.Reader("runs/line/recent/ckpt-20")
    >>> found.single("step")
    20
    >>> [value.shape for value in found.listed("variables")]     # as model.variables
    [(1, 1), (1,)]

TensorFlow keeps beside the values the graph of the objects that they were saved from;
that graph says which value is where, also where two objects share one.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.compat import tracking


@final
class Reader:
    """One checkpoint file.

    Attributes:
      keys: of all values that are arrays; the position of an iterator is none.
      names: by key, what people know a variable by.
    """

    def __init__(self, prefix: str) -> None:
        self._reader = tf.train.load_checkpoint(prefix)
        dtypes = self._reader.get_variable_to_dtype_map()
        self.keys = {key for key, dtype in dtypes.items() if dtype != tf.variant}
        graph = tracking.object_graph(self._reader.get_tensor(tracking.OBJECT_GRAPH))
        self._nodes = graph.nodes
        self.names = {
            attribute.checkpoint_key: f"{attribute.full_name} ({part})"
            for node in graph.nodes
            for attribute in node.attributes
            if (part := attribute.checkpoint_key.partition("/.ATTRIBUTES")[0])
        }

    def value(self, key: str) -> Any:
        """The array of one key."""
        return np.asarray(self._reader.get_tensor(key))

    def has(self, part: str) -> bool:
        """Whether the tree has a part of that name."""
        return any(child.local_name == part for child in self._nodes[0].children)

    def single(self, part: str) -> Any:
        """The value of a variable that is a part of the tree.

        Raises:
          KeyError: there is no such part.
        """
        return self.value(self._keys(self._part(part))[0]).item()

    def listed(self, part: str) -> list[Any]:
        """The arrays of a list of variables that is a part of the tree.

        Raises:
          KeyError: there is no such part.
        """
        node = self._nodes[self._part(part)]
        places = {int(child.local_name): child.node_id for child in node.children}
        keys = [key for place in sorted(places) for key in self._keys(places[place])]
        return [self.value(key) for key in keys]

    def _part(self, name: str) -> int:
        parts = {child.local_name: child.node_id for child in self._nodes[0].children}
        return int(parts[name])

    def _keys(self, node: int) -> list[str]:
        """Where the value of a variable is; nothing, if it is none."""
        attributes = self._nodes[node].attributes
        return [
            one.checkpoint_key
            for one in attributes
            if one.name == tracking.VARIABLE_VALUE
        ]


def is_whole(prefix: str) -> bool:
    """Whether TensorFlow reads every array of a checkpoint file."""
    try:
        reader = Reader(prefix)
        for key in reader.keys:
            reader.value(key)
    except (tf.errors.OpError, ValueError, IndexError, KeyError, OSError):
        return False
    return True
