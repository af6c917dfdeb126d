"""Lowers the learning rates when a metric does not get better any more.

The rates are a function of the configured ones and of how often they were lowered,
which is part of every checkpoint. So a resumed run has the same ones, and configured
rates that were changed meanwhile are lowered as often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import logging

from trainer.checkpoint.retention import Best, is_multiple
from trainer.config.options import ConfigError, RunOptions
from trainer.config.plateau_rule import PlateauRule
from trainer.model import learning_rates
from trainer.model.progress import Progress
from trainer.model.state import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plateau:
    """What lowers the learning rates of a run.

    Attributes:
      rule: when, and how far; None: never.
      best: the metric that counts, and what is better.
      every_steps: the evaluations that count are those at multiples of it. The one at
        the end of a run is not, so that a run which goes on further is the same.
    """

    rule: PlateauRule | None = None
    best: Best | None = None
    every_steps: int = 0

    @classmethod
    def of(
        cls, choices: RunOptions, best: Sequence[Best], state: State, every_steps: int
    ) -> Plateau:
        """By the first metric that is ranked.

        Args:
          choices: of the run.
          best: the metrics that are ranked; none without an evaluation.
          state: whose learning rates are lowered.
          every_steps: between two evaluations.

        Raises:
          ConfigError: there is nothing to look at, or a rate that can't be lowered.
        """
        if not choices.plateau:
            return cls()
        flag = f"--plateau={choices.plateau}"
        if not best:
            raise ConfigError(
                f"{flag} needs a metric that gets better: give --best=name:min|max, "
                "and a split 'valid' to evaluate it on."
            )
        scheduled = [k for k, rate in state.learning_rates.items() if rate is None]
        if scheduled:
            raise ConfigError(
                f"{flag}: the learning rate of {', '.join(scheduled)} is a "
                "LearningRateSchedule, which follows from the step alone. Give that "
                "optimizer a number, such as Adam(1e-3), or leave --plateau out."
            )
        rule = PlateauRule.parse(choices.plateau)
        # Any improvement counts, so that no other option changes the rates.
        first = dataclasses.replace(best[0], min_delta=0.0)
        return cls(rule=rule, best=first, every_steps=every_steps)

    def rates(self, state: State, reductions: int) -> dict[str, float | None]:
        """The rates after so many lowerings, by optimizer; None: it has a schedule."""
        rates = dict(state.learning_rates)
        for name, rate in rates.items():
            if rate is not None and self.rule is not None:
                # As an optimizer holds it.
                rates[name] = float(np.float32(self.rule.lowered(rate, reductions)))
        return rates

    def restore(self, state: State) -> dict[str, tuple[float, float]]:
        """Puts the configured rates, lowered as often as before, over restored ones.

        Returns:
          By optimizer, where they differ: the restored one and the one it is now.
        """
        rates = self.rates(state, state.progress.reductions)
        return learning_rates.apply(state.optimizers, rates)

    def count(self, state: State, step: int) -> None:
        """Counts the evaluation of a step, and lowers the rates if it is time."""
        if (
            self.rule is None
            or self.best is None
            or not is_multiple(step, self.every_steps)
        ):
            return
        progress = state.progress.counted_for_plateau(self.best, step)
        if progress.plateau.stale >= self.rule.patience:
            progress = self._lower(state, progress, step)
        state.progress = progress

    def _lower(self, state: State, progress: Progress, step: int) -> Progress:
        rates = self.rates(state, progress.reductions + 1)
        changed = learning_rates.apply(state.optimizers, rates)
        for name, (old, new) in changed.items():
            seen = progress.plateau
            logging.info(
                "step %d: the learning rate of %s is lowered from %g to %g, for %s was "
                "no better in %d evaluations (best %s at step %s)",
                step,
                name,
                old,
                new,
                seen.metric,
                seen.stale,
                "none" if seen.value is None else f"{seen.value:.4f}",
                seen.step,
            )
        return progress.lowered() if changed else progress
