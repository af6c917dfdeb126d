"""When things are due, in steps from the very start; and how far to train at once.

Pure: a resumed run is at the same borders as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
from typing import final

from trainer.checkpoint.retention import is_multiple

# A stop request waits for one chunk of steps.
_CHUNK_SECS = 0.5


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Things are due at multiples of these steps, and all of them at the last one.

    Attributes:
      total: the last step.
      report: for the training scalars.
      evaluate: for evaluations; 0: never.
      save: for checkpoints; 0: the clock decides.
    """

    total: int
    report: int
    evaluate: int
    save: int

    def reports(self, step: int) -> bool:
        """Whether the training scalars are due."""
        return self._due(step, self.report)

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation is due."""
        return self.evaluate > 0 and self._due(step, self.evaluate)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due."""
        return self._due(step, self.save)

    def next_border(self, step: int) -> int:
        """The next step at which anything is due."""
        everies = [every for every in (self.report, self.evaluate, self.save) if every]
        return min(self.total, *((step // every + 1) * every for every in everies))

    def _due(self, step: int, every: int) -> bool:
        return step > 0 and (step >= self.total or is_multiple(step, every))


@final
class Pace:
    """How many steps one call trains: half a second of them, found by doubling."""

    def __init__(self) -> None:
        self._chunk = 1  # the first one shows how long a step takes

    def count(self, left: int) -> int:
        """Steps for the next call, where `left` are left to the next border."""
        return min(self._chunk, left)

    def took(self, count: int, secs: float) -> None:
        """Learns from a call."""
        if secs > _CHUNK_SECS:
            self._chunk = max(1, count // 2)
        elif secs < _CHUNK_SECS / 2 and count == self._chunk:
            self._chunk *= 2
