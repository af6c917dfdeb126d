"""Which variables are trained, and that none is left out unseen.

>>> import keras, tensorflow as tf
>>> from trainer.model import trained
>>> fixed = keras.layers.Dense(1, trainable=False)
>>> tree = tf.train.Checkpoint(fixed=fixed)
>>> trained.left_out([tf.Variable(1.0, name="forgotten")], [], tree)[0].name
'forgotten:0'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.model.contract import loss_of
from trainer.task import TaskError


def check(
    gradients: Mapping[str, Sequence[tf.Tensor | None]],
    variables: Mapping[str, Sequence[Any]],
) -> None:
    """Each optimizer must have something to do; Keras names what stays behind of it.

    Raises:
      task.TaskError: a loss depends on nothing that its optimizer trains.
    """
    for name, slopes in gradients.items():
        if slopes and all(slope is None for slope in slopes):
            paths = ", ".join(getattr(v, "path", v.name) for v in variables[name])
            raise TaskError(
                f"{loss_of(name)} depends on none of the variables that the optimizer "
                f"{name!r} trains: {paths}. Compute it from what the network gives, "
                "in TensorFlow, without stop_gradient, rounding or argmax between."
            )


def left_out(
    watched: Iterable[tf.Variable], learned: Iterable[Any], tree: tf.train.Checkpoint
) -> list[tf.Variable]:
    """Those of the variables under a tape that could be trained and aren't.

    Args:
      watched: what a `tf.GradientTape` has seen, the trainable ones.
      learned: those that an optimizer trains, or that the task assigns to itself.
      tree: says of which variables their layer or the user wants them fixed.
    """
    known = {id(_plain(variable)) for variable in learned}
    # Keras marks its own variable only; the one of TensorFlow below stays trainable.
    known |= {
        id(node.value)
        for node in tf.train.TrackableView(tree).descendants()
        if isinstance(node, keras.Variable) and not node.trainable
    }
    return [variable for variable in watched if id(_plain(variable)) not in known]


def refuse(reached: Iterable[tf.Variable], names: Mapping[str, tf.Variable]) -> None:
    """Says which variables a loss reaches and no optimizer trains.

    Args:
      reached: they have a gradient.
      names: the variables of the state by the name that people know.

    Raises:
      task.TaskError: there are such.
    """
    of = {id(variable): name for name, variable in names.items()}
    lines = [
        f"  {of.get(id(one), one.name)} {tuple(one.shape)} {one.dtype.name}"
        for one in reached
    ]
    if lines:
        raise TaskError(
            "a loss depends on trainable variables that no optimizer trains; they "
            "would keep their initial values:\n"
            + "\n".join(lines)
            + "\nMake each a weight of a network that has an optimizer (a layer with "
            "self.add_weight(...)), or say that it is fixed: tf.Variable(..., "
            'trainable=False), or networks["name"].trainable = False for a network.'
        )


def _plain(variable: Any) -> Any:
    return variable.value if isinstance(variable, keras.Variable) else variable
