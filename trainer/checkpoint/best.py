"""What is best so far, told from the checkpoints: they are the one truth of it.

    >>> import pathlib
    >>> from trainer.checkpoint import best, catalog, layout, retention
    >>> found = catalog.scan(layout.RunDirectory(pathlib.Path("runs/line")))
    >>> rule = retention.Best.parse("loss:max")
    >>> best.records_after(found, [rule], 40, {"loss": 9.0}, pending=[])
    {'loss': {'step': 40, 'value': 9.0, 'mode': 'max'}}

Every new best is saved at once, so the checkpoints there are and the one that is being
saved say all of it. No TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from trainer.base.errors import KeepstepError
from trainer.checkpoint.catalog import Catalog
from trainer.checkpoint.retention import Best


class UnknownMetricError(KeepstepError, ValueError):
    """An evaluation doesn't give what is to be ranked."""


def records_after(
    found: Catalog,
    rules: Sequence[Best],
    step: int,
    metrics: Mapping[str, float],
    pending: Iterable[tuple[int, Mapping[str, float]]],
) -> dict[str, dict[str, Any]]:
    """The best values after an evaluation, by metric.

    Args:
      found: the checkpoints there are.
      rules: of the run.
      step: of the evaluation.
      metrics: of the evaluation.
      pending: step and metrics of a checkpoint that is being saved.

    Raises:
      UnknownMetricError: one of the rules ranks what the evaluation doesn't give.
    """
    best = {}
    for rule in rules:
        if rule.metric not in metrics:
            raise UnknownMetricError(
                f"--best={rule}: the evaluation gives no {rule.metric!r}; it gives "
                f"{', '.join(sorted(metrics))}. Expected one of these. Return it from "
                "scores(), or name another one."
            )
        value = metrics[rule.metric]
        standing = found.standing(rule, [*pending, (step, metrics)])
        for first, top in standing.items():
            best[rule.metric] = {"step": first, "value": top, "mode": rule.mode}
            break
        if not math.isfinite(value):
            logging.warning(
                "%s is %s at step %d: such a value is never best",
                rule.metric,
                value,
                step,
            )
    return best
