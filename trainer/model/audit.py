"""Proof that a checkpoint can't miss anything that training changes.

What a graph reads and writes outside itself are resources that it captures: each must
be reachable from the checkpoint tree. What is left are ops that hold a state of their
own, in C++ or Python, which no checkpoint can hold: there must be none. Both are known
once the train loop is traced, so a run that could not resume exactly is told so before
its first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat.datasets import chain, functions, iterator_resource, reshuffles
from trainer.data import datasets, resumable
from trainer.data.fingerprint import digest
from trainer.model import captures, hidden_state
from trainer.model.evaluation import PYTHON_AGAIN
from trainer.model.hidden_state import Finding

_SAVED = (
    "What is a variable, a layer or a table is saved if the task gives it: def state("
    'self, networks): return {"some_name": it}. A metric belongs into metrics(self).'
)
_AHEAD = (
    "The input is prepared ahead of training, so no checkpoint could tell how far it "
    "was: count and draw in augment() or values() instead, from the seeds of augment()."
)
_APART = (
    "What is read on and on, such as an iterator, can't be put back after an "
    "evaluation: give its examples to the split 'valid' of sources()."
)
_WRITER = (
    "A file that one evaluation writes and another reads is broken by a kill: use "
    "cache() in memory, or write the data to a file beforehand."
)
_READ = (
    "Decoding runs ahead of training: read what training changes in augment() or "
    "values() instead."
)
_ALIKE = (
    "An index must always give the same example: take what is random out of "
    "__getitem__ and into decode(self, example, seed) or augment(self, batch, seeds)."
)
_FORGOTTEN = (
    "Repeat right after the shuffle, shuffle(n).repeat(), and give --steps; or leave "
    "out what comes after it (batch_size=None; --batch_size makes the batches); or "
    "keep one order: shuffle(n, reshuffle_each_iteration=False)."
)
_LOOKED_AT = 8


class IncompleteStateError(KeepstepError, RuntimeError):
    """Training changes something that no checkpoint would hold."""


def examine(
    function: Any,
    tree: tf.train.Checkpoint,
    *,
    place: str = "the train loop",
    fresh: Iterable[Any] = (),
) -> list[Finding]:
    """What the traced function changes and the tree doesn't hold.

    Args:
      function: a `tf.types.experimental.ConcreteFunction`.
      tree: the checkpoint tree.
      place: what people call the function.
      fresh: resources that need no saving: made anew at each start, or never read.
    """
    return [
        *_unreachable(function.graph, tree, fresh),
        *hidden_state.found(function.graph, place),
    ]


def examine_stream(dataset: tf.data.Dataset) -> list[Finding]:
    """What the training stream keeps that its saved iterator doesn't hold."""
    name = resumable.forgetting(dataset)
    what = f"the order that shuffle() draws for the next epoch, which {name}() forgets"
    lost = [Finding(what, _FORGOTTEN)] if name else []
    return lost + [
        finding
        for one in chain(dataset)
        for function in functions(one)
        for finding in (
            *hidden_state.found(function.graph, "the input stream"),
            *_written(function.graph, "the input stream"),
        )
    ]


def examine_prepared(dataset: tf.data.Dataset, function: Any) -> list[Finding]:
    """Why an input that is made anew at a start would give other batches.

    A batch is a function of the seed and the step if the source answers an index always
    alike, which is tried on a few, and if decoding keeps nothing and reads nothing that
    training moves.

    Args:
      dataset: what the input is made from.
      function: the traced train loop.
    """
    moved = {id(one.handle): one for one in captures.of(function.graph) if one.written}
    findings = examine_stream(dataset)
    for one in chain(dataset):
        findings += _changing(one)
        for part in functions(one):
            findings += [
                Finding(
                    f"{_named(used)}, which decode() reads ahead of training", _READ
                )
                for used in captures.of(part.graph)
                if id(used.handle) in moved and not used.written
            ]
    return findings


def examine_evaluated(dataset: tf.data.Dataset) -> list[Finding]:
    """Why a dataset that each evaluation begins anew would not be the same again.

    What its Python functions keep can't be known: the first few elements are asked for
    twice, and must be the same.
    """
    findings = []
    if writer := datasets.writes(dataset):
        findings.append(Finding(f"the {writer} in the evaluation's input", _WRITER))
    for one in chain(dataset):
        if reshuffles(one):
            findings.append(
                Finding(
                    "the order of the examples to evaluate, which shuffle() draws anew "
                    "each time",
                    "Evaluate without a shuffle, or with one that has "
                    "reshuffle_each_iteration=False. Of Keras' utilities: "
                    'subset="both" gives both splits, the second in one order; or '
                    "shuffle=False.",
                )
            )
        findings += _changing(one)
        place = "the evaluation's input"
        for function in functions(one):
            kept = hidden_state.found(function.graph, place)
            findings += [
                found for found in kept if found.remedy != hidden_state.PYTHON_REMEDY
            ]
            findings += _written(function.graph, place)
        if datasets.runs_python(one) and not writer and not _repeats(one):
            findings.append(
                Finding(
                    "what Python gives to evaluate, which is something else each time",
                    PYTHON_AGAIN,
                )
            )
    return findings


def examine_evaluation(
    function: Any, tree: tf.train.Checkpoint, *, metrics: Iterable[Any] = ()
) -> list[Finding]:
    """What an evaluation, or a prediction, changes for good, and what of it is lost.

    Args:
      function: a `tf.types.experimental.ConcreteFunction`; what it changes is put back
        after it, except for what is found here.
      tree: the checkpoint tree.
      metrics: variables of metrics, which are begun anew each time.
    """
    place, fresh = "the evaluation", [_handle(one.value) for one in metrics]
    moved = [
        Finding(f"{_named(one)}, which {place} moves on", _APART)
        for one in captures.of(function.graph)
        if one.written and one.variable is None and not one.is_table
    ]
    return [*examine(function, tree, place=place, fresh=fresh), *moved]


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


def _changing(dataset: tf.data.Dataset) -> Iterator[Finding]:
    """The sources that a dataset reads and that gave something else the second time."""
    for source in datasets.read(dataset):
        if (index := source.outline.changing) is not None:
            yield Finding(
                f"example {index} of {source.name!r}, which is another one each time "
                "it is asked for",
                _ALIKE,
            )


def _unreachable(
    graph: Any, tree: tf.train.Checkpoint, fresh: Iterable[Any]
) -> Iterator[Finding]:
    nodes = tf.train.TrackableView(tree).descendants()
    reachable = {id(handle) for node in nodes if (handle := _handle(node)) is not None}
    reachable |= set(map(id, fresh))
    for one in captures.of(graph):
        if id(one.handle) in reachable:
            continue
        if one.is_table and not one.written:
            continue  # it is made again by the task's code
        used = "".join(f", used by {node.name!r}" for node in one.uses[:1])
        yield Finding(_named(one) + used, _SAVED)


def _named(one: captures.Capture) -> str:
    variable = one.variable
    if variable is None:
        return f"the resource {one.handle}"
    shape, dtype = tuple(variable.shape), variable.dtype.name
    return f"the variable {variable.name} {shape} {dtype}"


def _written(graph: Any, place: str) -> Iterator[Finding]:
    """What a function of a dataset changes while training, or an evaluation, is on."""
    for one in captures.of(graph):
        if one.written:
            yield Finding(f"{_named(one)}, which is changed in {place}", _AHEAD)


def _repeats(dataset: tf.data.Dataset) -> bool:
    """Whether the first elements are the same when they are asked for twice."""
    looks = [digest(list(dataset.take(_LOOKED_AT))) for _ in range(2)]
    return looks[0] == looks[1]


def _handle(node: Any) -> Any:
    """The resource of a trackable: a variable, a table or an iterator."""
    for name in ("handle", "resource_handle"):
        handle = getattr(node, name, None)
        if isinstance(handle, tf.Tensor):
            return handle
    return iterator_resource(node)
