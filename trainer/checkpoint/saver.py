"""Saving behind the training thread, which pays for a snapshot only.

    >>> import pathlib, tensorflow as tf
    >>> from trainer.checkpoint import layout, manifest, retention, saver, store, tree
    >>> directory = layout.RunDirectory(pathlib.Path("runs/line"))
    >>> kept = store.Store(directory, retention.Rules(keep_recent=3))
    >>> current = tree.Tree(tf.train.Checkpoint(weight=tf.Variable(0.0)))
    >>> draft = manifest.Draft(step=5, metrics={}, variables=current.describe())
    >>> with saver.Saver(kept, current) as saving:
    ...     saving.begin(0)
    ...     saving.save(draft)         # milliseconds; the writing goes on behind
    ...     saving.finish(lambda: draft).step
    5

At most one save is in flight. A first failure is told and asks for another save at
once; after a second one in a row the policy decides. No error is ever lost.
"""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Mapping
from typing import final

from absl import logging

from trainer.checkpoint import plan, snapshot
from trainer.checkpoint.cost import Account, Cost
from trainer.checkpoint.manifest import Draft
from trainer.checkpoint.saveable import Saveable
from trainer.checkpoint.store import SaveError, Store


@final
class Saver:
    """Saves the state of one run through its store. Leaving it waits for the last.

    Args:
      store: where to.
      current: what.
      stops: whether a second failure in a row is raised; else it is only told, and the
        state is saved when it is due again.
      before: called on the training thread before each snapshot, such as to flush what
        belongs to the checkpoint; an OSError of it fails the save.
      clock: seconds, from any origin.

    Attributes:
      failed: the error of the last save, if it failed for the first time in a row, so
        that another one is to be made at once.
    """

    def __init__(
        self,
        store: Store,
        current: Saveable,
        *,
        stops: bool = True,
        before: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._current = current
        self._stops = stops
        self._before = before
        self._clock = clock
        self._snapshot: snapshot.Snapshot | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "save")
        self._running: concurrent.futures.Future[Cost] | None = None
        self._pending: Draft | None = None
        self._account = Account()
        self._saved_at = 0.0
        self._saved_step = self._failures = 0
        self.failed: SaveError | None = None

    def begin(self, step: int) -> None:
        """Training goes on from `step`, which is saved or new."""
        self._shadow()  # or the first save would pay for it
        self._saved_at, self._saved_step = self._clock(), step
        self._account.begin(self._saved_at)

    def save(self, draft: Draft) -> None:
        """Takes a snapshot of the state, which `draft` describes, and has it written.

        Waits for the save before, if that is still going on.

        Raises:
          SaveError: that one was the second in a row to fail, and that stops the run.
        """
        began = self._clock()
        self.wait()
        free = self._clock()
        self.failed, self._pending = None, draft
        try:
            self._before()
        except OSError as error:
            self._running = concurrent.futures.Future()
            problem = f"the scalars up to step {draft.step} could not be written"
            self._running.set_exception(SaveError(f"{problem}: {error}."))
            return
        shadow = self._take()
        taken = self._clock()
        tree = self._current.tree if shadow.unshadowed else shadow.tree
        since_secs, since_steps = began - self._saved_at, draft.step - self._saved_step

        def write() -> Cost:
            started = self._clock()
            try:
                size = self._store.save(tree, draft).bytes
            finally:
                shadow.drop()
            return Cost(
                step=draft.step,
                stall_secs=taken - free,
                wait_secs=free - began,
                write_secs=self._clock() - started,
                bytes=size,
                since_secs=since_secs,
                since_steps=since_steps,
            )

        self._saved_at, self._saved_step = began, draft.step
        self._running = self._thread.submit(write)
        if shadow.unshadowed:
            concurrent.futures.wait([self._running])

    def is_due(self, *, every_secs: float, overhead_percent: float) -> bool:
        """Whether the clock says that it is time to save.

        Args:
          every_secs: so many after the last one, if this is not 0.
          overhead_percent: otherwise, as soon as this share of the time since then pays
            for the last one; after 10 minutes at the latest.
        """
        passed = self._clock() - self._saved_at
        if every_secs:
            return passed >= every_secs
        if self._running is not None:
            return False  # what it costs is not known yet
        return self._account.pays_for_another(passed, overhead_percent)

    def is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether a checkpoint with these metrics would be among the best.

        A save in flight counts as saved. Reads no file.
        """
        upkeep, pending = self._store.upkeep, self.pending
        return plan.is_best(upkeep.catalog, upkeep.rules, step, metrics, pending)

    @property
    def pending(self) -> list[tuple[int, Mapping[str, float]]]:
        """Step and metrics of the save in flight, if there is one."""
        return [(self._pending.step, self._pending.metrics)] if self._pending else []

    def collect(self) -> Cost | None:
        """The cost of the last save, told once, as soon as it is committed.

        Raises:
          SaveError: it was the second in a row to fail, and that stops the run.
        """
        if self._running is None or not self._running.done():
            return None
        return self.wait()

    def wait(self) -> Cost | None:
        """As `collect`, once the save in flight is done."""
        running, self._running = self._running, None
        if running is None:
            return None
        try:
            cost = running.result()
        except SaveError as error:
            self._note(error)
            return None
        finally:
            self._pending = None
        self._failures = 0
        self._account.add(cost, self._clock())
        return cost

    def finish(self, make_draft: Callable[[], Draft]) -> Cost | None:
        """Waits for the last save; makes it again if it failed for the first time.

        Raises:
          SaveError: the state is not saved.
        """
        cost = self.wait()
        if self.failed:
            self.save(make_draft())
            cost = self.wait()
        if self._failures:
            raise SaveError(
                f"the state of step {make_draft().step} could not be saved. Every "
                "earlier checkpoint is as it was: make room, and run the same command "
                "again."
            )
        return cost

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """Waits for what is in flight, and ends the thread.

        Raises:
          SaveError: it failed; where another error is on its way, that one is told as
            its cause instead.
        """
        self._thread.shutdown()
        running, self._running = self._running, None
        failed = running.exception() if running is not None else None
        if failed is None:
            return
        if error is None:
            raise failed
        logging.error("%s", failed)
        first = error
        while first.__context__ is not None and first.__context__ is not failed:
            first = first.__context__
        if first is not failed:
            first.__context__ = failed

    def _note(self, error: SaveError) -> None:
        """Tells a failure, and whether it is to be tried again; or raises it."""
        self._failures += 1
        self.failed = error if self._failures == 1 else None
        if not self.failed and self._stops:
            raise error
        then = "Trying again." if self.failed else "Training goes on (--on_save_error)."
        logging.error("%s %s", error, then)

    def _take(self) -> snapshot.Snapshot:
        self._current.pack()
        shadow = self._shadow()
        if not shadow.unshadowed:
            shadow.take()
        return shadow

    def _shadow(self) -> snapshot.Snapshot:
        if self._snapshot is None:
            self._snapshot = snapshot.Snapshot(self._current.tree)
            if self._snapshot.unshadowed:
                logging.warning(
                    "training waits for each save: the state holds what can't be "
                    "copied aside (%s)",
                    ", ".join(sorted(self._snapshot.unshadowed)),
                )
        return self._snapshot
