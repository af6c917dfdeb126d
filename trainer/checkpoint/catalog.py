"""The committed checkpoints of a run, read from manifests alone.

    >>> import pathlib
    >>> from trainer.checkpoint import catalog, layout, retention
    >>> directory = layout.RunDirectory(pathlib.Path("runs/line"))
    >>> found = catalog.scan(directory)
    >>> [entry.step for entry in found.entries]        # newest first
    [30, 30, 20, 10]
    >>> rule = retention.Best.parse("loss:min")
    >>> [entry.step for entry in found.ranked(directory.best("loss"), rule)]
    [30]

It is read once for each act and passed down; a writer keeps it up to date instead of
reading again. No TensorFlow, and nothing is changed: safe beside a running `train`.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import final

from trainer.checkpoint import layout, manifest
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Manifest, ManifestError
from trainer.checkpoint.retention import Best

_ALL = 1 << 30


@dataclasses.dataclass(frozen=True)
class Entry:
    """A committed checkpoint in one directory.

    Attributes:
      directory: that holds its files.
      step: of the checkpoint.
      manifest: what it says, or None if it can't be read.
      problem: why it can't be read.
    """

    directory: pathlib.Path
    step: int
    manifest: Manifest | None
    problem: str | None = None

    @property
    def prefix(self) -> pathlib.Path:
        """The path that `tf.train.Checkpoint.read` takes."""
        return layout.prefix(self.directory, self.step)


@final
class Catalog:
    """What a run directory holds. Never changes: `with_` and `without` give others.

    Attributes:
      directory: of the run.
    """

    def __init__(
        self,
        directory: RunDirectory,
        homes: Mapping[pathlib.Path, Mapping[int, Entry]],
    ) -> None:
        self.directory = directory
        self._homes = homes

    @functools.cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Newest first, and of one step that in `recent` first."""
        every = (entry for home in self._homes.values() for entry in home.values())
        return tuple(sorted(every, key=lambda entry: -entry.step))

    @property
    def readable(self) -> list[tuple[Entry, Manifest]]:
        """As `entries`, those whose manifest can be read, beside that."""
        return [(e, e.manifest) for e in self.entries if e.manifest is not None]

    def home(self, directory: pathlib.Path) -> Mapping[int, Entry]:
        """The entries of one directory, by step."""
        return self._homes.get(directory, {})

    def steps(self, directory: pathlib.Path) -> list[int]:
        """The steps in one directory that can be read, in rising order."""
        home = self.home(directory)
        return sorted(step for step, entry in home.items() if entry.manifest)

    def ranked(self, directory: pathlib.Path, rule: Best) -> list[Entry]:
        """The readable checkpoints of one `best/<metric>`, best first."""
        home = self.home(directory)
        every = dataclasses.replace(rule, count=_ALL)
        return [home[step] for step in every.top(_values(home.values(), rule))]

    def standing(
        self, rule: Best, more: Iterable[tuple[int, Mapping[str, float]]] = ()
    ) -> dict[int, float]:
        """The steps that belong among the best by a rule, best first, with the values.

        Args:
          rule: the metric, and how many there may be.
          more: step and metrics of checkpoints that are not committed yet.
        """
        held = _values(self.home(self.directory.best(rule.metric)).values(), rule)
        values = _values(self.home(self.directory.recent).values(), rule) | held
        for step, metrics in more:
            if rule.metric in metrics:
                values.setdefault(step, metrics[rule.metric])
        return {step: values[step] for step in rule.top(values, held)}

    def with_(self, *entries: Entry) -> Catalog:
        """With these, in the place of others of the same step and directory."""
        homes = dict(self._homes)
        for entry in entries:
            homes[entry.directory] = {
                **homes.get(entry.directory, {}),
                entry.step: entry,
            }
        return Catalog(self.directory, homes)

    def without(self, directory: pathlib.Path, *steps: int) -> Catalog:
        """Without these steps in one directory."""
        left = {k: v for k, v in self.home(directory).items() if k not in steps}
        return Catalog(self.directory, {**self._homes, directory: left})


def scan(directory: RunDirectory) -> Catalog:
    """Reads every manifest of a run, once."""
    return Catalog(
        directory,
        {
            home: {
                step: entry
                for step in layout.steps(home)
                for entry in read_entry(home, step)
            }
            for home in directory.homes()
        },
    )


def newest_first(directory: RunDirectory) -> Iterator[Entry]:
    """As `Catalog.entries`, but no manifest is read before its turn."""
    found = [(home, step) for home in directory.homes() for step in layout.steps(home)]
    for home, step in sorted(found, key=lambda place: -place[1]):
        yield from read_entry(home, step)


def read_entry(directory: pathlib.Path, step: int) -> Iterator[Entry]:
    """One, or none if a running `train` has pruned it since."""
    try:
        yield Entry(directory, step, manifest.read(directory, step))
    except FileNotFoundError:
        return
    except (ManifestError, OSError) as error:
        yield Entry(directory, step, None, str(error))


def _values(entries: Iterable[Entry], rule: Best) -> dict[int, float]:
    """The metric of a rule by step, where the evaluation gave it."""
    return {
        entry.step: entry.manifest.metrics[rule.metric]
        for entry in entries
        if entry.manifest is not None and rule.metric in entry.manifest.metrics
    }
