"""The resources that a traced function takes from outside, and what it does to them.

>>> import tensorflow as tf
>>> from trainer.model import captures
>>> total = tf.Variable(0.0, name="total")
>>> traced = tf.function(lambda: total.assign_add(1.0)).get_concrete_function()
>>> (found,) = captures.of(traced.graph)
>>> found.variable is total, found.written
(True, True)
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from trainer.base.errors import KeepstepError

_TABLE: Any = tf.saved_model.experimental.TrackableResource
_READS = (
    "LookupTableExport",
    "LookupTableFind",
    "LookupTableSize",
    "ReadVariable",
    "ResourceGather",
    "VarIsInitialized",
    "VariableShape",
    "_ReadVariables",
)


class UnownedError(KeepstepError, RuntimeError):
    """A graph takes a resource that no file can hold."""


@dataclasses.dataclass(frozen=True)
class Capture:
    """One resource from outside.

    Attributes:
      handle: its resource tensor.
      variable: whose handle it is; None for a table, an iterator and so on.
      uses: the nodes (`NodeDef`) that take it, in functions that are called, too.
    """

    handle: tf.Tensor
    variable: tf.Variable | None
    uses: tuple[Any, ...]

    @property
    def written(self) -> bool:
        """Whether any use may change it."""
        return any(not node.op.startswith(_READS) for node in self.uses)

    @property
    def is_table(self) -> bool:
        """Whether it is a lookup table."""
        return any(node.op.startswith("LookupTable") for node in self.uses)


def of(graph: Any) -> Iterator[Capture]:
    """The captured resources of a `FuncGraph`, in their order."""
    definition = graph.as_graph_def()
    library = {f.signature.name: f for f in definition.library.function}
    variables = {id(variable.handle): variable for variable in graph.variables}
    for captured, placeholder in graph.captures:
        if captured.dtype == tf.resource:
            uses = tuple(_uses(definition.node, library, placeholder.op.name))
            yield Capture(captured, variables.get(id(captured)), uses)


def owners(graph: Any) -> list[Any]:
    """The variables and tables that a graph takes: what is to be saved with it.

    A graph knows its variables alone. Who owns a table is asked of Python's garbage
    collector: a task may keep it in a list, a global or a closure, where nothing that
    TensorFlow or Keras tracks leads to it.

    Raises:
      UnownedError: a resource is neither a variable nor a table, or nobody owns it.
    """
    found = {id(one.handle): one for one in of(graph)}
    known = {
        key: one.variable for key, one in found.items() if one.variable is not None
    }
    if len(known) < len(found):
        known |= _alive(found.keys() - known.keys())
    for key, one in found.items():
        if key not in known:
            nodes = ", ".join(node.name for node in one.uses[:1])
            raise UnownedError(
                f"the predictions use a resource ({nodes or one.handle.name}) that is "
                "neither a variable nor a lookup table, or that nothing owns any more. "
                "Expected only what a file can hold. Keep a table where the task finds "
                'it: def state(self, networks): return {"words": self.table}. Leave '
                "iterators and datasets out of predictions()."
            )
    return [known[key] for key in found]


def _alive(handles: Iterable[int]) -> dict[int, Any]:
    """The objects that own resources, by the identity of the handle."""
    wanted = set(handles)
    found = _owning(wanted)
    if wanted - found.keys() and gc.get_freeze_count():
        gc.unfreeze()  # what a program has set aside, as servers do before they fork
        try:
            found = _owning(wanted)
        finally:
            gc.freeze()
    return found


def _owning(handles: set[int]) -> dict[int, Any]:
    found = {}
    for one in gc.get_objects():
        # By its type: some objects make up a class, or import one, when they are asked.
        for kind, name in ((_TABLE, "resource_handle"), (tf.Variable, "handle")):
            if issubclass(type(one), kind):
                handle = id(getattr(one, name, None))
                if handle in handles:
                    found[handle] = one
    return found


def _uses(nodes: Iterable[Any], library: Mapping[str, Any], name: str) -> Iterator[Any]:
    """The nodes that take the tensor `name`; calls are followed."""
    for node in nodes:
        inputs = [one for one in node.input if not one.startswith("^")]
        for place, taken in enumerate(inputs):
            if taken.partition(":")[0] != name:
                continue
            callees = [
                library[called.name]
                for attribute in node.attr.values()
                for called in (attribute.func, *attribute.list.func)
                if called.name in library
            ]
            if not callees:
                yield node
            for callee in callees:
                # What an op passes on to its functions comes last: a condition, or the
                # dataset that is mapped, stands before.
                arguments = callee.signature.input_arg
                if len(inputs) - place <= len(arguments):
                    argument = arguments[place - len(inputs)].name
                    yield from _uses(callee.node_def, library, argument)
