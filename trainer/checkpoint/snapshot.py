"""A shadow of a checkpoint tree: taken in a moment, written at leisure.

    >>> import tensorflow as tf
    >>> from trainer.checkpoint import reader, snapshot
    >>> step = tf.Variable(5)
    >>> shadow = snapshot.Snapshot(tf.train.Checkpoint(step=step))
    >>> shadow.take()                       # at a step border, milliseconds
    >>> _ = step.assign(6)                  # training goes on
    >>> _ = shadow.tree.write("aside")      # from any thread
    >>> shadow.drop()                       # written: the memory is free again
    >>> reader.Reader("aside").single("step")
    5

The shadow has a node for each node of the tree, under the same names, and for each
variable a value on the host, so the file it makes is, byte for byte, the file the tree
would make. On a CPU a value shares the buffer of its variable until training writes to
that; on an accelerator it is a copy on the host.

No memory is asked for beforehand.
"""

from __future__ import annotations

import collections
from typing import Any, final

import keras
import tensorflow as tf

from trainer.compat import tracking


class _Device:
    """All variables of one device, read at once: one by one is three times the work."""

    def __init__(self, name: str, values: list[tracking.HostValue]) -> None:
        self._values = values
        self._handles = [value.variable.handle for value in values]
        self._dtypes = [value.variable.dtype.as_datatype_enum for value in values]
        self._on_host = "CPU" in name

    def take(self) -> None:
        tensors = tracking.read_variables(self._handles, self._dtypes)
        if not self._on_host:
            with tf.device("CPU:0"):
                tensors = tf.raw_ops.IdentityN(input=tensors)
        for value, tensor in zip(self._values, tensors, strict=True):
            value.tensor = tensor


@final
class Snapshot:
    """The shadow of one tree; the tree must not change its structure afterwards.

    Attributes:
      tree: the shadow. Holds what the last `take` found, until `drop`.
      unshadowed: the types in the tree that save something which is no variable, such
        as an iterator. If there are any, the shadow is not complete: save the tree
        itself.
    """

    def __init__(self, tree: tf.train.Checkpoint) -> None:
        self._view = tf.train.TrackableView(tree)
        self._values: list[tracking.HostValue] = []
        self._shadows: dict[int, Any] = {}
        self.unshadowed: set[str] = set()
        self._counter = tree.save_counter  # made at first use
        children = self._view.children(tree)
        # The root makes its counter itself, and counts on it when it is saved.
        del children["save_counter"]
        self.tree = tf.train.Checkpoint(
            **{name: self._shadow(child) for name, child in children.items()}
        )
        by_device: dict[str, list[tracking.HostValue]] = collections.defaultdict(list)
        for value in self._values:
            by_device[value.variable.device].append(value)
        self._devices = [_Device(*one) for one in by_device.items()]
        if not self.unshadowed:
            self.take()  # the first time is slow: TensorFlow prepares for it
            self.drop()

    def take(self) -> None:
        """Keeps every value of the tree as it is now."""
        self.tree.save_counter.assign(self._counter)
        for device in self._devices:
            device.take()

    def drop(self) -> None:
        """Lets go of the values."""
        for value in self._values:
            value.tensor = None

    def _shadow(self, node: Any) -> Any:
        if id(node) in self._shadows:
            return self._shadows[id(node)]
        variable = node.value if isinstance(node, keras.Variable) else node
        if isinstance(variable, tf.Variable):
            shadow: Any = tracking.HostValue(variable)
            self._values.append(shadow)
        else:
            if tracking.saves_itself(node):
                self.unshadowed.add(type(node).__name__)
            shadow = tracking.Node()
        self._shadows[id(node)] = shadow
        for name, child in self._view.children(node).items():
            tracking.track(shadow, self._shadow(child), name)
        return shadow
