"""The recorded choices of two starts of one run, compared. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import retention
from trainer.config import options, task_name, values

RECORDED = {
    field.name: field
    for field in dataclasses.fields(options.Config)
    if field.metadata["touches"] != options.COMMAND
}


def of_trajectories(there: Mapping[str, Any], here: Mapping[str, Any]) -> Any:
    """What differs of what the numbers depend on: by name, `[there, here]`."""
    different = _difference(trajectory(there), trajectory(here))
    if _reranked(there, here):
        different["best"] = [there["best"], here["best"]]
    return different


def of_all(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """All that differs: by name, `[there, here]`."""
    return _difference(_flat(there), _flat(here))


def _reranked(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether what was best by one rule would be ranked by another, or no more."""
    ranks = [
        {rule.metric: rule.mode for rule in map(retention.Best.parse, choices["best"])}
        for choices in (there, here)
    ]
    first = [next(iter(rank.items()), None) for rank in ranks]
    return bool(ranks[0]) and (
        first[0] != first[1] or not ranks[0].items() <= ranks[1].items()
    )


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [there.get(name), here.get(name)]
        for name in sorted(there.keys() | here.keys())
        if not values.equal(there.get(name), here.get(name))
    }


def _flat(choices: Mapping[str, Any]) -> dict[str, Any]:
    """One level: hyperparameters beside the run's own fields."""
    own = {k: v for k, v in choices.items() if k not in ("set", "facts")}
    own |= choices["facts"]
    return own | {
        (f"set.{name}" if name in own or name in RECORDED else name): value
        for name, value in choices["set"].items()
    }


def trajectory(choices: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers depend on, one level."""
    return _flat(
        {
            name: task_name.canonical(value) if name == "task" else value
            for name, value in choices.items()
            if name == "facts"
            or RECORDED[name].metadata["touches"] == options.TRAJECTORY
        }
    )
