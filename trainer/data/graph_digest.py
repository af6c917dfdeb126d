"""What traced functions compute, as one number: names, devices and order aside.

    >>> import tensorflow as tf
    >>> from trainer.data.graph_digest import GraphDigest
    >>> def digest(number):
    ...     traced = tf.function(lambda x: x + number).get_concrete_function(1.0)
    ...     found = GraphDigest()
    ...     found.add(traced)
    ...     return found.hexdigest()
    >>> digest(2.0) == digest(2.0), digest(2.0) == digest(3.0)
    (True, False)

A node is known by its op, its attributes and by what flows into it, so that neither its
name nor its place matters. A function is known by what it returns and by those of its
nodes that have an effect.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import xxhash

# They name things, or say how to run what the other attributes say.
_UNTOLD = {
    "config",
    "config_proto",
    "container",
    "cookie",
    "executor_type",
    "message",
    "metadata",
    "shared_name",
    "token",
}
# They speak to people only; what they check is what flows in first.
_SPEAKING = {"Assert": 1}
_NOTHING = b"speaks to people only"
_SMALL = 1  # values of a captured tensor that is a setting, not data


class GraphDigest:
    """The digest of all functions that were added, in their order."""

    def __init__(self) -> None:
        self._found = xxhash.xxh3_128()

    def add(self, function: Any) -> None:
        """Takes a concrete function.

        What it captures counts by dtype and shape, not by value; a captured tensor of
        one value counts by that.
        """
        definition = function.graph.as_graph_def()
        library = {f.signature.name: f for f in definition.library.function}
        digests = _Library(library)
        captured = {
            placeholder.op.name: _captured(function.graph, outside)
            for outside, placeholder in function.graph.captures
        }
        arguments = {}
        for place, one in enumerate(function.graph.inputs):
            outside = captured.get(one.op.name, f"{one.dtype.name} {one.shape}")
            arguments[one.op.name] = _hash("argument", place, outside)
        known = digests.nodes(definition.node, arguments)
        stateful = [
            known[node.name]
            for node in definition.node
            if node.name not in arguments and digests.has_effect(node)
        ]
        returned = [_tensor(known, one.name) for one in function.graph.outputs]
        self._found.update(_hash("function", *returned, "effects", *sorted(stateful)))

    def hexdigest(self) -> str:
        """Of what was added so far."""
        return self._found.hexdigest()


class _Library:
    """The functions that a graph calls, each looked at once."""

    def __init__(self, library: Mapping[str, Any]) -> None:
        self._library = library
        self._known: dict[str, bytes] = {}
        self._effects: dict[str, bool] = {}

    def function(self, name: str) -> bytes:
        """The digest of a function."""
        if name not in self._known:
            body = self._library[name]
            arguments = {
                one.name: _hash("argument", place, one.type)
                for place, one in enumerate(body.signature.input_arg)
            }
            known = self.nodes(body.node_def, arguments)
            returned = [
                _tensor(known, body.ret[one.name]) for one in body.signature.output_arg
            ]
            effects = [known[n.name] for n in body.node_def if self.has_effect(n)]
            self._known[name] = _hash(
                "function", *returned, "effects", *sorted(effects)
            )
        return self._known[name]

    def has_effect(self, node: Any) -> bool:
        """Whether a node does more than to give a value."""
        called = list(_called(node, self._library))
        if called:
            return any(self._any_effect(name) for name in called)
        if node.op.startswith("Print"):
            return False
        definition = _definition(node.op)
        return definition is not None and definition.is_stateful

    def _any_effect(self, name: str) -> bool:
        if name not in self._effects:
            body = self._library[name].node_def
            self._effects[name] = any(self.has_effect(node) for node in body)
        return self._effects[name]

    def nodes(
        self, nodes: Iterable[Any], arguments: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """The digest of each node by name, the arguments among them."""
        known = dict(arguments)
        waiting = {node.name: node for node in nodes if node.name not in known}
        for root in list(waiting):
            stack = [root]
            while stack:
                name = stack[-1]
                missing = [
                    source
                    for source in _sources(waiting[name])
                    if source not in known and name not in known
                ]
                if missing:
                    stack += missing
                    continue
                stack.pop()
                if name not in known:
                    known[name] = self._node(waiting[name], known)
        return known

    def _node(self, node: Any, known: Mapping[str, bytes]) -> bytes:
        if node.op.startswith("Print"):
            return _NOTHING
        data = [one for one in node.input if not one.startswith("^")]
        control = sorted(
            known[one[1:]]
            for one in node.input
            if one.startswith("^") and known[one[1:]] != _NOTHING
        )
        data = data[: _SPEAKING.get(node.op, len(data))]
        attributes = [
            part
            for name in sorted(node.attr)
            if name not in _UNTOLD and not name.startswith("_")
            for part in (name, self._attribute(node.attr[name]))
        ]
        inputs = [_tensor(known, one) for one in data]
        return _hash(node.op, *attributes, "inputs", *inputs, "after", *control)

    def _attribute(self, value: Any) -> bytes:
        names = [one.name for one in (value.func, *value.list.func) if one.name]
        if names:
            return _hash(
                *(self.function(n) if n in self._library else n for n in names)
            )
        content: bytes = value.SerializeToString(deterministic=True)
        return content


def _captured(graph: Any, outside: tf.Tensor) -> str:
    """What a captured tensor is, without what it holds."""
    if outside.dtype == tf.resource:
        for variable in graph.variables:
            if variable.handle is outside:
                return f"variable {variable.dtype.name} {variable.shape}"
        return "resource"
    found = f"{outside.dtype.name} {outside.shape}"
    if outside.dtype != tf.variant and outside.shape.num_elements() == _SMALL:
        value = tf.get_static_value(outside)
        found += f" {np.asarray(value).tolist()!r}"
    return found


def _called(node: Any, library: Mapping[str, Any]) -> Iterator[str]:
    for attribute in node.attr.values():
        for one in (attribute.func, *attribute.list.func):
            if one.name in library:
                yield one.name


@functools.cache
def _definition(op: str) -> Any:
    try:
        return _registry().op_def_for_type(op)
    except (KeyError, tf.errors.NotFoundError):
        return None


@functools.cache
def _registry() -> Any:
    return tf.Graph()


def _sources(node: Any) -> Iterator[str]:
    for one in node.input:
        yield one.removeprefix("^").partition(":")[0]


def _tensor(known: Mapping[str, bytes], name: str) -> bytes:
    """A tensor as the digest of its node and which of its outputs it is."""
    node, _, output = name.partition(":")
    return _hash(known[node], output.rpartition(":")[2] + output.rpartition(":")[0])


def _hash(*parts: Any) -> bytes:
    found = xxhash.xxh3_128()
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        found.update(len(content).to_bytes(8, "little") + content)
    return found.digest()
