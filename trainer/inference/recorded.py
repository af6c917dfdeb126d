"""What a run recorded of its data, so that they need not be read for everything.

>>> from trainer.config import options
>>> from trainer.inference import recorded
>>> found = recorded.of(options.RunOptions(run_dir="runs/line"))
>>> found.lengths, found.evaluated["x"].shape
({'train': 8, 'valid': 4}, TensorShape([1, 1]))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer import data
from trainer.checkpoint import prepared_file
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.prepared_file import Prepared
from trainer.config import options, run_record
from trainer.data import specs
from trainer.data.adapt import count_examples
from trainer.data.several import Several
from trainer.model import preparation
from trainer.task import Task


@dataclasses.dataclass(frozen=True)
class Recorded:
    """What is known of the data of a run.

    Attributes:
      training: the outline of a batch; None where it is not known.
      evaluated: the same of one that is evaluated.
      lengths: of the splits that have one.
      prepared: what the task has prepared; None: nothing.
      recipe: how images or tables are read as the task's own are; None: it has none.
    """

    training: Any = None
    evaluated: Any = None
    lengths: Mapping[str, int] = dataclasses.field(default_factory=dict)
    prepared: Prepared | None = None
    recipe: Mapping[str, Any] | None = None


def of(choices: options.RunOptions) -> Recorded:
    """What a run recorded; nothing where there is no run.

    Raises:
      prepared_file.PreparedError: what its task had prepared is lost.
    """
    if not choices.run_dir and not choices.task:
        return Recorded()
    directory = RunDirectory(choices.directory())
    if not directory.config.exists():
        return Recorded()
    record = run_record.read(directory.config)
    splits = record.choices["facts"].get("data", {})
    counts = {name: one["length"] for name, one in splits.items()}
    outlines = _outlines(record)
    return Recorded(
        training=outlines.get("training"),
        evaluated=outlines.get("evaluated"),
        lengths={name: count for name, count in counts.items() if count > 0},
        prepared=prepared_file.of_run(directory, record.choices),
        recipe=record.recipe,
    )


def given(task: Task, choices: options.RunOptions, found: Recorded) -> Task:
    """The task with what it had prepared."""
    if found.prepared is None:
        return task
    path = RunDirectory(choices.directory()).prepared
    return preparation.having(task, found.prepared, path)


def lengths(sources: Mapping[str, Any]) -> dict[str, int]:
    """How many examples the splits have."""
    found = {name: data.split(sources, name) for name in sources}
    if isinstance(train := found.get("train"), Several):
        del found["train"]
        found |= {f"train/{name}": one for name, one in train.sources.items()}
    return {k: n for k, v in found.items() if (n := count_examples(v)) > 0}


def _outlines(record: run_record.Record) -> dict[str, Any]:
    try:
        found = specs.read(record.batches or {})
    except (KeyError, TypeError, ValueError, AttributeError):
        found = {}
    return found if {"training", "evaluated"} <= found.keys() else {}
