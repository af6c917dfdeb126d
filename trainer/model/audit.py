"""Proof that a checkpoint can't miss anything that training changes.

What a graph reads and writes outside itself are resources that it captures: each must
be reachable from the checkpoint tree. What is left are ops that hold a state of their
own, in C++ or Python, which no checkpoint can hold: there must be none. Both are known
once the train loop is traced, so a run that could not resume exactly is told so before
its first step.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import tensorflow as tf

from trainer.compat import datasets
from trainer.errors import KeepstepError

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
_TABLE_WRITES = ("LookupTableInsert", "LookupTableImport", "LookupTableRemove")
_PYTHON = {
    "PyFunc": "tf.py_function or tf.numpy_function",
    "PyFuncStateless": "tf.py_function or tf.numpy_function",
    "EagerPyFunc": "tf.py_function or tf.numpy_function",
    "GeneratorDataset": "from_generator",
}

_PYTHON_REMEDY = (
    "What Python keeps between steps is lost with the process: write the function with "
    "TensorFlow ops, or apply it to the data beforehand."
)


class IncompleteStateError(KeepstepError, RuntimeError):
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
    function: Any, tree: tf.train.Checkpoint, *, place: str = "the train loop"
) -> list[Finding]:
    """What the traced function changes and the tree doesn't hold.

    Args:
      function: a `tf.types.experimental.ConcreteFunction`.
      tree: the checkpoint tree.
      place: what people call the function.
    """
    return [
        *_unreachable(function.graph, tree),
        *_hidden_state(function.graph, place),
    ]


def examine_stream(dataset: tf.data.Dataset) -> list[Finding]:
    """What the training stream keeps that its saved iterator doesn't hold."""
    return [
        finding
        for one in datasets.chain(dataset)
        for graph in datasets.graphs(one)
        for finding in _hidden_state(graph, "the input stream")
    ]


def examine_evaluated(dataset: tf.data.Dataset) -> list[Finding]:
    """Why a dataset that each evaluation begins anew would not be the same again.

    What its Python functions keep, of `from_generator` for one, can't be known.
    """
    findings = []
    for one in datasets.chain(dataset):
        if datasets.reshuffles(one):
            findings.append(
                Finding(
                    "the order of the examples to evaluate, which shuffle() draws anew "
                    "each time",
                    "Evaluate without a shuffle, or with one that has "
                    "reshuffle_each_iteration=False.",
                )
            )
        for graph in datasets.graphs(one):
            hidden = _hidden_state(graph, "the evaluation's input")
            findings += [found for found in hidden if found.remedy != _PYTHON_REMEDY]
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
                library[called.name]
                for attribute in node.attr.values()
                for called in (attribute.func, *attribute.list.func)
                if called.name in library
            ]
            if not callees:
                yield node.op, node.name
            for callee in callees:
                # The first input of a branch is the condition's.
                inputs = [name for name in node.input if not name.startswith("^")]
                skipped = len(inputs) - len(callee.signature.input_arg)
                argument = callee.signature.input_arg[place - max(skipped, 0)].name
                yield from _uses(callee.node_def, library, argument)


def _handle(node: Any) -> Any:
    """The resource of a trackable: a variable, a table or an iterator."""
    for name in ("handle", "resource_handle"):
        handle = getattr(node, name, None)
        if isinstance(handle, tf.Tensor):
            return handle
    return datasets.iterator_resource(node)


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
        return Finding(f"the op {node.op} ({_PYTHON[node.op]})", _PYTHON_REMEDY)
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
