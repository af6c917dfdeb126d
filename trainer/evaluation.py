"""One checkpoint, evaluated: the networks alone are restored, no training state."""

from __future__ import annotations

import tensorflow as tf

from trainer import catalog, checkpoints, config, data, parts, state, steps
from trainer import task as contract


def evaluate(
    choices: config.Config, task: contract.Task, entry: catalog.Entry
) -> dict[str, float]:
    """The means of the task's values over every example of `choices.split`.

    Raises:
      config.ConfigError: the task has no such split.
      checkpoints.DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are not those of the task.
    """
    if choices.deterministic:
        tf.config.experimental.enable_op_determinism()
    sources = task.sources()
    if choices.split not in sources:
        raise config.ConfigError(
            f"--split={choices.split}: the task has no such split."
            f"{config.suggest(choices.split, sources)}"
        )
    split = data.split(sources, choices.split)
    training = parts.training_input(choices, task, sources)
    current = state.build(task, training.batch, seed=choices.seed)
    checkpoints.load_networks(entry, current)
    batches = data.ordered(split, choices.eval_batch_size)
    return steps.EvaluationLoop(task, current.networks, batches).run() or {}
