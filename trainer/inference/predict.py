"""Predictions of one checkpoint for a split, or for examples of the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from trainer.checkpoint import catalog
from trainer.config import options
from trainer.inference import loaded
from trainer.model import prediction
from trainer.task import Task


def predict_examples(
    choices: options.RunOptions,
    task: Task,
    entry: catalog.Entry,
    *,
    split: str = "valid",
    examples: str | Mapping[str, Any] = "",
) -> Iterator[prediction.Arrays]:
    """What the task's `predictions` says of each example, batch by batch.

    Args:
      choices: of the run.
      task: of the run.
      entry: the checkpoint.
      split: of the task's data.
      examples: a file or a folder, or arrays `[N, ...]` by name, to use instead; ""
        for none.

    Yields:
      Arrays `[B, ...]` by name, every example exactly once and in order. For a folder
      of images, `file` is the path of each in it.

    Raises:
      options.ConfigError: the task has no such split.
      data.DataError: the examples do not have what is needed.
      task.TaskError: the task does not say what it predicts.
      selection.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    reads: loaded.Reads = "never" if examples else "always"
    found = loaded.load(choices, task, entry, reads=reads)
    predictor = prediction.Predictor(found.task, found.state.networks, found.spec())
    names, size = predictor.inputs, choices.eval_batch_size
    path = examples if isinstance(examples, str) else ""
    own = found.own(path, names) if path else None
    batches = found.examples(size, split=split, given=own or examples, names=names)
    files, first = own.files if own else (), 0
    for _, predicted in predictor.run(batches):
        if files and "file" not in predicted:
            last = first + len(next(iter(predicted.values())))
            predicted = {"file": np.array(files[first:last], "S"), **predicted}
            first = last
        yield predicted
