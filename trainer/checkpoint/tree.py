"""A checkpoint tree as a saveable thing: every variable by name, none forgotten.

    >>> import keras, tensorflow as tf
    >>> from trainer.checkpoint import tree
    >>> dense = keras.layers.Dense(1)
    >>> dense.build([None, 3])
    >>> current = tree.Tree(tf.train.Checkpoint(layer=dense, step=tf.Variable(0)))
    >>> [one.path for one in current.describe()][1:]          # as a manifest lists them
    ['layer/bias', 'step', 'save_counter']

`tf.train.Checkpoint` does not reach all variables of a Keras model: neither the seeds
of its dropout layers nor layers in a plain list. They are put into the tree as a part
of their own, so a plain `tf.train.Checkpoint` reads the rest as ever.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any, final

import keras
import tensorflow as tf

from trainer.checkpoint.compatibility import IncompatibleCheckpointError
from trainer.checkpoint.manifest import Variable

UNREACHED = "not_reached_by_tensorflow"


def walk(tree: tf.train.Checkpoint) -> Iterator[tuple[str, tf.Variable]]:
    """Every variable of a tree once, with the path to it.

    A variable that an optimizer shares with a model is named by the model.
    """
    tree.save_counter  # noqa: B018  made at first use; part of every checkpoint
    for path, node in nodes(tree):
        if isinstance(node, keras.Variable):
            yield path, node.value
        elif isinstance(node, tf.Variable):
            yield path, node


@final
class Tree:
    """A user's own `tf.train.Checkpoint`, as the store takes it.

    Attributes:
      tree: what is saved: the user's, completed.
      step: of the next save.
    """

    def __init__(self, tree: tf.train.Checkpoint) -> None:
        self.tree = tree
        self.step = 0
        self._shape: tuple[int, ...] = ()
        self._described: tuple[Variable, ...] = ()

    @property
    def later(self) -> tuple[str, ...]:
        """The beginnings of names that checkpoints of earlier releases don't have."""
        return ()

    @property
    def advice(self) -> str:
        """For the user whose objects don't fit the checkpoint."""
        return (
            "Give the keeper the objects that were saved, all of them built: call the "
            "model on a batch, and optimizer.build(model.trainable_variables). Or give "
            "another directory."
        )

    def describe(self) -> tuple[Variable, ...]:
        """The variables as a manifest lists them."""
        if self.changed():
            self._complete()
            self._described = tuple(
                Variable(path, tuple(one.shape.as_list()), one.dtype.name)
                for path, one in walk(self.tree)
            )
            self._shape = self._outline()
        return self._described

    def changed(self) -> bool:
        """Whether variables have come or gone since the last `describe`.

        A model or an optimizer makes them when it is built.
        """
        return self._shape != self._outline()

    def pack(self) -> None:
        """Nothing lives in Python alone, but the manager counts the saves.

        It adds one; so the counter, too, depends on the step alone.
        """
        self.tree.save_counter.assign(self.step - 1)

    def restore(self, prefix: str) -> None:
        """Puts the saved values into every variable of the tree.

        Raises:
          IncompatibleCheckpointError: something in the tree or in the checkpoint has no
            match.
        """
        try:
            self.tree.restore(prefix).assert_consumed()
        except AssertionError as error:
            reason = str(error).partition("\n")[0]
            raise IncompatibleCheckpointError(
                f"cannot restore {prefix}: {reason}\n{self.advice}"
            ) from error

    def _complete(self) -> None:
        """Adds the variables of Keras models that the tree does not reach."""
        reached = {id(variable) for _, variable in walk(self.tree)}
        missing: dict[int, tf.Variable] = {}
        for one in self._keras_objects():
            for variable in one.variables:
                if id(variable.value) not in reached:
                    missing.setdefault(id(variable.value), variable.value)
        if missing:
            before = getattr(self.tree, UNREACHED, [])
            setattr(self.tree, UNREACHED, [*before, *missing.values()])

    def _outline(self) -> tuple[int, ...]:
        """How many variables each object has: cheap, and other when one is built."""
        children = tf.train.TrackableView(self.tree).children(self.tree)
        counts = [len(getattr(one, "variables", ())) for one in children.values()]
        return (1, len(children), *counts)

    def _keras_objects(self) -> Iterable[Any]:
        kinds = (keras.layers.Layer, keras.optimizers.Optimizer, keras.metrics.Metric)
        return [node for _, node in nodes(self.tree) if isinstance(node, kinds)]


def nodes(tree: tf.train.Checkpoint) -> Iterator[tuple[str, Any]]:
    """Every object below a tree once, with the shortest path from a part of the tree.

    Optimizers come last, and what a variable holds is not entered.
    """
    view = tf.train.TrackableView(tree)
    parts = list(view.children(tree).items())
    parts.sort(key=lambda part: isinstance(part[1], keras.optimizers.Optimizer))
    seen = {id(tree)}
    for part in parts:
        queue = collections.deque([part])
        while queue:
            path, node = queue.popleft()
            if id(node) in seen:
                continue
            seen.add(id(node))
            yield path, node
            if not isinstance(node, keras.Variable):
                children = view.children(node).items()
                queue += [(f"{path}/{name}", child) for name, child in children]
