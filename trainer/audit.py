"""Proof that a checkpoint can't miss anything that training changes.

What a graph reads and writes outside itself are resources that it captures: each must
be reachable from the checkpoint tree. What is left are ops that hold a state of their
own, in C++ or Python, which no checkpoint can hold: there must be none. Both are known
once the train loop is traced, so a run that could not resume exactly is told so before
its first step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

# Stateful by TensorFlow's definition, and without a state that a later step would see.
_HARMLESS = {
    "Assert",
    "Case",
    "If",
    "PartitionedCall",
    "Print",
    "PrintV2",
    "StatefulPartitionedCall",
    "Timestamp",
    "While",
}
_TABLE_WRITES = ("LookupTableInsert", "LookupTableImport", "LookupTableRemove")
_PYTHON = {"PyFunc", "EagerPyFunc", "PyFuncStateless"}


class IncompleteStateError(RuntimeError):
    """Training changes something that no checkpoint would hold."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that would be lost, and what to do about it."""

    what: str
    remedy: str

    @property
    def subject(self) -> str:
        """What it is about, wherever it was found."""
        return self.what.partition(", used by")[0]


def examine(
    function: Any,
    tree: tf.train.Checkpoint,
    input_graphs: Iterable[Any] = (),
    *,
    place: str = "the train loop",
) -> list[Finding]:
    """What the traced function changes and the tree doesn't hold.

    Args:
      function: a `tf.types.experimental.ConcreteFunction`.
      tree: the checkpoint tree.
      place: what people call the function.
      input_graphs: of the functions that a stream applies to its examples.
    """
    findings = [
        *_unreachable(function.graph, tree),
        *_hidden_state(function.graph, place),
    ]
    for graph in input_graphs:
        findings += _hidden_state(graph, "the input stream")
    return findings


def describe(findings: Iterable[Finding]) -> str:
    """The message for people: each finding, and each remedy once."""
    findings = list(findings)
    remedies = dict.fromkeys(finding.remedy for finding in findings)
    return (
        "this task can't be resumed exactly: training changes what no checkpoint "
        "holds.\n"
        + "\n".join(f"  {finding.what}" for finding in findings)
        + "\n"
        + "\n".join(remedies)
        + "\nOr give --allow_inexact to train all the same."
    )


def _unreachable(graph: Any, tree: tf.train.Checkpoint) -> Iterator[Finding]:
    definition = graph.as_graph_def()
    library = {f.signature.name: f for f in definition.library.function}
    nodes = tf.train.TrackableView(tree).descendants()
    reachable = {id(handle) for node in nodes if (handle := _handle(node)) is not None}
    variables = {id(variable.handle): variable for variable in graph.variables}
    for captured, placeholder in graph.captures:
        if captured.dtype != tf.resource or id(captured) in reachable:
            continue
        uses = list(_uses(definition.node, library, placeholder.op.name))
        variable = variables.get(id(captured))
        if variable is not None:
            what = f"the variable {variable.name} {tuple(variable.shape)}"
            what += f" {variable.dtype.name}"
        elif any(op.startswith("LookupTable") for op, _ in uses) and not any(
            op.startswith(_TABLE_WRITES) for op, _ in uses
        ):
            continue  # a table that is only read is made again by the task's code
        else:
            what = f"the resource {captured}"
        yield Finding(
            what + "".join(f", used by {name!r}" for _, name in uses[:1]),
            "What is a variable, a metric, a layer or a table is saved if the task "
            'gives it: def state(self, networks): return {"some_name": it}',
        )


def _uses(
    nodes: Iterable[Any], library: Mapping[str, Any], name: str
) -> Iterator[tuple[str, str]]:
    """The ops, with their names, that take the tensor `name`; calls are followed."""
    for node in nodes:
        for place, taken in enumerate(node.input):
            if taken.partition(":")[0] != name:
                continue
            callees = [
                library[attribute.func.name]
                for attribute in node.attr.values()
                if attribute.func.name in library
            ]
            if not callees:
                yield node.op, node.name
            for callee in callees:
                # The first input of a branch is the condition's.
                skipped = len(node.input) - len(callee.signature.input_arg)
                argument = callee.signature.input_arg[place - max(skipped, 0)].name
                yield from _uses(callee.node_def, library, argument)


def _handle(node: Any) -> Any:
    """The resource of a trackable: a variable, a table or an iterator."""
    for name in ("handle", "resource_handle", "_iterator_resource"):
        handle = getattr(node, name, None)
        if isinstance(handle, tf.Tensor):
            return handle
    return None


def _hidden_state(graph: Any, place: str) -> Iterator[Finding]:
    definition = graph.as_graph_def()
    bodies = [(place, definition.node)]
    bodies += [(f.signature.name, f.node_def) for f in definition.library.function]
    seen = set()
    for where, nodes in bodies:
        for node in nodes:
            finding = _judge(graph, node)
            if finding and (node.op, node.name) not in seen:
                seen.add((node.op, node.name))
                yield dataclasses.replace(
                    finding, what=f"{finding.what} {node.name!r} in {where}"
                )


def _judge(graph: Any, node: Any) -> Finding | None:
    if node.op in _PYTHON:
        return Finding(
            f"the op {node.op} (tf.py_function or tf.numpy_function)",
            "What Python keeps between steps is lost with the process: write the "
            "function with TensorFlow ops, or apply it to the data beforehand.",
        )
    try:
        op = graph.op_def_for_type(node.op)
    except (KeyError, tf.errors.NotFoundError):
        return None  # a call of a library function, which is looked at itself
    takes_resource = any(
        arg.type == tf.resource.as_datatype_enum for arg in op.input_arg
    )
    if not op.is_stateful or takes_resource or node.op in _HARMLESS:
        return None
    return Finding(
        f"the op {node.op}, which has a hidden state of its own,",
        "Random numbers that resume come from the seeds that augment() gets "
        "(data.uniform, tf.random.stateless_*), from keras.random, or from "
        "tf.random.get_global_generator(), which are in the checkpoint.",
    )
