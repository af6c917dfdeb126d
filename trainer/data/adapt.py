"""A `tf.data.Dataset` as people make it, read as dicts of tensors.

>>> import tensorflow as tf
>>> from trainer.data import adapt
>>> pairs = tf.data.Dataset.from_tensor_slices(([[0.5], [1.5], [2.5]], [0, 1, 0]))
>>> adapted = adapt.adapted(pairs.batch(2), "train")
>>> sorted(adapted.dataset.element_spec), adapted.steps_per_epoch(batch_size=2)
(['x', 'y'], 1.5)

Tuples get names. Batches are taken apart, so that the batch size is a choice of the
run; padded ones, whose examples have unequal shapes, are taken as they are.
"""

from __future__ import annotations

import dataclasses
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.compat.datasets import batch_size, inputs
from trainer.data import batched, elements, several
from trainer.data.datasets import describe, kind
from trainer.data.decoding import decoded, decodes
from trainer.data.records import by_name
from trainer.data.sources import DataError
from trainer.task import Task

_ENDLESS = (
    "the training data is a stream without an end, so it has no epochs: give --steps=N "
    "and --evaluate_every_steps=N, or leave out repeat(), for it is begun again by "
    "itself."
)
_UNKNOWN = (
    "the training data is a stream of unknown length, so it has no epochs: give "
    "--steps=N and --evaluate_every_steps=N, or say how many {} it gives: "
    "dataset.apply(tf.data.experimental.assert_cardinality(n))."
)


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapted:
    """A dataset of dicts.

    Attributes:
      dataset: of examples, or of batches that are taken as they are.
      name: of the split.
      whole: whether these are batches.
      batch_size: of such batches, the last one of an epoch aside; 0: they differ.
    """

    dataset: tf.data.Dataset
    name: str
    whole: bool = False
    batch_size: int = 0

    @property
    def length(self) -> int:
        """Examples, or batches that are taken as they are, in an epoch; below 0: none.

        As `tf.data.Dataset.cardinality` says it.
        """
        return int(self.dataset.cardinality().numpy())

    def steps_per_epoch(self, batch_size: int) -> float | None:
        """How many batches an epoch is; None: the dataset has no epochs."""
        if self.length < 0:
            return None
        return self.length if self.whole else self.length / batch_size

    @property
    def no_epochs(self) -> str:
        """Why it has none, and what to do."""
        if self.length == tf.data.INFINITE_CARDINALITY:
            return _ENDLESS
        return _UNKNOWN.format(self.unit)

    @property
    def unit(self) -> str:
        """What its elements are."""
        return "batches" if self.whole else "examples"

    @property
    def outline(self) -> str:
        """What a position in it depends on, as far as it can be told."""
        return describe(self.dataset, self.unit)


def adapted(given: tf.data.Dataset, name: str) -> Adapted:
    """What a split was given as, ready to be read.

    Args:
      given: of examples or of batches, as dicts, tuples or single tensors.
      name: of the split, for messages.

    Raises:
      DataError: its elements can't be told apart by name.
    """
    elements.check(given.element_spec, name)
    batches = batched.made_by(given)
    whole = any(kind(one) in batched.PADDED for one in batches) and not _fixed(given)
    if whole:
        sizes = {batch_size(one) for one in batches}
        size = sizes.pop() if len(sizes) == 1 else 0
        return Adapted(dataset=_named(given), name=name, whole=True, batch_size=size)
    found = _apart(given) if batches else given
    return Adapted(dataset=_named(found), name=name)


def ready(
    given: Adapted, task: Task | None, seed: int, *, endless: bool = False
) -> Adapted:
    """What batches are to be made of.

    Args:
      given: a split.
      task: whose `decode` its examples go through; None: they don't.
      seed: of what `decode` does at random.
      endless: whether it is begun again, with other seeds, as training does.

    Raises:
      DataError: an example has something else than tensors by one name each.
    """
    dataset, what = given.dataset, "the"
    if task is not None and decodes(task):
        if given.whole:
            raise DataError(
                f"{given.name!r} gives padded batches, and decode(self, example, seed) "
                "takes one example. Expected one or the other. Decode before the "
                "batches are made: dataset.map(...).padded_batch(n)."
            )
        dataset = decoded(task, dataset.repeat() if endless else dataset, seed)
        what = "what decode() makes of the"
    for key, one in dataset.element_spec.items():
        if not isinstance(one, tf.TensorSpec):
            problem, line = elements.odd(key, one)
            raise DataError(
                f"{what} {given.unit} of {given.name!r} have {problem}. {line}"
            )
    return dataclasses.replace(given, dataset=dataset)


def steps_per_epoch(given: Any, batch_size: int) -> float | None:
    """How many batches an epoch of a split is; None: it has no epochs.

    Args:
      given: what `splits.split` gave.
      batch_size: examples per batch, where that is not settled by the data.
    """
    if isinstance(given, Adapted):
        return given.steps_per_epoch(batch_size)
    return several.steps_per_epoch(given, batch_size)


def count_examples(given: Any) -> int:
    """How many examples a split has, in what `splits.split` gave; -1: not known."""
    if not isinstance(given, Adapted):
        return len(given)
    return -1 if given.whole else max(given.length, -1)


def settled_batch_size(given: Any, asked: int, default: int) -> int:
    """The batch size of a run: that of batches that are taken as they are, or `asked`.

    Args:
      given: the split `train`, as `splits.split` gave it.
      asked: what the run was told.
      default: what it is where nothing was said.

    Raises:
      DataError: the data are batches of another size.
    """
    if not isinstance(given, Adapted) or not given.whole:
        return asked
    size = given.batch_size or default
    if asked not in (size, default):
        of_size = f" of {size}" if given.batch_size else ""
        raise DataError(
            f"--batch_size={asked}: the training data is padded batches{of_size}, "
            "which are taken as they are. Leave --batch_size out, or make others: "
            f"dataset.padded_batch({asked})."
        )
    return size


def _fixed(given: tf.data.Dataset) -> bool:
    """Whether the examples in its batches have one shape."""
    return all(
        isinstance(one, tf.TensorSpec)
        and one.shape.rank is not None
        and one.shape[1:].is_fully_defined()
        for one in tf.nest.flatten(given.element_spec)
    )


def _apart(given: tf.data.Dataset) -> tf.data.Dataset:
    """The examples of a dataset of batches."""
    last, prefetches = given, ("Prefetch", "Options")
    while kind(last) in prefetches:
        (last,) = inputs(last)
    drops = any(one.shape[0] for one in tf.nest.flatten(given.element_spec))
    if kind(last) in ("Batch", "ParallelBatch") and not drops:
        (found,) = inputs(last)  # without going through the batches, which costs time
        return found.with_options(given.options())
    found, count = given.unbatch(), batched.examples(given)
    if count == tf.data.INFINITE_CARDINALITY or found.cardinality() == count:
        return found
    if count < 0:
        return found
    return found.apply(tf.data.experimental.assert_cardinality(count))


@autograph.unconverted
def _named(given: tf.data.Dataset) -> tf.data.Dataset:
    """A dataset whose elements have names; itself, if they have them."""
    if isinstance(given.element_spec, dict):
        return given
    unpacked = type(given.element_spec) is tuple

    @autograph.unconverted
    def name(*parts: Any) -> dict[str, Any]:
        return dict(by_name(parts if unpacked else parts[0]))

    return given.map(name)
