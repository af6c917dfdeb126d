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
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import tensorflow as tf
from absl import logging

from trainer import data
from trainer.checkpoint import catalog
from trainer.config import options
from trainer.data import failures
from trainer.data.inputs import Input
from trainer.data.padding import Padding
from trainer.data.several import Several
from trainer.inference import fitting, own_examples, recorded
from trainer.inference.recorded import Recorded
from trainer.model import loading, parts
from trainer.model.state import State
from trainer.task import Task

Reads = Literal["always", "if_there", "never"]


@dataclasses.dataclass(frozen=True)
class Restored:
    """The networks of one checkpoint: the averages, where the run keeps them.

    Attributes:
      task: that made them, with what it prepared.
      state: built, with the networks restored.
      sources: of the task; none where the data were not read.
      inputs: the batches that training sees, to be closed; None: not asked for.
      lengths: of the splits that have one.
      known: what the run recorded of its data.
    """

    task: Task
    state: State
    sources: Mapping[str, Any]
    inputs: Input | None
    lengths: Mapping[str, int]
    known: Recorded

    def examples(
        self,
        batch_size: int,
        *,
        split: str = "valid",
        given: str | Mapping[str, Any] | own_examples.Own = "",
        names: Iterable[str] | None = None,
    ) -> tf.data.Dataset:
        """The batches of a split, or of the user's own examples.

        Args:
          batch_size: of all but the last.
          split: of the task's data.
          given: a file or a folder, or what `own` read of it, or arrays `[N, ...]` by
            name, to use instead; "" for none.
          names: what these must have; everything, if None.

        Raises:
          options.ConfigError: the task has no such split.
          data.DataError: the examples do not have what is needed.
        """
        if not given:
            return data.ordered(self._split(split), batch_size, self.task)
        found: Any = self.own(given, names) if isinstance(given, str) else given
        place, arrays = "the examples", found
        if isinstance(found, own_examples.Own):
            if found.source is not None:
                if names is None:
                    own_examples.check_labelled(found, found.place)
                return self._decoded(found.source, found.place, batch_size)
            place, arrays = found.place, found.arrays or {}
        spec = self.spec()
        wanted, masks = self._wanted(spec, names)
        padding = Padding.of(self.task).among(wanted)
        wanted += [name for name in masks if name in arrays]
        if missing := [name for name in wanted if name not in arrays]:
            raise data.DataError(
                f"{place} have no array {missing[0]!r}; expected {', '.join(wanted)}."
            )
        fits = {
            name: fitting.taken(place, name, arrays[name], spec[name])
            for name in wanted
        }
        return data.ordered(data.Arrays(fits), batch_size, padding=padding)

    def own(self, given: str, names: Iterable[str] | None = None) -> own_examples.Own:
        """The user's own examples in a file or a folder; `names` as for `examples`.

        Raises:
          data.DataError: it can't be read, or does not fit the task.
        """
        spec, recipe = self.spec(), self.known.recipe
        wanted, masks = self._wanted(spec, names)
        return own_examples.read(given, self.task, recipe, spec, wanted, optional=masks)

    def _wanted(
        self, spec: Iterable[str], names: Iterable[str] | None
    ) -> tuple[list[str], list[str]]:
        """What is needed, and the masks that padding makes where they aren't given."""
        every = list(spec if names is None else names)
        masks = Padding.of(self.task).among(every).masks
        wanted = [name for name in every if name not in masks]
        return wanted, [name for name in every if name in masks]

    def spec(self) -> dict[str, tf.TensorSpec]:
        """The outline of a batch, before any augmentation."""
        if not self.sources and self.known.evaluated is not None:
            return dict(self.known.evaluated)
        split = "valid" if "valid" in self.sources else "train"
        outline: dict[str, tf.TensorSpec] = dict(
            data.ordered(self._split(split), 1, self.task).element_spec[0]
        )
        return outline

    def _decoded(self, source: Any, given: str, batch_size: int) -> tf.data.Dataset:
        try:
            return data.ordered(source, batch_size, self.task)
        except Exception as error:
            missing = failures.looked_up(error)
            if not missing:
                raise
            raise data.DataError(
                f"{given} has no column {missing!r}, which decode() looks up. "
                "Expected the columns of the task's own data. Add it, or look it up "
                f"where it is there only: if {missing!r} in example."
            ) from error

    def _split(self, name: str) -> Any:
        if name not in self.sources:
            raise options.ConfigError(
                f"--split={name}: the task has no such split."
                f"{options.suggest(name, self.sources)}"
            )
        found = data.split(self.sources, name)
        if isinstance(found, Several):
            raise options.ConfigError(
                f"--split={name} is several sources ({', '.join(found.sources)}), and "
                "an evaluation or a prediction reads one. Give the task a split "
                "'valid'."
            )
        return found


def load(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    reads: Reads = "always",
    feeds: bool = False,
) -> Restored:
    """Verifies a checkpoint and restores its networks.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      reads: when the task's data are read: `always`; `if_there`: not if `sources()`
        fails; `never`: not if the run recorded what batches look like.
      feeds: whether the batches that training sees are needed.

    Raises:
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
      prepared_file.PreparedError: what the task had prepared is lost.
    """
    if choices.deterministic:
        tf.config.experimental.enable_op_determinism()
    known = recorded.of(choices)
    ready = recorded.given(task, choices, known)
    sources = _sources(choices, task, reads if known.training else "always")
    inputs, current = _built(choices, ready, sources, known, feeds)
    loading.load_networks(entry, current)
    return Restored(
        task=ready,
        state=current,
        sources=sources,
        inputs=inputs,
        lengths=recorded.lengths(sources) if sources else known.lengths,
        known=known,
    )


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


def _built(
    choices: options.RunOptions,
    task: Task,
    sources: Mapping[str, Any],
    known: Recorded,
    feeds: bool,
) -> tuple[Input | None, State]:
    seed, ema = choices.seed, choices.ema
    if known.training and not feeds:
        return None, parts.without_data(task, known.training, seed=seed, ema=ema)
    size = choices.batch_size
    inputs, current, _ = parts.build(task, sources, batch_size=size, seed=seed, ema=ema)
    if feeds:
        return inputs, current
    inputs.close()
    return None, current
