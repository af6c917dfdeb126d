"""The cost of saves: of one, and of all of a run; and when the clock calls for one."""

from __future__ import annotations

import dataclasses
from typing import final

from absl import logging

_MAX_SECS = 600.0
_FEW_SAVES = 5
_HIGH_OVERHEAD_PERCENT = 3.0


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
class Account:
    """What the training thread has paid for the saves since `begin`."""

    def __init__(self) -> None:
        self._began_at = 0.0
        self._saves = 0
        self._told = False
        self._paid_secs = self._last_secs = 0.0

    def begin(self, now: float) -> None:
        """Counts from here; `now` is in seconds, from any origin."""
        self._began_at, self._saves, self._paid_secs = now, 0, 0.0

    def add(self, cost: Cost, now: float) -> None:
        """Takes one save into account; tells once if they cost much."""
        self._saves += 1
        self._paid_secs += cost.stall_secs + cost.wait_secs
        self._last_secs = cost.total_secs
        percent = self.overhead_percent(now)
        if percent > _HIGH_OVERHEAD_PERCENT and not self._told:
            self._told = True
            logging.warning(
                "saving takes %.1f %% of the time: save less often, or leave it to "
                "--save_overhead (--save_every_steps=0 --save_every_secs=0)",
                percent,
            )

    def overhead_percent(self, now: float) -> float:
        """The share of the time that training paid for saves; 0 for the first few."""
        if self._saves < _FEW_SAVES:
            return 0.0
        return 100 * self._paid_secs / max(now - self._began_at, 1e-9)

    def pays_for_another(self, passed_secs: float, overhead_percent: float) -> bool:
        """Whether the time since the last save pays for one more.

        Args:
          passed_secs: since the last save.
          overhead_percent: the share of the time that saving may take.
        """
        return passed_secs >= min(100 / overhead_percent * self._last_secs, _MAX_SECS)
