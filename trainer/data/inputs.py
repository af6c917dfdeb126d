"""Where the batches of training come from, whatever the data are."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import tensorflow as tf

from trainer.data.adapt import Adapted, ready
from trainer.data.decoding import decodes
from trainer.data.grouping import ungrouped
from trainer.data.indexed import Indexed
from trainer.data.pipeline import Shuffled
from trainer.data.prepared import Prepared
from trainer.data.several import Several
from trainer.data.stream import Stream
from trainer.task import Task


class Input(Protocol):
    """The training input, as the train loop and the audit see it.

    Attributes:
      seed: of the order, and of what is random in a step.
      iterator: what belongs into the checkpoint; None: the step says all.
      rebuilt: resources that need no saving: the iterator that is made anew at each
        start, from the seed and the step; a batch that is kept for a look at it.
    """

    @property
    def seed(self) -> int: ...

    @property
    def iterator(self) -> Any: ...

    @property
    def rebuilt(self) -> Sequence[Any]: ...

    def batch(self, step: tf.Tensor) -> dict[str, tf.Tensor]:
        """The batch of `step` (int64 scalar); traced into the train loop."""

    def reading(self, first: int, count: int) -> AbstractContextManager[None]:
        """While the batches of `count` steps from `first` on are taken."""

    def again(self, step: int) -> dict[str, tf.Tensor] | None:
        """The batch of a step once more; None where that can't be had."""

    def skip(self, count: int) -> None:
        """Passes over `count` batches, where the step doesn't say which comes next."""

    def close(self) -> None:
        """Ends what is done ahead of training."""


def training(task: Task, given: Any, *, batch_size: int, seed: int) -> Input:
    """The input for what `splits.split` gave: the fastest that it allows.

    What is in memory, or is read by ops of its own, is gathered in the step itself;
    what is read in Python, or decoded, is prepared beside it.
    """
    if isinstance(given, Adapted):
        given = ready(given, task, seed, endless=True)
        return Stream(task=task, given=given, batch_size=batch_size, seed=seed)
    if isinstance(ungrouped(given), Indexed | Several) or decodes(task):
        return Prepared(task=task, source=given, batch_size=batch_size, seed=seed)
    return Shuffled(task=task, source=given, batch_size=batch_size, seed=seed)
