"""Checkpoints of a run: saved and committed, verified and restored.

    keeper = store.Keeper(upkeep)
    found = keeper.restore(state)          # the newest good one, or None
    keeper.save(state.tree, draft)         # commit, then promote, then prune

`tf.train.CheckpointManager` writes the files; the manifests are the truth about which
of them count. TensorFlow's own list, the file `checkpoint`, is derived from them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import math
import pathlib
from typing import final

import tensorflow as tf

from trainer import task
from trainer.checkpoint import catalog, compatibility, manifest, shards
from trainer.checkpoint.upkeep import (
    DAMAGED,
    Upkeep,
    link,
    record_state,
    remove,
    remove_debris,
    set_aside,
)
from trainer.errors import KeepstepError
from trainer.model import state, weights
from trainer.storage import failpoints
from trainer.storage.files import free_bytes, make_directory, sync


class SaveError(KeepstepError, RuntimeError):
    """A checkpoint could not be written."""


class NoUsableCheckpointError(KeepstepError, RuntimeError):
    """Checkpoints exist, and every one of them is damaged."""


class DamagedCheckpointError(KeepstepError, RuntimeError):
    """The files of a checkpoint are not what was committed."""


@final
class Keeper:
    """Saves to and restores from one run directory, and keeps it in shape."""

    def __init__(self, upkeep: Upkeep) -> None:
        self.upkeep = upkeep

    def restore(
        self, current: state.State, *, scheduled: bool = False
    ) -> manifest.Manifest | None:
        """Restores the newest checkpoint whose every byte is right.

        What is damaged is renamed `*.damaged`, loudly, and never deleted.

        Args:
          current: the state to restore into.
          scheduled: pass over those that were made at a stop or by the clock, and
            delete them once an older one is restored.

        Returns:
          The manifest of what was restored, or None if there is no such checkpoint.

        Raises:
          NoUsableCheckpointError: there were some, and all are damaged.
          compatibility.IncompatibleCheckpointError: the newest good one doesn't fit.
        """
        run_dir = self.upkeep.run_dir
        passed = []
        for entry in catalog.newest_first(run_dir):
            if scheduled and not self.upkeep.is_scheduled(entry):
                passed.append(entry)
                continue
            if entry.manifest is None:
                set_aside(entry, entry.problem or "unreadable")
                continue
            _check_compatible(entry, current, entry.manifest)
            if problem := _restore_verified(entry, entry.manifest, current):
                set_aside(entry, problem)
                continue
            for later in passed:
                remove(later.directory, later.step)
            self.upkeep.settle()
            return entry.manifest
        if self.upkeep.any_damaged() and not passed:
            raise NoUsableCheckpointError(
                f"every checkpoint in {run_dir} is damaged; nothing was restored and "
                f"nothing is lost: they are the files *{DAMAGED}. Give "
                "another --run_dir to train from scratch, or bring back a good copy."
            )
        return None

    def go_back(self, entry: catalog.Entry, current: state.State, number: int) -> None:
        """Makes `entry` the newest checkpoint; later ones go to `abandoned/<number>`.

        Interrupted anywhere, it can be done again.

        Raises:
          DamagedCheckpointError: its files are not what was committed.
          compatibility.IncompatibleCheckpointError: it doesn't fit; nothing was moved.
        """
        mark = verified(entry)
        _check_compatible(entry, current, mark)
        run_dir, recent = self.upkeep.run_dir, self.upkeep.recent
        own = run_dir.absolute() in entry.directory.absolute().parents
        later = [
            e
            for e in catalog.scan(run_dir)
            if not own
            or e.step > entry.step
            or (e.step == entry.step and e.manifest and e.manifest.files != mark.files)
        ]
        self.upkeep.move_aside(later, number)
        if entry.directory != recent:
            link(mark, entry.directory, recent)
        record_state(recent, manifest.steps(recent))

    def save(self, tree: tf.train.Checkpoint, draft: manifest.Manifest) -> int:
        """Saves and commits a tree, then promotes, then prunes.

        A step that is committed already is never written over, for a kill would lose
        it: the new files are made beside it and take its place when they are whole.

        Args:
          tree: what is saved: the live one, or its shadow.
          draft: the manifest, but for the files.

        Returns:
          The size of the checkpoint in bytes.

        Raises:
          SaveError: it could not be written; says the path and the cause. What was
            committed before is as it was, and the step can be saved again.
        """
        step = draft.step
        again = step in manifest.steps(self.upkeep.recent)
        directory = self.upkeep.staging if again else self.upkeep.recent
        try:
            # The manifest says how long the event files are: they come first.
            files = [self.upkeep.run_dir / "summaries" / name for name in draft.events]
            for path in [*files, *{path.parent for path in files}]:
                sync(path)
            make_directory(directory)
            self._check_space(directory, draft)
            write(tree, directory, draft)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError):
                remove_debris(directory)
            raise SaveError(
                f"{directory / manifest.PREFIX}-{step} could not be saved: {error}. "
                "Every earlier checkpoint is as it was."
            ) from error
        try:
            self.upkeep.settle()
        except OSError as error:
            raise SaveError(
                f"{directory / manifest.PREFIX}-{step} is saved, but what follows from "
                f"that, promotion and pruning, failed: {error}. It is done with the "
                "next save, or at the next start."
            ) from error
        return manifest.read(self.upkeep.recent, step).bytes

    def _check_space(self, directory: pathlib.Path, draft: manifest.Manifest) -> None:
        needed = sum(
            math.prod(variable.shape) * tf.as_dtype(variable.dtype).size
            for variable in draft.variables
        )
        free = free_bytes(directory)
        if free < needed:
            raise OSError(
                f"it needs {needed} bytes and {free} are free: {needed - free} short"
            )


def _restore_verified(
    entry: catalog.Entry, mark: manifest.Manifest, current: state.State
) -> str | None:
    """Restores a checkpoint while every byte of it is verified; says what is wrong.

    TensorFlow checks what it reads by itself. What it took from a file that turns out
    to be damaged is not used: an older checkpoint, or the end, comes after it.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "verify") as thread:
        verifying = thread.submit(manifest.damage, entry.directory, mark)
        try:
            current.restore(str(entry.prefix))
        except Exception:
            if problem := verifying.result():
                return problem
            raise
        return verifying.result()


def write(
    tree: tf.train.Checkpoint, directory: pathlib.Path, draft: manifest.Manifest
) -> None:
    """Writes the files of a checkpoint and commits them.

    Raises:
      OSError, tf.errors.OpError: they could not be written.
    """

    def commit(prefix: str) -> None:
        # In place, and not yet recorded by the manager.
        failpoints.point("save")
        files = manifest.measure(directory, draft.step, durable.secure)
        manifest.write(directory, dataclasses.replace(draft, files=files))

    # Made anew each time: its list is then what the manifests say.
    record_state(directory, manifest.steps(directory))
    manager = tf.train.CheckpointManager(
        tree, str(directory), max_to_keep=None, checkpoint_name=manifest.PREFIX
    )
    with shards.Durable(directory / f"{manifest.PREFIX}-{draft.step}") as durable:
        options = tf.train.CheckpointOptions(
            experimental_write_callbacks=[commit],
            experimental_sharding_callback=durable,
        )
        manager.save(checkpoint_number=draft.step, options=options)


def load_networks(entry: catalog.Entry, current: state.State) -> None:
    """Verifies a checkpoint and restores its networks alone. Changes no file.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: the networks are other ones.
    """
    mark = verified(entry)
    _check_compatible(entry, current, mark, networks_only=True)
    current.restore_networks(str(entry.prefix), mark.variables)


def load_all(entry: catalog.Entry, current: state.State) -> None:
    """Verifies a checkpoint and restores all of it. Changes no file.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
      compatibility.IncompatibleCheckpointError: it is of another state.
    """
    _check_compatible(entry, current, verified(entry))
    current.restore(str(entry.prefix))


def load_weights(entry: catalog.Entry, current: state.State) -> weights.Match:
    """Verifies a checkpoint and takes from it the weights that fit, by path and shape.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
    """
    saved = verified(entry).variables
    networks = task.network_items(current.networks)
    return weights.take(current, weights.read(str(entry.prefix), saved, networks))


def verified(entry: catalog.Entry) -> manifest.Manifest:
    """The manifest of a checkpoint whose every byte is right.

    Raises:
      DamagedCheckpointError: the files are not what was committed.
    """
    problem = entry.problem
    if entry.manifest is not None:
        problem = manifest.damage(entry.directory, entry.manifest)
    if entry.manifest is None or problem:
        raise DamagedCheckpointError(
            f"{entry.prefix} is damaged: {problem}. Choose another one; `list` shows "
            "which there are."
        )
    return entry.manifest


def _check_compatible(
    entry: catalog.Entry,
    current: state.State,
    mark: manifest.Manifest,
    *,
    networks_only: bool = False,
) -> None:
    built, saved = current.describe(), mark.variables
    if networks_only:
        built, saved = (
            tuple(v for v in one if current.of_network(v.path))
            for one in (built, saved)
        )
    compatibility.check(
        built,
        saved,
        source=str(entry.prefix),
        advice="The task builds another state than the one that was saved: start with "
        "the same flags (config.json in the run directory) and the same code, or give "
        "another --run_dir.",
    )
