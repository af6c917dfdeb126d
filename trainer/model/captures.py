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
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

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
