"""What a task learns from its data before training: once, and then kept.

    >>> import pathlib
    >>> from line import Line
    >>> from trainer.model import preparation
    >>> class Spread(Line):
    ...     def prepare(self, sources): return {"spread": sources["train"]["x"].max()}
    >>> task, path = Spread(), pathlib.Path("prepared.npz")
    >>> _, digest = preparation.begun(task, task.sources(), path, digest="", seed=0)
    >>> preparation.given(task, path, digest).prepared["spread"]
    np.float32(1.0)

Whoever prepared it, what a task is given was read back from the file: so it is the same
at the first start and at each later one.
"""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from trainer.checkpoint import prepared_file
from trainer.checkpoint.prepared_file import Prepared, PreparedError
from trainer.model import learned_values
from trainer.storage import failpoints
from trainer.task import Task


def prepares(task: Task) -> bool:
    """Whether a task learns anything before training."""
    return type(task).prepare is not Task.prepare


def begun(
    task: Task,
    sources: Mapping[str, Any],
    path: pathlib.Path,
    *,
    digest: str,
    seed: int,
) -> tuple[Task, str]:
    """At a start of `train`: prepares what is not recorded yet, or is lost.

    Args:
      task: of the run.
      sources: what it gave as such.
      path: of the file.
      digest: of what the run recorded; empty: nothing yet.
      seed: of what it draws at random.

    Returns:
      The task with what it prepared, and its digest; empty if it prepares nothing.

    Raises:
      PreparedError: what was recorded is lost, and can't be made again.
      task.TaskError: it gives what no file can hold.
    """
    if not digest and not prepares(task):
        return task, ""
    if digest:
        try:
            return given(task, path, digest), digest
        except PreparedError as lost:
            _again(task, sources, path, digest, seed, lost)
    else:
        failpoints.point("preparation")
        made = _made(task, sources, seed)
        prepared_file.write(path, made)
        failpoints.point("preparation")
        digest = made.digest
        told = ", ".join(
            f"{r['prepared']}: {r['is']}" for r in prepared_file.rows(made)
        )
        logging.info("prepared %s", told or "nothing")
    return given(task, path, digest), digest


def given(task: Task, path: pathlib.Path, digest: str) -> Task:
    """The task with what was recorded.

    Raises:
      PreparedError: it is missing, damaged, or another one.
    """
    return having(task, prepared_file.read(path, digest), path) if digest else task


def having(task: Task, found: Prepared, path: pathlib.Path) -> Task:
    """The task with what a file holds; the user's own object stays as it is.

    Args:
      task: of the run.
      found: what was read.
      path: of the file, for messages.

    Raises:
      PreparedError: this release can't make it again.
    """
    try:
        values = learned_values.unpacked(found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PreparedError(
            f"{path} holds what this release of Keepstep or Keras can't make again: "
            f"{type(error).__name__}: {error}. Expected what Task.prepare gave. Use "
            "the releases that config.json and the manifests of the run name."
        ) from error
    prepared = copy.copy(task)
    object.__setattr__(prepared, "prepared", values)
    return prepared


def _again(
    task: Task,
    sources: Mapping[str, Any],
    path: pathlib.Path,
    digest: str,
    seed: int,
    lost: PreparedError,
) -> None:
    """Prepares once more what was lost, which must give the very same.

    Raises:
      PreparedError: it gives something else.
    """
    made = _made(task, sources, seed) if prepares(task) else Prepared({}, {})
    if made.digest != digest:
        raise PreparedError(
            f"{lost} Preparing once more was tried, and gives something else "
            f"({made.digest}): the data, the code or the machine is another one."
        ) from lost
    prepared_file.write(path, made)
    logging.warning("%s was made anew, and is what it was: %s", path, lost)


def _made(task: Task, sources: Mapping[str, Any], seed: int) -> Prepared:
    if any(isinstance(one, tf.data.Dataset) for one in sources.values()):
        # Reading moves a shuffle, and training's own must be as at a later start.
        keras.utils.set_random_seed(seed)
        sources = task.sources()
    keras.utils.set_random_seed(seed)
    return learned_values.packed(task.prepare(sources), type(task).__name__)
