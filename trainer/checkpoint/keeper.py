"""The keeper for a training loop of your own: any `tf.train.Checkpoint`, kept safe.

Saves are written behind the training, made durable, read back and then committed; the
best are kept apart from the recent, across restarts; what is damaged is noticed, set
aside, and an older one restored. What the checkpoint holds is resumed exactly; the
position in your data, and what lives in Python, is for your loop to put back from the
step.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import final

import tensorflow as tf
from absl import logging

from trainer.checkpoint import compatibility, environment, layout, locks, selection
from trainer.checkpoint.best import records_after
from trainer.checkpoint.catalog import Entry
from trainer.checkpoint.layout import RunDirectory, check_name
from trainer.checkpoint.manifest import Draft, Manifest
from trainer.checkpoint.retention import Best, Rules
from trainer.checkpoint.saver import Saver
from trainer.checkpoint.store import Store
from trainer.checkpoint.tree import Tree
from trainer.storage import files


@final
class Keeper:
    """Keeps the checkpoints of one training in one directory.

        >>> import tensorflow as tf
        >>> from trainer import Keeper
        >>> weight = tf.Variable(0.0)                  # all that training changes
        >>> checkpoint = tf.train.Checkpoint(weight=weight)
        >>> with Keeper("runs/mine", checkpoint, best="loss:min") as keeper:
        ...     found = keeper.restore()               # the newest good one, if any
        ...     for step in range(found.step if found else 0, 1000):
        ...         _ = weight.assign_add(0.001)       # your training step
        ...         if (step + 1) % 250 == 0:
        ...             keeper.save(step + 1, {"loss": 1 - float(weight)})
        ...     keeper.restore("best").step
        1000

    Nothing is read or written before the first `restore` or `save`, which take the
    directory's lock; `close`, or the end of the `with` block, gives it back.

    Args:
      directory: of the run; made if it is not there.
      checkpoint: everything that training changes. Variables of Keras models that
        TensorFlow does not reach by itself, such as the seeds of dropout layers, are
        added to it.
      best: `name:min|max[:count]`, such as `val_loss:min`, or several, the first of
        which counts.
      keep_recent: how many of the newest to keep.
      keep_every_steps: multiples of this are kept for good; 0: none.
      on_commit: called with the path of each new checkpoint once it is durable, on the
        thread that saves; an error of it is logged.

    Raises:
      layout.PlaceError: TensorFlow can't read checkpoints in a directory of that name.
      ValueError: `best` is not of that form, or `keep_recent` is not at least 1.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        checkpoint: tf.train.Checkpoint,
        *,
        best: str | Sequence[str] = (),
        keep_recent: int = 3,
        keep_every_steps: int = 0,
        on_commit: Callable[[pathlib.Path], None] | None = None,
    ) -> None:
        if keep_recent < 1:
            raise ValueError(f"keep_recent={keep_recent}: expected at least 1.")
        check_name(os.fspath(directory))
        texts = [best] if isinstance(best, str) else best
        self._rules = Rules(
            keep_recent=keep_recent,
            keep_every_steps=keep_every_steps,
            best=tuple(map(Best.parse, texts)),
        )
        self._directory = RunDirectory(pathlib.Path(directory))
        self._tree = Tree(checkpoint)
        self._on_commit = on_commit
        self._held = contextlib.ExitStack()
        self._saver: Saver | None = None
        self._store = Store(
            self._directory, self._rules, on_commit=self._tell if on_commit else None
        )

    def restore(self, which: str = "latest") -> Manifest | None:
        """Restores a checkpoint whose every byte is right into the objects.

        Args:
          which: `latest`: the newest good one; what is damaged is set aside, and an
            older one taken. Or `best`, `best:metric`, `step:N`, or a path.

        Returns:
          Its manifest: `step`, `metrics`. None if there is no checkpoint yet.

        Raises:
          selection.NoCheckpointError: there is none of that name.
          selection.DamagedCheckpointError: the one that was named is damaged.
          store.NoUsableCheckpointError: every checkpoint there is is damaged.
          compatibility.IncompatibleCheckpointError: it is of other objects, or they
            are not built yet.
          locks.LockedError: another process writes there.
        """
        self._open()
        self.wait()
        self._tree.describe()
        if which == "latest":
            return self._store.restore(self._tree)
        entry = selection.select(self._directory, which, self._rules.best)
        mark = selection.verified(entry)
        compatibility.check_entry(entry, self._tree)
        self._tree.restore(str(entry.prefix))
        return mark

    def save(self, step: int, metrics: Mapping[str, float] | None = None) -> None:
        """Has the objects saved as they are now; returns within milliseconds.

        Checkpoints of later steps, where the loop went back to an earlier one, are
        moved to `abandoned/`.

        Args:
          step: how far training is; the number of the checkpoint.
          metrics: of an evaluation at this step, for ranking.

        Raises:
          store.SaveError: the save before failed twice in a row.
          ValueError: `step` is negative.
        """
        if step < 0:
            raise ValueError(f"step={step}: expected 0 or more.")
        saver = self._open()
        if self._tree.changed():
            saver.wait()
            saver = self._new_saver()
        variables = self._tree.describe()
        measured = {name: float(value) for name, value in (metrics or {}).items()}
        self._abandon_later_than(step, saver)
        found, pending = self._store.upkeep.catalog, saver.pending
        rules = [rule for rule in self._rules.best if rule.metric in measured]
        records = records_after(found, rules, step, measured, pending)
        self._tree.step = step
        draft = Draft(
            step=int(step),
            metrics=measured,
            variables=variables,
            records=records,
            versions=environment.versions(),
            machine=environment.machine(),
        )
        saver.save(draft)

    def wait(self) -> None:
        """Waits until the last save is durable.

        Raises:
          store.SaveError: it failed.
        """
        if self._saver is not None:
            self._saver.wait()
            if self._saver.failed:
                raise self._saver.failed

    def close(self) -> None:
        """Waits for the last save, and lets others write to the directory.

        Raises:
          store.SaveError: the last save failed.
        """
        with self:
            self.wait()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """As `close`; an error on its way is not hidden."""
        saver, self._saver = self._saver, None
        atexit.unregister(self._at_exit)
        with self._held:
            if saver is not None:
                saver.__exit__(kind, error, trace)

    def _open(self) -> Saver:
        if self._saver is None:
            files.make_directory(self._directory.root)
            root, file = self._directory.root, self._directory.lock
            self._held.enter_context(locks.lock(root, file))
            try:
                self._store.prepare()
            except BaseException:
                self._held.close()
                raise
            atexit.register(self._at_exit)
            return self._new_saver()
        return self._saver

    def _new_saver(self) -> Saver:
        """A saver for the tree as it is now."""
        before, self._saver = self._saver, Saver(self._store, self._tree)
        if before is not None:
            with before:
                pass
        self._tree.describe()
        self._saver.begin(0)
        return self._saver

    def _abandon_later_than(self, step: int, saver: Saver) -> None:
        entries = self._store.upkeep.catalog.entries
        if not any(entry.step > step for entry in entries):
            return
        saver.wait()
        entries = self._store.upkeep.catalog.entries
        number = self._directory.unused_number()
        self._store.upkeep.move_aside((e for e in entries if e.step > step), number)
        logging.warning(
            "step %d is saved after later ones: these are moved to %s",
            step,
            self._directory.abandoned(number),
        )

    def _tell(self, entry: Entry) -> None:
        if self._on_commit is not None:
            self._on_commit(layout.prefix(entry.directory, entry.step))

    def _at_exit(self) -> None:
        """The process ends without `close`: the last save is waited for."""
        try:
            self.close()
        except Exception:
            logging.exception("the last save to %s failed", self._directory.root)
