"""The objects that a checkpoint is made of, and the format of their graph.

Every private name here is about one thing: to write, from values on the host, byte for
byte the file that TensorFlow would write from the variables.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.eager import context, execute

# Private, but part of the file format: the key of the object graph in a checkpoint,
# and the name under which the value of a variable is stored. Risk: a new format; then
# `tf.train.load_checkpoint` does not find the key. Public alternative: none.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VARIABLE_VALUE = "VARIABLE_VALUE"

# Private: `tf.__internal__.tracking.AutoTrackable`. Reason: a node that has children
# and nothing else. Public alternative: a `tf.Module` has attributes of its own, such
# as `variables`, and so can't have a child of that name; a `tf.train.Checkpoint` can't
# have one called `root`.
Node: Any = tf.__internal__.tracking.AutoTrackable

_Trackable: Any = tf.__internal__.tracking.Trackable
# Private: the methods by which a trackable that is no variable says that it saves
# something. Risk: with another name, an iterator would be taken for an empty node, and
# its position be lost. Public alternative: none.
TABLE_MARKS = ("_empty_key", "_deleted_key")
OWN_SAVING = ("_serialize_to_tensors", "_gather_saveables_for_checkpoint")


class HostValue(_Trackable):  # type: ignore[misc]
    """The value of a variable at one moment; to a checkpoint it is that variable.

    Private: `tf.__internal__.tracking.Trackable`, its method `_serialize_to_tensors`,
    the attributes `_should_act_as_resource_variable` and `_shared_name`.

    Reason: what is written must not be the variable, which training goes on changing.
    Risk: with other names TensorFlow saves nothing, or another name beside the key.
    Public alternative: a copy of the variable costs its memory a second time.

    Attributes:
      variable: whose value it is.
      tensor: the value; None while there is none.
    """

    def __init__(self, variable: tf.Variable) -> None:
        # For the full name that stands beside each key of a checkpoint.
        self._should_act_as_resource_variable = True
        self._shared_name = variable._shared_name
        self.variable = variable
        self.tensor: tf.Tensor | None = None

    def _serialize_to_tensors(self) -> dict[str, Any]:
        return {VARIABLE_VALUE: self.tensor}


def track(parent: Any, child: Any, name: str) -> None:
    """Makes `child` a child of a `Node` under any name.

    Private: `Trackable._track_trackable`. Risk: with another name nothing is saved.
    Public alternative: `setattr` refuses the names of methods, and wraps lists.
    """
    parent._track_trackable(child, name)


def saves_itself(node: Any) -> bool:
    """Whether a trackable that is no variable saves something of its own.

    Such as the position of an iterator, or the content of a table.
    """
    return any(
        getattr(type(node), name) is not getattr(_Trackable, name)
        for name in OWN_SAVING
    )


def is_trackable(given: Any) -> bool:
    """Whether `tf.train.Checkpoint` takes it as it is, neither wrapped nor refused."""
    if isinstance(given, dict | list | tuple):
        return False
    try:
        tf.train.Checkpoint(given=given)
    except ValueError:
        return False
    return True


def read_variables(handles: Sequence[tf.Tensor], dtypes: Sequence[int]) -> Any:
    """The values of all variables of one device, in one call.

    Private: the op `_ReadVariablesOp`, which `tf.raw_ops` doesn't have, run by
    `tensorflow.python.eager.execute`.

    Reason: 2,000 variables are read in 3 ms.
    Risk: if a name goes, the first save says so.
    Public alternative: `ReadVariableOp` for each is six times the time, reading all in
    a `tf.function` three times.

    Args:
      handles: of the variables.
      dtypes: of the values, as `DType.as_datatype_enum` gives them.
    """
    return execute.execute(
        b"_ReadVariablesOp",
        num_outputs=len(handles),
        inputs=list(handles),
        attrs=("N", len(handles), "dtypes", list(dtypes)),
        ctx=context.context(),
    )


def object_graph(serialized: bytes) -> Any:
    """The graph of the objects that a checkpoint was saved from.

    Private: `tensorflow.core.protobuf.trackable_object_graph_pb2`.

    Reason: it says which value is where, also where two objects share one.
    Risk: the module moves; the format is that of the files and stays.
    Public alternative: `tf.train.list_variables` lists keys, and a shared variable
    only under one of its names.
    """
    graph = trackable_object_graph_pb2.TrackableObjectGraph()
    graph.ParseFromString(serialized)
    return graph


def save_as(node: Any, serialize: Callable[[], dict[str, Any]]) -> None:
    """From now on a trackable is saved as what `serialize` gives.

    Private: `Trackable._serialize_to_tensors`. Reason: a table gives its entries in an
    order that depends on its past, so the same table would be other bytes. Risk: with
    another name, tables are saved in that order. Public alternative: none.
    """
    node._serialize_to_tensors = serialize


@contextlib.contextmanager
def saved_as_made(nodes: Iterable[Any]) -> Iterator[None]:
    """Meanwhile what `save_as` said of trackables does not hold.

    Private: as there. Reason: a SavedModel holds copies of tables in a graph, and what
    was said is of the table itself. Risk: with another name, none holds a table that
    changes. Public alternative: none.
    """
    name = "_serialize_to_tensors"
    said = [(node, vars(node).pop(name)) for node in nodes if name in vars(node)]
    try:
        yield
    finally:
        for node, serialize in said:
            save_as(node, serialize)


def table_marks(table: Any) -> list[Any]:
    """The keys by which a dense hash table marks that there is no entry.

    Private: `DenseHashTable._empty_key`, `_deleted_key`. Reason: `export` gives them
    like entries. Risk: with other names, they are saved, too. Public alternative: none.
    """
    given = [getattr(table, name, None) for name in TABLE_MARKS]
    return [one for one in given if one is not None]
