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
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from absl import logging

from trainer import data
from trainer.checkpoint import catalog, prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.prepared_file import Prepared
from trainer.config import options, run_record
from trainer.data import specs
from trainer.data.inputs import Input
from trainer.model import loading, parts, preparation
from trainer.model.state import State
from trainer.task import Task

Reads = Literal["always", "if_there", "never"]
_OF_STREAM = 100


@dataclasses.dataclass(frozen=True)
class Restored:
    """The networks of one checkpoint: the averages, where the run keeps them.

    Attributes:
      task: that made them, with what it prepared.
      state: built, with the networks restored.
      sources: of the task; none where the data were not read.
      inputs: the batches that training sees; None where the data were not read.
      lengths: of the splits that have one.
      batches: of training in an epoch; 100 of a stream, which has none.
      recorded: the outline of a batch that is evaluated, as the run recorded it; None
        where it did not.
      prepared: what the task has prepared, as the run directory holds it.
    """

    task: Task
    state: State
    sources: Mapping[str, Any]
    inputs: Input | None
    lengths: Mapping[str, int]
    batches: int
    recorded: Mapping[str, tf.TensorSpec] | None
    prepared: Prepared | None

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
        """The outline of a batch, before any augmentation."""
        if not self.sources and self.recorded is not None:
            return dict(self.recorded)
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


def load(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    reads: Reads = "always",
) -> Restored:
    """Verifies a checkpoint and restores its networks.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      reads: when the task's data are read: `always`; `if_there`: not if `sources()`
        fails; `never`: not if the run recorded what batches look like.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
      prepared_file.PreparedError: what the task had prepared is lost.
    """
    if choices.deterministic:
        tf.config.experimental.enable_op_determinism()
    record = _record(choices)
    of_choices = record.choices if record else {"facts": {}}
    ready, prepared = task, None
    if record and prepared_file.FACT in record.choices["facts"]:
        directory = RunDirectory(choices.directory())
        prepared = prepared_file.of_run(directory, record.choices)
        digest = record.choices["facts"][prepared_file.FACT]
        ready = preparation.given(task, directory.prepared, digest)
    outlines = _outlines(record)
    sources = _sources(choices, task, reads if outlines else "always")
    inputs: Input | None = None
    if sources:
        inputs, current, _ = parts.build(
            ready,
            sources,
            batch_size=choices.batch_size,
            seed=choices.seed,
            ema=choices.ema,
        )
    else:
        current = parts.without_data(
            ready, outlines["training"], seed=choices.seed, ema=choices.ema
        )
    loading.load_networks(entry, current)
    lengths = _lengths(sources, of_choices["facts"].get("data", {}))
    length = lengths.get("train")
    batches = math.ceil(length / choices.batch_size) if length else _OF_STREAM
    recorded = outlines.get("evaluated")
    return Restored(
        ready, current, sources, inputs, lengths, batches, recorded, prepared
    )


def _record(choices: options.RunOptions) -> run_record.Record | None:
    """What the run recorded; None where no run is named, or it recorded nothing."""
    if not choices.run_dir and not choices.task:
        return None
    path = RunDirectory(choices.directory()).config
    return run_record.read(path) if path.exists() else None


def _outlines(record: run_record.Record | None) -> dict[str, Any]:
    """The outlines of batches that a run recorded; nothing, if it did not."""
    try:
        found = specs.read(record.batches or {}) if record else {}
    except (KeyError, TypeError, ValueError, AttributeError):
        found = {}
    return found if {"training", "evaluated"} <= found.keys() else {}


def _sources(
    choices: options.RunOptions, task: Task, reads: Reads
) -> Mapping[str, Any]:
    """The task's data; nothing where they are not read."""
    if reads == "never":
        return {}
    try:
        return parts.seeded_sources(task, choices.seed)
    except Exception as error:
        if reads == "always":
            raise
        logging.warning(
            "the task's data can't be read (%s: %s); going on without them",
            type(error).__name__,
            error,
        )
        return {}


def _lengths(sources: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, int]:
    """How many examples the splits have, or had when the run began."""
    if not sources:
        return {k: one["length"] for k, one in facts.items() if one["length"] > 0}
    found = {name: data.split(sources, name) for name in sources}
    return {k: len(v) for k, v in found.items() if not isinstance(v, tf.data.Dataset)}


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
