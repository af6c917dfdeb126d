"""One checkpoint, evaluated on a split or on a user's file."""

from __future__ import annotations

from trainer import catalog, config, restored, steps
from trainer import task as contract


def evaluate(
    choices: config.Config, task: contract.Task, entry: catalog.Entry
) -> dict[str, float]:
    """The means of the task's values over every example.

    Raises:
      config.ConfigError: the task has no such split.
      data.DataError: the file that was given does not have what is needed.
      checkpoints.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    found = restored.load(choices, task, entry)
    loop = steps.EvaluationLoop(task, found.state.networks, found.examples(choices))
    return loop.run() or {}
