"""The best weights of a run, in a script of your own: no flags, no task.

With TensorFlow alone, without a line of ours and without the check of every byte:

    >>> import keras, tensorflow as tf
    >>> model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
    >>> path = tf.train.latest_checkpoint("runs/line/best/loss")
    >>> variables = [variable.value for variable in model.variables]
    >>> _ = tf.train.Checkpoint(variables=variables).read(path).expect_partial()
"""

from __future__ import annotations

import os
import pathlib

import keras

from trainer.checkpoint import compatibility, layout, manifest, selection
from trainer.checkpoint.layout import RunDirectory
from trainer.config import options, run_record
from trainer.model.weights import read


def restore_weights(
    model: keras.Model,
    run_dir: str | os.PathLike[str],
    checkpoint: str = layout.BEST,
    *,
    network: str = "model",
) -> manifest.Manifest:
    """Puts the weights of a verified checkpoint into a Keras model.

        >>> import keras, trainer
        >>> model = keras.Sequential([keras.layers.Input([1]), keras.layers.Dense(1)])
        >>> trainer.restore_weights(model, "runs/line", "step:20").metrics
        {'loss': ...}

    Of a run with `--ema` these are the averages. Variables are matched by their order
    in `model.variables`, so names may differ.

    Args:
      model: built, with the same variables as the network that was trained.
      run_dir: of the run.
      checkpoint: `best`, `best:metric`, `latest`, `step:N` or a path.
      network: which one of a task with several.

    Returns:
      The manifest of the checkpoint: its step and metrics.

    Raises:
      selection.NoCheckpointError: there is no such checkpoint.
      selection.DamagedCheckpointError: its files are not what was committed.
      compatibility.IncompatibleCheckpointError: the variables are other ones.
    """
    directory = RunDirectory(pathlib.Path(run_dir))
    choices = run_record.read(directory.config).choices
    best = tuple(choices["best"])
    rules = options.RunOptions(best=best).rules()
    entry = selection.select(directory, checkpoint, rules)
    mark = selection.verified(entry)
    saved = [one for one in mark.variables if one.path.startswith(f"{network}/")]
    built = [
        manifest.Variable(there.path, tuple(v.shape), v.dtype)
        for there, v in zip(saved, model.variables, strict=False)
    ]
    built += [
        manifest.Variable(v.path, tuple(v.shape), v.dtype)
        for v in model.variables[len(saved) :]
    ]
    advice = (
        f"The model is not the network {network!r} that was trained, or it is not "
        "built yet: call it on a batch first."
    )
    if mark.variables:
        compatibility.check(built, saved, source=str(entry.prefix), advice=advice)
    values = read(str(entry.prefix), mark.variables, [network])
    for variable, value in zip(model.variables, values.values(), strict=True):
        variable.assign(value)
    return mark


weights = restore_weights  # as 0.1.0 called it: `restore.weights`
