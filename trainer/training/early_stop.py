"""When to stop because nothing gets better any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from trainer.checkpoint.retention import Best
from trainer.model.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """Stops a run after a number of evaluations in a row that were no better.

    Attributes:
      rule: the metric that counts, and what is better; None: nothing is counted.
      patience: how many evaluations; 0: it never stops.
      min_delta: minimum improvement that counts.
    """

    rule: Best | None = None
    patience: int = 0
    min_delta: float = 0.0

    @classmethod
    def by(
        cls, rules: Sequence[Best], metric: str, *, patience: int, min_delta: float
    ) -> EarlyStop:
        """By the named one of the ranked metrics; by the first, if none is named."""
        rule = next((one for one in rules if metric in ("", one.metric)), None)
        return cls(rule=rule, patience=patience, min_delta=min_delta)

    def count(self, progress: Progress, step: int) -> Progress:
        """After one more evaluation, which `progress` has."""
        if self.rule is None:
            return progress
        return progress.counted(self.rule, step, min_delta=self.min_delta)

    def is_due(self, progress: Progress) -> bool:
        """Whether it is time."""
        return 0 < self.patience <= progress.patience.stale
