"""Saving behind the training thread, which pays for a snapshot only.

    saver = saver.Saver(keeper, state)
    saver.save(draft)          # milliseconds; the writing goes on behind
    saver.finished()           # what the last one cost, once it is done

It is a context manager: at its end it waits. At most one save is in flight; its error
is raised by the next call of any of these.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import final

from absl import logging

from trainer.checkpoint import manifest, snapshot, store
from trainer.model import state

_MAX_SECS = 600.0
_FEW_SAVES = 5


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one save cost.

    Attributes:
      step: that was saved.
      stall_secs: of the training thread, for the snapshot.
      wait_secs: of the training thread, for the save before.
      write_secs: behind the training thread.
      bytes: on disk.
      since_secs: from the save before, or the start, to this one.
      since_steps: trained in that time, and at risk until this save was done.
    """

    step: int
    stall_secs: float
    wait_secs: float
    write_secs: float
    bytes: int
    since_secs: float
    since_steps: int

    @property
    def overhead_percent(self) -> float:
        """What training paid for this save, of the time since the save before."""
        return 100 * (self.stall_secs + self.wait_secs) / max(self.since_secs, 1e-9)

    @property
    def total_secs(self) -> float:
        """Of all threads."""
        return self.stall_secs + self.wait_secs + self.write_secs

    def scalars(self) -> dict[str, float]:
        """By the names that TensorBoard shows."""
        return {
            "stall_ms": 1e3 * self.stall_secs,
            "wait_ms": 1e3 * self.wait_secs,
            "write_ms": 1e3 * self.write_secs,
            "bytes": self.bytes,
            "mb_per_s": self.bytes / 1e6 / max(self.write_secs, 1e-9),
            "overhead_percent": self.overhead_percent,
            "steps_at_risk": self.since_steps,
        }


@final
class Saver:
    """Saves the state of one run through its keeper.

    Attributes:
      failures: saves in a row that failed.
    """

    def __init__(
        self,
        keeper: store.Keeper,
        current: state.State,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keeper = keeper
        self._state = current
        self._clock = clock
        self._snapshot: snapshot.Snapshot | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "save")
        self._running: concurrent.futures.Future[Cost] | None = None
        self._pending: manifest.Manifest | None = None
        self._cost: Cost | None = None
        self._began_at = self._saved_at = 0.0
        self._saved_step = self._saves = 0
        self._paid_secs = 0.0
        self._last_secs = 0.0
        self.failures = 0

    def begin(self, step: int) -> None:
        """Training goes on from `step`, which is saved or new."""
        self._shadow()  # or the first save would pay for it
        self._began_at = self._saved_at = self._clock()
        self._saved_step = step
        self._paid_secs, self._saves = 0.0, 0

    @property
    def overhead_percent(self) -> float:
        """What training paid for all saves; 0 as long as there were but a few."""
        if self._saves < _FEW_SAVES:
            return 0.0
        return 100 * self._paid_secs / max(self._clock() - self._began_at, 1e-9)

    def save(self, draft: manifest.Manifest) -> None:
        """Takes a snapshot of the state, which `draft` describes, and has it written.

        Raises:
          store.SaveError: the save before failed; nothing was begun.
        """
        began = self._clock()
        self.wait()
        free = self._clock()
        self._state.pack()
        shadow = self._shadow()
        if not shadow.unshadowed:
            shadow.take()
        taken = self._clock()
        tree = self._state.tree if shadow.unshadowed else shadow.tree
        since_secs, since_steps = began - self._saved_at, draft.step - self._saved_step

        def write() -> Cost:
            started = self._clock()
            try:
                size = self._keeper.save(tree, draft)
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

        self._pending = draft
        self._saved_at, self._saved_step = began, draft.step
        self._running = self._thread.submit(write)
        if shadow.unshadowed:
            concurrent.futures.wait([self._running])

    def fail(self, error: store.SaveError) -> None:
        """Takes note of a save that could not even begin; it is told as any other.

        Raises:
          store.SaveError: the save before failed; this one is not noted.
        """
        self.wait()
        self._running = concurrent.futures.Future()
        self._running.set_exception(error)

    def is_due(self, *, every_secs: float, overhead_percent: float) -> bool:
        """Whether the clock says that it is time to save.

        Args:
          every_secs: so many after the last one, if this is not 0.
          overhead_percent: otherwise, as soon as this share of the time since then pays
            for what the last one cost; after 10 minutes at the latest.
        """
        passed = self._clock() - self._saved_at
        if every_secs:
            return passed >= every_secs
        if self._running is not None:
            return False  # what it costs is not known yet
        return passed >= min(100 / overhead_percent * self._last_secs, _MAX_SECS)

    def is_best(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether a checkpoint with these metrics would be among the best.

        What is being written now counts as written.
        """
        return self._keeper.upkeep.is_best(step, metrics, pending=self._pending)

    def finished(self) -> Cost | None:
        """What the last save cost, told once, as soon as it is committed.

        Raises:
          store.SaveError: it failed.
        """
        if self._running is None or not self._running.done():
            return self._told()
        self._collect()
        return self._told()

    def wait(self) -> None:
        """Waits for the save in flight, if there is one.

        Raises:
          store.SaveError: it failed.
        """
        if self._running is not None:
            self._collect()

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: object
    ) -> None:
        """Waits for what is in flight, and ends the thread.

        Raises:
          store.SaveError: it failed; unless another error is on its way.
        """
        self._thread.shutdown()
        if error is None:
            self.wait()

    def _collect(self) -> None:
        running, self._running, self._pending = self._running, None, None
        if running is None:
            return
        self.failures += 1
        self._cost = running.result()
        self.failures = 0
        self._saves += 1
        self._paid_secs += self._cost.stall_secs + self._cost.wait_secs
        self._last_secs = self._cost.total_secs

    def _told(self) -> Cost | None:
        cost, self._cost = self._cost, None
        return cost

    def _shadow(self) -> snapshot.Snapshot:
        if self._snapshot is None:
            self._snapshot = snapshot.Snapshot(self._state.tree)
            if self._snapshot.unshadowed:
                logging.warning(
                    "training waits for each save: the state holds what can't be "
                    "copied aside (%s)",
                    ", ".join(sorted(self._snapshot.unshadowed)),
                )
        return self._snapshot
