"""What the rules call for in one run directory: what to promote, keep and delete.

    >>> import pathlib
    >>> from trainer.checkpoint import catalog, layout, plan, retention
    >>> found = catalog.scan(layout.RunDirectory(pathlib.Path("runs/line")))
    >>> made = plan.make(found, retention.Rules(keep_recent=2), lambda entry: None)
    >>> made.recent, [mark.step for _, mark in made.doomed]
    ((20, 30), [10])

Nothing is changed here. A checkpoint counts only once every byte of it was read and is
right, so a damaged one never drives out a good one.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping

from trainer.checkpoint.catalog import Catalog, Entry
from trainer.checkpoint.manifest import Manifest
from trainer.checkpoint.retention import Best, Rules


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the rules call for.

    Attributes:
      damaged: each with its problem; they count for nothing.
      best: by directory, the entries that belong there, best first.
      recent: the steps of the rolling checkpoints to keep, in rising order.
      doomed: the checkpoints to delete, each with its directory.
    """

    damaged: tuple[tuple[Entry, str], ...]
    best: Mapping[pathlib.Path, tuple[Entry, ...]]
    recent: tuple[int, ...]
    doomed: tuple[tuple[pathlib.Path, Manifest], ...]

    def behind(self, found: Catalog) -> set[pathlib.Path]:
        """The directories of the best that lack one which belongs there."""
        return {
            home
            for home, entries in self.best.items()
            if any(entry.step not in found.home(home) for entry in entries)
        }


def make(
    found: Catalog,
    rules: Rules,
    problem_of: Callable[[Entry], str | None],
    *,
    lazy: bool = False,
) -> Plan:
    """The plan for what there is.

    Args:
      found: what there is.
      rules: of the run.
      problem_of: reads a checkpoint in full and says what is wrong with it.
      lazy: read nothing where nothing is to be deleted or promoted.
    """
    unread = _without_reading(found, rules)
    if lazy and not unread.doomed and not unread.behind(found):
        return unread
    damaged: list[tuple[Entry, str]] = []
    while True:
        wanted = _without_reading(found, rules)
        home = found.home(found.directory.recent)
        needed = [home[step] for step in wanted.recent[-rules.keep_recent :]]
        needed += [entry for entries in wanted.best.values() for entry in entries]
        broken = [(e, problem) for e in needed if (problem := problem_of(e))]
        if not broken:
            return dataclasses.replace(wanted, damaged=tuple(damaged))
        damaged += broken
        for entry, _ in broken:
            found = found.without(entry.directory, entry.step)


def is_best(
    found: Catalog,
    rules: Rules,
    step: int,
    metrics: Mapping[str, float],
    pending: Iterable[tuple[int, Mapping[str, float]]] = (),
) -> bool:
    """Whether a checkpoint with these metrics would be among the best. Reads no file.

    Args:
      found: what there is.
      rules: of the run.
      step: of that checkpoint.
      metrics: of its evaluation.
      pending: step and metrics of checkpoints being saved, which count as saved.
    """
    before = list(pending)
    return any(
        step not in found.standing(rule, before)
        and step in found.standing(rule, [*before, (step, metrics)])
        for rule in rules.best
    )


def _without_reading(found: Catalog, rules: Rules) -> Plan:
    """The plan if all that is known were whole."""
    best = {
        found.directory.best(rule.metric): _standing(found, rule) for rule in rules.best
    }
    recent = tuple(rules.recent(found.steps(found.directory.recent)))
    return Plan((), best, recent, tuple(_doomed(found, best, recent)))


def _standing(found: Catalog, rule: Best) -> tuple[Entry, ...]:
    """The entries that belong among the best by a rule, best first."""
    recent = found.home(found.directory.recent)
    home = {**recent, **found.home(found.directory.best(rule.metric))}
    return tuple(home[step] for step in found.standing(rule))


def _doomed(
    found: Catalog,
    best: Mapping[pathlib.Path, tuple[Entry, ...]],
    recent: Iterable[int],
) -> Iterator[tuple[pathlib.Path, Manifest]]:
    kept = {found.directory.recent: set(recent)}
    # A directory of the best is left alone where nothing could take a place in it.
    kept |= {home: {e.step for e in best[home]} for home in best if best[home]}
    for home, steps in kept.items():
        for step in found.steps(home):
            mark = found.home(home)[step].manifest
            if step not in steps and mark is not None:
                yield home, mark
