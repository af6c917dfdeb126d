"""The names of variables: in the tree of a checkpoint, and for people.

>>> from trainer.model import names
>>> names.variables_part("model"), names.variables_part("critic")
('variables', 'critic_variables')
>>> list(names.unique([("a", 1), ("b", 2), ("a", 3)]))
['a', 'b', 'a#2']
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from typing import TypeVar

import keras
import tensorflow as tf

from trainer.model.ema import NAME

_T = TypeVar("_T")


def variables_part(network: str) -> str:
    """The part of the tree that is the plain list of a network's variables."""
    return "variables" if network == "model" else f"{network}_variables"


def optimizer_part(name: str) -> str:
    return name if name == "optimizer" else f"{name}_optimizer"


def of_all(
    *,
    networks: Mapping[str, keras.Model],
    optimizers: Mapping[str, keras.optimizers.Optimizer],
    averages: Mapping[str, tf.Variable],
    tree: tf.train.Checkpoint,
) -> dict[str, tf.Variable]:
    """Every variable of a tree by its name for people.

    Those of the networks come first, in the order of `network.variables`.
    """
    named: list[tuple[str, tf.Variable]] = []
    for network, one in networks.items():
        named += [(f"{network}/{v.path}", v.value) for v in one.variables]
    for optimizer, one in optimizers.items():
        part, prefix = optimizer_part(optimizer), f"{one.name}/"
        named += [
            (f"{part}/{v.path.removeprefix(prefix)}", v.value) for v in one.variables
        ]
    named += [(f"{NAME}/{name}", v) for name, v in averages.items()]
    known = {id(variable) for _, variable in named}
    named += [(path, v) for path, v in walk(tree) if id(v) not in known]
    return unique(named)


def unique(named: Iterable[tuple[str, _T]]) -> dict[str, _T]:
    """By name; of those with one name, the second is called `name#2` and so on."""
    found: dict[str, _T] = {}
    for name, one in named:
        free, count = name, 1
        while free in found:
            count += 1
            free = f"{name}#{count}"
        found[free] = one
    return found


def walk(tree: tf.train.Checkpoint) -> Iterable[tuple[str, tf.Variable]]:
    """Every variable of the tree once, with the shortest path to it."""
    tree.save_counter  # noqa: B018  made at first use; part of every checkpoint
    view = tf.train.TrackableView(tree)
    queue, seen = collections.deque([("", tree)]), {id(tree)}
    while queue:
        path, node = queue.popleft()
        if isinstance(node, keras.Variable):
            yield path, node.value
            continue
        if isinstance(node, tf.Variable):
            yield path, node
        for name, child in view.children(node).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append((f"{path}/{name}".lstrip("/"), child))
