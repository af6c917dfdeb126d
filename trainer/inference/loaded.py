"""A checkpoint's networks, and examples to try them on; no training state.

    >>> from line import Line
    >>> from trainer.checkpoint import layout, selection
    >>> from trainer.config import options
    >>> from trainer.inference import loaded
    >>> choices = options.RunOptions(run_dir="runs/line", batch_size=4)
    >>> directory = layout.RunDirectory(choices.directory())
    >>> entry = selection.select(directory, "step:20", rules=[])
    >>> found = loaded.load(choices, Line(), entry)
    >>> len(list(found.examples(3, split="valid")))       # or given="mine.npz"
    2

What evaluates, predicts, exports and averages begins here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer import data
from trainer.checkpoint import catalog
from trainer.config import options
from trainer.data.inputs import Input
from trainer.model import loading, parts
from trainer.model.state import State
from trainer.task import Task

_OF_STREAM = 100


@dataclasses.dataclass(frozen=True)
class Restored:
    """The networks of one checkpoint: the averages, where the run keeps them.

    Attributes:
      task: that made them.
      state: built, with the networks restored.
      sources: of the task.
      inputs: the batches that training sees.
      batches: of them in an epoch; 100 of a stream, which has none.
    """

    task: Task
    state: State
    sources: Mapping[str, Any]
    inputs: Input
    batches: int

    def examples(
        self,
        batch_size: int,
        *,
        split: str = "valid",
        given: str | Mapping[str, Any] = "",
        names: Iterable[str] | None = None,
    ) -> tf.data.Dataset:
        """The batches of a split, or of the user's own examples.

        Args:
          batch_size: of all but the last.
          split: of the task's data.
          given: an `.npz`, or arrays `[N, ...]` by name, to use instead; "" for none.
          names: what these must have; everything, if None.

        Raises:
          options.ConfigError: the task has no such split.
          data.DataError: the examples do not have what is needed.
        """
        if not given:
            return data.ordered(self._split(split), batch_size, self.task)
        spec = self.spec()
        wanted = list(spec if names is None else names)
        place = given if isinstance(given, str) else "the examples"
        arrays = data.npz(given, wanted) if isinstance(given, str) else given
        if missing := [name for name in wanted if name not in arrays]:
            raise data.DataError(
                f"{place} have no array {missing[0]!r}; expected {', '.join(wanted)}."
            )
        fitting = {
            name: _fitting(place, name, np.asarray(arrays[name]), spec[name])
            for name in wanted
        }
        return data.ordered(data.Arrays(fitting), batch_size)

    def spec(self) -> dict[str, tf.TensorSpec]:
        """The outline of a batch of one, before any augmentation."""
        split = "valid" if "valid" in self.sources else "train"
        outline: dict[str, tf.TensorSpec] = dict(
            data.ordered(self._split(split), 1, self.task).element_spec[0]
        )
        return outline

    def _split(self, name: str) -> Any:
        if name not in self.sources:
            raise options.ConfigError(
                f"--split={name}: the task has no such split."
                f"{options.suggest(name, self.sources)}"
            )
        return data.split(self.sources, name)


def load(choices: options.RunOptions, task: Task, entry: catalog.Entry) -> Restored:
    """Verifies a checkpoint and restores its networks.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    if choices.deterministic:
        tf.config.experimental.enable_op_determinism()
    sources = parts.seeded_sources(task, choices.seed)
    inputs, current = parts.build(
        task,
        sources,
        batch_size=choices.batch_size,
        seed=choices.seed,
        ema=choices.ema,
    )
    loading.load_networks(entry, current)
    train = data.split(sources, "train")
    streamed = isinstance(train, tf.data.Dataset)
    batches = _OF_STREAM if streamed else math.ceil(len(train) / choices.batch_size)
    return Restored(task, current, sources, inputs, batches)


def _fitting(path: str, name: str, array: np.ndarray, spec: tf.TensorSpec) -> Any:
    """The array in the task's own dtype, where no value changes by that."""
    kind = spec.dtype.as_numpy_dtype
    shape = spec.shape[1:]
    if array.ndim == 0 or not shape.is_compatible_with(array.shape[1:]):
        expected = str(("N", *shape)).replace("'", "")
        raise data.DataError(
            f"{path}: {name!r} has shape {array.shape}; the task has "
            f"{tuple(shape)} an example, so expected {expected}."
        )
    if array.dtype == kind:
        return array
    same = array.dtype.kind == "f" and np.issubdtype(kind, np.floating)
    with np.errstate(invalid="ignore"):
        converted = array.astype(kind) if array.dtype.kind in "biuf" else None
    if converted is None or not (same or np.array_equal(converted, array)):
        raise data.DataError(
            f"{path}: {name!r} is {array.dtype}; the task has {spec.dtype.name}, which "
            "can't hold all of its values. Convert it as the task's own data was."
        )
    return converted
