"""One checkpoint, evaluated on a split or on a user's file."""

from __future__ import annotations

from trainer.checkpoint import catalog
from trainer.config import options
from trainer.inference import loaded
from trainer.model import steps
from trainer.task import Task


def evaluate(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    split: str = "valid",
    path: str = "",
) -> dict[str, float]:
    """The means of the task's values over every example.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      split: of the task's data.
      path: of an `.npz` to use instead; "" for none.

    Raises:
      options.ConfigError: the task has no such split.
      data.DataError: the file that was given does not have what is needed.
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    found = loaded.load(choices, task, entry)
    batches = found.examples(choices.eval_batch_size, split=split, path=path)
    return steps.EvaluationLoop(task, found.state.networks, batches).run() or {}
