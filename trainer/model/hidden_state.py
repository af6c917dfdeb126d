"""Ops with a state of their own, in C++ or Python, which no checkpoint can hold.

>>> import tensorflow as tf
>>> from trainer.model import hidden_state
>>> traced = tf.function(lambda: tf.random.normal([])).get_concrete_function()
>>> (one,) = hidden_state.found(traced.graph, "the train loop")
>>> one.what.partition(",")[0]
'the op RandomStandardNormal'
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.data.indexed import read_by

# Stateful by TensorFlow's definition, and without a state that a later step would see.
_HARMLESS = {
    "Assert",
    "Case",
    "CheckNumerics",
    "If",
    "PartitionedCall",
    "Print",
    "PrintV2",
    "StatefulPartitionedCall",
    "Timestamp",
    "While",
}
# They describe datasets; what an iterator over these holds is saved with it.
_DATASET = re.compile(r"(?!Random|Shuffle)\w*Dataset(V\d)?")
_PYTHON = {
    "PyFunc": "tf.py_function or tf.numpy_function",
    "PyFuncStateless": "tf.py_function or tf.numpy_function",
    "EagerPyFunc": "tf.py_function or tf.numpy_function",
    "GeneratorDataset": "from_generator",
}

PYTHON_REMEDY = (
    "What Python keeps between steps is lost with the process: write the function with "
    "TensorFlow ops, or apply it to the data beforehand."
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that would be lost, and what to do about it."""

    what: str
    remedy: str

    @property
    def subject(self) -> str:
        """What it is about, wherever it was found."""
        return self.what.partition(", used by")[0]


def found(graph: Any, place: str) -> Iterator[Finding]:
    """The ops of a graph, and of all that it calls, that keep something hidden.

    Args:
      graph: a `FuncGraph`.
      place: what people call it.
    """
    definition = graph.as_graph_def()
    bodies = [(place, definition.node)]
    bodies += [(f.signature.name, f.node_def) for f in definition.library.function]
    seen = set()
    for where, nodes in bodies:
        for node in nodes:
            one = _judge(graph, node)
            if one and (node.op, node.name) not in seen:
                seen.add((node.op, node.name))
                yield dataclasses.replace(
                    one, what=f"{one.what} {node.name!r} in {where}"
                )


def _judge(graph: Any, node: Any) -> Finding | None:
    if node.op in _PYTHON and read_by(node) is None:
        return Finding(f"the op {node.op} ({_PYTHON[node.op]})", PYTHON_REMEDY)
    try:
        op = graph.op_def_for_type(node.op)
    except (KeyError, tf.errors.NotFoundError):
        return None  # a call of a library function, which is looked at itself
    takes_resource = any(
        arg.type == tf.resource.as_datatype_enum for arg in op.input_arg
    )
    harmless = node.op in _HARMLESS or _DATASET.fullmatch(node.op)
    if not op.is_stateful or takes_resource or harmless:
        return None
    return Finding(
        f"the op {node.op}, which has a hidden state of its own,",
        "Random numbers that resume come from the seeds that augment() gets "
        "(data.uniform, tf.random.stateless_*), from keras.random, or from "
        "tf.random.get_global_generator(), which are in the checkpoint.",
    )
