"""A shadow of a checkpoint tree: copied in a moment, written at leisure.

    shadow = snapshot.Snapshot(tree)
    shadow.take()                    # at a step border, milliseconds
    ...                              # training goes on
    shadow.tree                      # write this, from any thread

The shadow has a node for each node of the tree, under the same names, and a plain
variable on the host for each variable, so the file it makes is the file the tree would
make. On a CPU the copy shares the buffers until training writes to them; on an
accelerator it is the transfer to the host.
"""

from __future__ import annotations

from typing import Any, final

import keras
import tensorflow as tf

_Node = tf.__internal__.tracking.AutoTrackable
_Trackable = tf.__internal__.tracking.Trackable
# How a trackable that is not a variable says that it saves something of its own.
_OWN_SAVING = ("_serialize_to_tensors", "_gather_saveables_for_checkpoint")


@final
class Snapshot:
    """The shadow of one tree; the tree must not change its structure afterwards.

    Attributes:
      tree: the shadow. Holds what the last `take` copied.
      unshadowed: the types in the tree that save something which is no variable, such
        as an iterator. If there are any, the shadow is not complete: save the tree
        itself.
    """

    def __init__(self, tree: tf.train.Checkpoint) -> None:
        tree.save_counter  # noqa: B018  made at first use; part of every checkpoint
        self._view = tf.train.TrackableView(tree)
        self._pairs: list[tuple[tf.Variable, tf.Variable]] = []
        self._shadows: dict[int, Any] = {}
        self.unshadowed: set[str] = set()
        children = self._view.children(tree)
        # The root's counter is made by the root itself.
        counter = children.pop("save_counter")
        self.tree = tf.train.Checkpoint(
            **{name: self._shadow(child) for name, child in children.items()}
        )
        self._pairs.append((counter, self.tree.save_counter))
        self._copy = tf.function(self._assign_all)

    def take(self) -> None:
        """Copies every value of the tree, in one graph call."""
        self._copy()

    def _assign_all(self) -> None:
        for live, shadow in self._pairs:
            shadow.assign(live.read_value())

    def _shadow(self, node: Any) -> Any:
        if id(node) in self._shadows:
            return self._shadows[id(node)]
        variable = node.value if isinstance(node, keras.Variable) else node
        if isinstance(variable, tf.Variable):
            shadow: Any = _variable_like(variable)
            self._pairs.append((variable, shadow))
        else:
            if any(
                getattr(type(node), one) is not getattr(_Trackable, one)
                for one in _OWN_SAVING
            ):
                self.unshadowed.add(type(node).__name__)
            shadow = _Node()
        self._shadows[id(node)] = shadow
        for name, child in self._view.children(node).items():
            shadow._track_trackable(self._shadow(child), name)
        return shadow


def _variable_like(live: tf.Variable) -> tf.Variable:
    """A variable on the host that can hold the same values."""
    with tf.device("CPU:0"):
        if live.dtype == tf.string:
            initial = tf.fill(live.shape, "")
        else:
            initial = tf.zeros(live.shape, live.dtype)
        return tf.Variable(initial, name=live.name.partition(":")[0])
