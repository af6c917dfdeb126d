"""The checkpoints of one run: saved and committed, verified and restored.

    >>> import pathlib, tensorflow as tf
    >>> from trainer.checkpoint import layout, manifest, retention, store, tree
    >>> directory = layout.RunDirectory(pathlib.Path("runs/mine"))
    >>> kept = store.Store(directory, retention.Rules(keep_recent=3))
    >>> kept.prepare()
    >>> current = tree.Tree(tf.train.Checkpoint(weight=tf.Variable(0.0)))
    >>> draft = manifest.Draft(step=5, metrics={}, variables=current.describe())
    >>> _ = kept.save(current.tree, draft)       # commit, then promote, then prune
    >>> kept.restore(current).step               # the newest good one, or None
    5

The manifests are the truth about which checkpoints there are. TensorFlow's own list,
the file `checkpoint`, is derived from them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import final

import tensorflow as tf
from absl import logging

from trainer.base.errors import KeepstepError
from trainer.checkpoint import (
    compatibility,
    debris,
    filing,
    layout,
    manifest,
    reader,
    selection,
    writer,
)
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Draft, Manifest
from trainer.checkpoint.retention import Rules
from trainer.checkpoint.saveable import Saveable
from trainer.checkpoint.upkeep import Upkeep
from trainer.storage import files


class SaveError(KeepstepError, RuntimeError):
    """A checkpoint could not be written."""


class NoUsableCheckpointError(KeepstepError, RuntimeError):
    """Checkpoints exist, and none of them can be used as it is."""


@final
class Store:
    """Saves to and restores from one run directory, and keeps it in shape.

    Args:
      directory: of the run; its lock is held.
      rules: which checkpoints are kept.
      on_commit: called with each new checkpoint once it is durable and in its place, on
        the thread that saves; an error of it is logged.
    """

    def __init__(
        self,
        directory: RunDirectory,
        rules: Rules,
        *,
        on_commit: Callable[[Entry], None] | None = None,
    ) -> None:
        self.directory = directory
        self.upkeep = Upkeep(directory, rules)
        self._on_commit = on_commit

    def prepare(self) -> None:
        """Makes the directories whole again after a kill at any instant.

        Data without a manifest are set aside, loudly, and never deleted.

        Raises:
          NoUsableCheckpointError: there are data and not one manifest.
          layout.OutsideError: a link in the directory leads out of it.
        """
        unclaimed = self.upkeep.prepare()
        places = [(home, step) for home, steps in unclaimed.items() for step in steps]
        prefixes = [layout.prefix(home, step) for home, step in places]
        if not self.upkeep.catalog.entries:
            whole = [str(one) for one in prefixes if reader.is_whole(str(one))]
            if whole:
                raise NoUsableCheckpointError(
                    f"{self.directory.root} holds {', '.join(whole[:3])} and not one "
                    "manifest (ckpt-*.json), so nothing says what was committed. "
                    "Nothing was changed. Bring the manifests back, have them written "
                    f"anew (verify --repair --run_dir={self.directory.root}), or give "
                    "another --run_dir."
                )
        for (home, step), one in zip(places, prefixes, strict=True):
            logging.error(
                "%s has no manifest, so it is no checkpoint. It is renamed *%s.",
                one,
                layout.UNCLAIMED,
            )
            filing.set_aside(home, step, layout.UNCLAIMED)

    def restore(self, current: Saveable, *, scheduled: bool = False) -> Manifest | None:
        """Restores the newest checkpoint whose every byte is right.

        What is damaged is renamed `*.damaged`, loudly, and never deleted.

        Args:
          current: what to restore into.
          scheduled: pass over those that were made at a stop or by the clock, and
            delete them once an older one is restored.

        Returns:
          The manifest of what was restored, or None if there is no such checkpoint.

        Raises:
          NoUsableCheckpointError: there were some, and all are damaged.
          compatibility.IncompatibleCheckpointError: the newest good one doesn't fit.
        """
        passed: list[Entry] = []
        for entry in self.upkeep.catalog.entries:
            if scheduled and not self.upkeep.is_scheduled(entry):
                passed.append(entry)
                continue
            if entry.manifest is None:
                self.upkeep.set_aside(entry, entry.problem or "unreadable")
                continue
            compatibility.check_entry(entry, current)
            if problem := _restore_verified(entry, entry.manifest, current):
                self.upkeep.set_aside(entry, problem)
                continue
            self.upkeep.found_whole(entry)
            for later in passed:
                if later.manifest is not None:
                    self.upkeep.remove(later.directory, later.manifest)
            self.upkeep.settle(lazy=True)
            return entry.manifest
        if self.upkeep.any_damaged() and not passed:
            raise NoUsableCheckpointError(
                f"every checkpoint in {self.directory.root} is damaged; nothing was "
                "restored and nothing is lost: they are the files "
                f"*{layout.DAMAGED}. Give another --run_dir to train from scratch, or "
                "bring back a good copy."
            )
        return None

    def go_back(self, entry: Entry, current: Saveable, number: int) -> None:
        """Makes `entry` the newest checkpoint; later ones go to `abandoned/<number>`.

        Interrupted anywhere, it can be done again.

        Raises:
          selection.DamagedCheckpointError: its files are not what was committed.
          compatibility.IncompatibleCheckpointError: it doesn't fit; nothing was moved.
        """
        mark = selection.verified(entry)
        compatibility.check_entry(entry, current)
        own = self.directory.home_of(entry.directory) is not None
        later = [
            one
            for one in self.upkeep.catalog.entries
            if not own
            or one.step > entry.step
            or (
                one.step == entry.step
                and one.manifest is not None
                and (one.manifest.files, one.manifest.created)
                != (mark.files, mark.created)
            )
        ]
        self.upkeep.move_aside(later, number)
        self.upkeep.found_whole(entry)
        self.upkeep.link(entry, self.directory.recent)
        recent = self.directory.recent
        self.upkeep.write_list(recent, self.upkeep.catalog.steps(recent))

    def save(self, tree: tf.train.Checkpoint, draft: Draft) -> Manifest:
        """Saves and commits a tree, then promotes, then prunes.

        A step that is committed already is never written over, for a kill would lose
        it: the new files are made beside it and take its place when they are whole.

        Args:
          tree: what is saved: the live one, or its shadow.
          draft: the manifest without the files.

        Raises:
          SaveError: it could not be written; says the path and the cause. What was
            committed before is as it was, and the step can be saved again.
        """
        again = draft.step in self.upkeep.catalog.home(self.directory.recent)
        directory = self.directory.staging if again else self.directory.recent
        prefix = layout.prefix(directory, draft.step)
        try:
            # The manifest says how long the event files are: they come first.
            events = [self.directory.summaries / name for name in draft.events]
            for path in [*events, *{path.parent for path in events}]:
                files.sync(path)
            files.make_directory(directory)
            mark = writer.write(tree, directory, draft)
            entry = Entry(directory, draft.step, mark)
        except (OSError, tf.errors.OpError) as error:
            with contextlib.suppress(OSError):
                debris.clean(directory)
            raise SaveError(
                f"{prefix} could not be saved: {error}. "
                "Every earlier checkpoint is as it was."
            ) from error
        try:
            self.upkeep.added(entry)
            self.upkeep.settle()
        except OSError as error:
            raise SaveError(
                f"{prefix} is saved, but what follows from that, promotion and "
                f"pruning, failed: {error}. It is done with the next save, or at the "
                "next start."
            ) from error
        self._tell(self.upkeep.catalog.home(self.directory.recent)[draft.step])
        return mark

    def _tell(self, entry: Entry) -> None:
        """Calls the listener; whatever it does, the checkpoint is saved."""
        if self._on_commit is None:
            return
        try:
            self._on_commit(entry)
        except Exception:
            logging.exception("on_commit failed for %s", entry.prefix)


def _restore_verified(entry: Entry, mark: Manifest, current: Saveable) -> str | None:
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
