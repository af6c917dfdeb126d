"""When to stop because nothing gets better any more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from trainer.checkpoint.retention import Best
from trainer.config.options import ConfigError, RunOptions
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
    def of(cls, choices: RunOptions, best: Sequence[Best]) -> EarlyStop:
        """By the metric that is named, or the first that is ranked.

        Args:
          choices: of the run.
          best: the metrics that are ranked; none without an evaluation.

        Raises:
          ConfigError: there is none, and stopping early is asked for.
        """
        metric, patience = choices.early_stop_metric, choices.early_stop_patience
        if not best and (patience or metric):
            raise ConfigError(
                "early stopping needs a metric that gets better: give "
                "--best=name:min|max, and a split 'valid' to evaluate it on."
            )
        rule = next((one for one in best if metric in ("", one.metric)), None)
        delta = choices.early_stop_min_delta
        return cls(rule=rule, patience=patience, min_delta=delta)

    def count(self, progress: Progress, step: int) -> Progress:
        """After one more evaluation, which `progress` has."""
        if self.rule is None:
            return progress
        return progress.counted(self.rule, step, min_delta=self.min_delta)

    def is_due(self, progress: Progress) -> bool:
        """Whether it is time."""
        return 0 < self.patience <= progress.patience.stale
