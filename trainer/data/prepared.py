"""Training input that is prepared beside training, and nothing of it is state.

The batches are read, decoded and augmented ahead of training, in threads. Each is still
a function of the seed and the step, so the iterator is made anew wherever a run begins,
and no checkpoint holds any of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.compat.datasets import iterator_resource
from trainer.data import failures
from trainer.data.augment import augmented
from trainer.data.examples import ready
from trainer.data.grouping import Grouped
from trainer.data.indexed import Indexed
from trainer.data.several import Several
from trainer.data.walk import walks
from trainer.task import Source, Task

_OWN_STATE = (tf.resource, tf.variant)


@final
class Prepared:
    """The training input: an endless, shuffled walk over a source, in threads.

    Attributes:
      dataset: of the numbers of batches and of these, from the first step on.
      rebuilt: the resource of the iterator, which no checkpoint holds, in a tuple.
    """

    iterator = None  # none that a checkpoint would hold

    def __init__(
        self,
        *,
        task: Task,
        source: Indexed | Source | Several | Grouped,
        batch_size: int,
        seed: int,
        readers: int = 0,
        prefetched: int = 4,
    ) -> None:
        """The input of a run; it begins at step 0 until it is asked for another one."""
        self._task = task
        self.seed = seed
        self._walks = walks(
            source,
            task,
            batch_size=batch_size,
            seed=seed,
            readers=readers,
            prefetched=prefetched,
        )
        self._prefetched = prefetched
        self._ahead = False
        plain = self._plain(0)
        self._ahead = _is_pure(self._augmented, plain.element_spec)
        self.dataset = self._made(plain)
        self._iterator = iter(self.dataset)
        self._position: int | None = 0
        self.rebuilt = (iterator_resource(self._iterator),)

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The batch of `step` (int64 scalar): tensors `[batch_size, ...]` by name."""
        number, batch = self._iterator.get_next()
        told = "the input is at another step than training"
        tf.raw_ops.Assert(condition=tf.equal(number, step), data=[told, number, step])
        return dict(batch if self._ahead else self._augmented(number, batch)[1])

    @contextlib.contextmanager
    def reading(self, first: int, count: int) -> Iterator[None]:
        """While the batches of `count` steps from `first` on are taken.

        Raises:
          SourceError: an example can't be read.
        """
        if self._position != first:
            self.dataset = self._from(first)
            self._restart(self.dataset)
        self._position = None
        with failures.told(lambda: self._failing(first)):
            yield
        self._position = first + count

    def again(self, step: int) -> dict[str, tf.Tensor]:
        """The batch of a step once more."""
        number, batch = next(iter(self._from(step)))
        return dict(batch if self._ahead else self._augmented(number, batch)[1])

    def skip(self, count: int) -> None:
        """Nothing to do: the number of a batch says which it is."""

    def close(self) -> None:
        """Ends the reading ahead of training."""
        self._restart(self.dataset.take(0))
        self._position = None

    def _restart(self, dataset: tf.data.Dataset) -> None:
        # The train loop is traced with this iterator: it must stay the same resource.
        variant = tf.data.experimental.to_variant(dataset)
        tf.raw_ops.MakeIterator(dataset=variant, iterator=self.rebuilt[0])

    def _failing(self, first: int) -> failures.SourceError | None:
        """The example that fails, where one does in the batches from `first` on."""
        number = first
        try:
            for _ in self._from(first):
                number += 1
        except tf.errors.OpError:
            every = tf.nest.map_structure(lambda one: one.failing(number), self._walks)
            return next((one for one in tf.nest.flatten(every) if one), None)
        return None

    def _from(self, step: int) -> tf.data.Dataset:
        return self._made(self._plain(step))

    @autograph.unconverted
    def _plain(self, step: int) -> tf.data.Dataset:
        """The numbers of batches and these, not augmented yet."""
        numbers = tf.data.Dataset.range(step, tf.int64.max)
        batches = tf.nest.map_structure(lambda one: one.batches(step), self._walks)
        return tf.data.Dataset.zip(numbers, batches)

    @autograph.unconverted
    def _made(self, plain: tf.data.Dataset) -> tf.data.Dataset:
        if self._ahead:
            plain = plain.map(self._augmented, tf.data.AUTOTUNE, True)
        return ready(plain, self._prefetched)

    @autograph.unconverted
    def _augmented(self, number: tf.Tensor, batch: Any) -> tuple[tf.Tensor, Any]:
        seeds = tf.nest.map_structure(lambda one: one.seeds(number), self._walks)
        return number, augmented(self._task, batch, seeds, number)


def _is_pure(function: Any, spec: Any) -> bool:
    """Whether a function depends on nothing but its arguments.

    What reads or moves a state must run in its own step, not ahead of it.
    """
    traced = tf.function(function, autograph=False).get_concrete_function(*spec)
    if any(captured.dtype in _OWN_STATE for captured, _ in traced.graph.captures):
        return False
    definition = traced.graph.as_graph_def()
    nodes = [definition.node, *(f.node_def for f in definition.library.function)]
    return not any(_is_stateful(traced.graph, n) for some in nodes for n in some)


def _is_stateful(graph: Any, node: Any) -> bool:
    try:
        definition = graph.op_def_for_type(node.op)
    except (KeyError, tf.errors.NotFoundError):
        return False  # a function, whose nodes are looked at themselves
    return bool(definition.is_stateful) and node.op not in (
        "Assert",
        "StatefulPartitionedCall",
        "If",
        "While",
        "Case",
    )
