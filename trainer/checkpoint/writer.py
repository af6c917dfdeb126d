"""The files of one checkpoint, written by TensorFlow and committed by a manifest.

    >>> import pathlib, tensorflow as tf
    >>> from trainer.checkpoint import manifest, writer
    >>> tree = tf.train.Checkpoint(weight=tf.Variable(0.0))
    >>> draft = manifest.Draft(step=5, metrics={}, variables=())
    >>> mark = writer.write(tree, pathlib.Path(), draft)
    >>> sorted(mark.files), pathlib.Path("ckpt-5.json").exists()
    (['ckpt-5.data-00000-of-00001', 'ckpt-5.index'], True)

`tf.train.CheckpointManager` writes them; in its write callback they are made durable,
read back, and the manifest is written. From there on the checkpoint exists.
"""

from __future__ import annotations

import math
import pathlib
import time

import tensorflow as tf
from absl import logging

from trainer.checkpoint import catalog, debris, filing, layout, manifest, shards
from trainer.checkpoint.manifest import Draft, Manifest
from trainer.storage import failpoints, files

_LONG_LIST = 100


def write(tree: tf.train.Checkpoint, directory: pathlib.Path, draft: Draft) -> Manifest:
    """Writes the files of a checkpoint and commits them.

    Args:
      tree: what is saved.
      directory: for the files; no checkpoint of that step is in it.
      draft: what the manifest says besides them.

    Raises:
      OSError, tf.errors.OpError: they could not be written.
    """
    marks: list[Manifest] = []

    def commit(prefix: str) -> None:
        # In place, and not yet recorded by the manager.
        failpoints.point("save")
        written = manifest.measure(directory, draft.step, durable.secure)
        mark = draft.committed(written, time.time())
        manifest.write(directory, mark)
        marks.append(mark)

    _check_space(directory, draft)
    partial = layout.marker(directory, draft.step, layout.PARTIAL)
    files.touch(partial)
    # Made anew each time: its list is then what the manifests say. It parses the list
    # slowly, so of a long one it gets the end; the whole is written after the save.
    steps = layout.steps(directory)
    filing.write_list(directory, steps if len(steps) < _LONG_LIST else steps[-1:])
    manager = tf.train.CheckpointManager(
        tree, str(directory), max_to_keep=None, checkpoint_name=layout.PREFIX
    )
    with shards.Durable(layout.prefix(directory, draft.step)) as durable:
        options = tf.train.CheckpointOptions(
            experimental_write_callbacks=[commit],
            experimental_sharding_callback=durable,
        )
        try:
            manager.save(checkpoint_number=draft.step, options=options)
        except (OSError, tf.errors.OpError) as error:
            if not marks:
                raise
            # Committed; what failed is TensorFlow's list, which is written again.
            logging.warning("%s could not be listed: %s", manager.directory, error)
    files.delete(partial)
    return marks[0]


def write_anew(
    tree: tf.train.Checkpoint, directory: pathlib.Path, draft: Draft
) -> Manifest:
    """As `write`, also where a checkpoint of that step is there.

    That one goes once the new one is whole.
    """
    staging = layout.staging(directory)
    files.make_directory(staging)
    debris.clean(staging)
    for step in layout.steps(staging):
        filing.set_aside(staging, step, layout.UNCLAIMED)  # of an interrupted time
    mark = write(tree, staging, draft)
    for entry in catalog.read_entry(directory, draft.step):
        if entry.manifest is not None:
            filing.remove(directory, entry.manifest)
        else:
            filing.set_aside_damaged(directory, draft.step, entry.problem or "")
    filing.link(mark, staging, directory)
    filing.remove(staging, mark)
    filing.drop_staging(staging)
    return mark


def _check_space(directory: pathlib.Path, draft: Draft) -> None:
    needed = sum(
        math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
        for variable in draft.variables
    )
    free = files.free_bytes(directory)
    if free < needed:
        raise OSError(
            f"it needs {needed} bytes and {free} are free: {needed - free} short"
        )
