"""What an evaluation means: the best values so far, and whether they still get better.

Pure functions over what the checkpoint keeps of it, so a resumed run judges as if
nothing had happened. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from trainer.checkpoint import retention

Records = dict[str, dict[str, Any]]


def judge(
    records: Mapping[str, dict[str, Any]],
    rules: Sequence[retention.Best],
    step: int,
    metrics: Mapping[str, float],
) -> Records:
    """The records after an evaluation: by metric `{"step", "value", "mode"}`."""
    after = dict(records)
    for rule in rules:
        value, best = metrics[rule.metric], records.get(rule.metric, {})
        if rule.improves(value, best.get("value")):
            after[rule.metric] = {"step": step, "value": value, "mode": rule.mode}
        if not math.isfinite(value):
            logging.warning(
                "%s is %s at step %d: such a value is never best",
                rule.metric,
                value,
                step,
            )
    return after


def count_stale(
    patience: Mapping[str, Any],
    rule: retention.Best,
    step: int,
    metrics: Mapping[str, float],
    *,
    min_delta: float,
) -> dict[str, Any]:
    """How many evaluations in a row were no better, for early stopping.

    Returns:
      `{"metric", "value", "stale"}`, and the `step` of the value, if there is one.
    """
    if patience.get("metric") != rule.metric:
        patience = {"metric": rule.metric, "value": None, "stale": 0}
    value = metrics[rule.metric]
    if dataclasses.replace(rule, min_delta=min_delta).improves(
        value, patience["value"]
    ):
        return {**patience, "value": value, "step": step, "stale": 0}
    return {**patience, "stale": patience["stale"] + 1}
