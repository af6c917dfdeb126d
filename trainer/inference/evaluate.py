"""One checkpoint, evaluated on a split or on a user's file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import catalog
from trainer.config import options
from trainer.inference import loaded
from trainer.model.evaluation import EvaluationLoop
from trainer.task import Task


def evaluate_checkpoint(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    split: str = "valid",
    examples: str | Mapping[str, Any] = "",
) -> dict[str, float]:
    """The means of the task's values over every example.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      split: of the task's data.
      examples: a file or a folder, or arrays `[N, ...]` by name, to use instead; ""
        for none.

    Raises:
      options.ConfigError: the task has no such split.
      data.DataError: the examples do not have what is needed.
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    reads: loaded.Reads = "never" if examples else "always"
    found = loaded.load(choices, task, entry, reads=reads)
    batches = found.examples(choices.eval_batch_size, split=split, given=examples)
    evaluation = EvaluationLoop(
        found.task,
        found.state.networks,
        batches,
        step=entry.step,
        metrics=found.state.metrics,
    )
    return evaluation.run() or {}
