"""The choices of a run compared: what the numbers depend on, and what differs.

    >>> from trainer.config import comparison
    >>> there = {"steps": 5, "set": {"rate": 0.1}, "facts": {}}
    >>> here = {"steps": 9, "set": {"rate": 0.1}, "facts": {}}
    >>> comparison.of_all(there, here)
    {'steps': [5, 9]}

Choices are those of a run record: plain values as JSON has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.checkpoint import retention
from trainer.config import fields, options, task_name, values

FIELDS = fields.recorded(options.RunOptions)
# A hyperparameter with one of these names is written `set.<name>`. It is part of every
# digest, so the list stays as 0.1.0 had it, with the options of its commands.
_PREFIXED = {*FIELDS, "run_dir", "resume", "allow_change", "checkpoint", "kills"} | {
    *("data", "output", "against", "dry_run", "split", "progress", "format", "debug")
}
# Options and facts that later releases added.
_SINCE = {"threads", "data", "first_examples", "code", "plateau"}
_COUNTED = "evaluate_every_steps"


def of_trajectories(
    there: Mapping[str, Any], here: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """The choices that the numbers depend on and that differ: by name, there and here.

    What an earlier release did not record yet is not compared.
    """
    before, now = trajectory(there), trajectory(here)
    known = {k: v for k, v in now.items() if k in before or k not in _SINCE}
    different = difference(before, known)
    if reranked(there, here):
        different["best"] = [there["best"], here["best"]]
    if there.get("plateau") and here["plateau"] and there[_COUNTED] != here[_COUNTED]:
        different[_COUNTED] = [there[_COUNTED], here[_COUNTED]]
    return different


def of_all(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, list[Any]]:
    """All choices that differ: by name, there and here."""
    return difference(flat(there), flat(here))


def of_first_release(trajectory: Mapping[str, Any]) -> dict[str, Any]:
    """Without what 0.1.0 did not record, so that its digests are still the same."""
    return {k: v for k, v in trajectory.items() if k not in _SINCE}


def leaves(different: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Nested objects replaced by those of their entries that differ, by path."""
    found: dict[str, list[Any]] = {}
    for name, (there, here) in different.items():
        if isinstance(there, dict) and isinstance(here, dict):
            inner = difference(there, here)
            found |= leaves({f"{name}.{key}": pair for key, pair in inner.items()})
        else:
            found[name] = [there, here]
    return found


def reranked(there: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Whether what was best by one rule would be ranked by another, or no more."""
    ranks = [
        {rule.metric: rule.mode for rule in map(retention.Best.parse, choices["best"])}
        for choices in (there, here)
    ]
    first = [next(iter(rank.items()), None) for rank in ranks]
    return bool(ranks[0]) and (
        first[0] != first[1] or not ranks[0].items() <= ranks[1].items()
    )


def difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, Any]:
    """By name what is there and what is here, where they differ."""
    return {
        name: [there.get(name), here.get(name)]
        for name in sorted(there.keys() | here.keys())
        if not values.equal(there.get(name), here.get(name))
    }


def flat(choices: Mapping[str, Any]) -> dict[str, Any]:
    """One level: hyperparameters beside the run's own fields."""
    own = {k: v for k, v in choices.items() if k not in ("set", "facts")}
    own |= choices["facts"]
    return own | {
        (f"set.{name}" if name in own or name in _PREFIXED else name): value
        for name, value in choices["set"].items()
    }


def columns(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that the numbers depend on, for a table of runs."""
    found = trajectory(choices)
    return {k: v for k, v in found.items() if k not in choices["facts"]}


def trajectory(choices: Mapping[str, Any]) -> dict[str, Any]:
    """What the numbers depend on, one level."""
    return flat(
        {
            name: task_name.canonical(value) if name == "task" else value
            for name, value in choices.items()
            if name == "facts" or FIELDS[name].metadata["touches"] == fields.TRAJECTORY
        }
    )
