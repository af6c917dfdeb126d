"""Keeps the directories of a run in the shape that its manifests call for.

The best are linked to where the best belong, and what the rules don't keep is deleted:
only after what justifies that was read and found whole. Every step may be interrupted
and done again. Only the holder of the run's lock may use this. No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import errno
import pathlib
from collections.abc import Iterable
from typing import final

from absl import logging

from trainer.checkpoint import (
    catalog,
    debris,
    filing,
    layout,
    manifest,
    plan,
    retention,
)
from trainer.checkpoint.catalog import Catalog, Entry
from trainer.checkpoint.layout import RunDirectory
from trainer.checkpoint.manifest import Manifest
from trainer.checkpoint.plan import Plan
from trainer.storage import failpoints, files

# It says nothing about the bytes, so such a checkpoint keeps its name.
_UNREADABLE = "it can't be read"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@final
class Upkeep:
    """Applies the rules to one run directory.

    Attributes:
      directory: of the run.
      rules: which checkpoints are kept.
      catalog: what there is; read by `prepare`, and kept up to date since.
    """

    def __init__(self, directory: RunDirectory, rules: retention.Rules) -> None:
        self.directory = directory
        self.rules = rules
        self.catalog = Catalog(directory, {})
        self._whole: set[tuple[pathlib.Path, int, float]] = set()

    def prepare(self) -> dict[pathlib.Path, list[int]]:
        """Makes the directories whole again after a kill at any instant.

        Returns:
          By directory, the steps of data for which no manifest speaks.
        """
        self.directory.check_links()
        files.make_directory(self.directory.recent)
        homes = [*self.directory.homes(), self.directory.staging]
        unclaimed = {home: steps for home in homes if (steps := debris.clean(home))}
        self.catalog = catalog.scan(self.directory)
        self._adopt_staged()
        return unclaimed

    def added(self, entry: Entry) -> None:
        """Takes note of a checkpoint that was committed and read back just now."""
        self.found_whole(entry)
        if entry.directory != self.directory.staging:
            self.catalog = self.catalog.with_(entry)

    def found_whole(self, entry: Entry) -> None:
        """Takes note that every byte of a checkpoint was read and is right."""
        if entry.manifest is not None:
            key = (entry.directory, entry.step, entry.manifest.created)
            self._whole.add(key)

    def set_aside(self, entry: Entry, problem: str) -> None:
        """Renames a damaged checkpoint, loudly; it counts no more."""
        filing.set_aside_damaged(entry.directory, entry.step, problem)
        self.catalog = self.catalog.without(entry.directory, entry.step)

    def settle(self, *, lazy: bool = False) -> Plan:
        """Brings the directories to what the rules call for; tells what was done.

        Args:
          lazy: read no checkpoint where nothing is to be deleted or promoted: a start
            is quick, and the first save behind it reads what there is.
        """
        self._adopt_staged()
        wanted = plan.make(self.catalog, self.rules, self._problem, lazy=lazy)
        for entry, problem in wanted.damaged:
            if problem.startswith(_UNREADABLE):
                logging.error("%s counts for nothing: %s", entry.prefix, problem)
            else:
                self.set_aside(entry, problem)
        try:
            self._promote(wanted)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            self._prune(wanted)  # which makes room
            self._promote(wanted)
        self._prune(wanted)
        return wanted

    def plan(self) -> Plan:
        """What `settle` would do. Reads what it has not yet found whole."""
        return plan.make(self.catalog, self.rules, self._problem)

    def is_scheduled(self, entry: Entry) -> bool:
        """Whether a checkpoint is one that the run makes wherever it is interrupted.

        Those made at a stop or by the clock are not.
        """
        of_best = entry.directory != self.directory.recent
        every = self.rules.save_every_steps
        return of_best or retention.is_multiple(entry.step, every)

    def move_aside(self, later: Iterable[Entry], number: int) -> None:
        """Moves checkpoints to `abandoned/<number>`, where nothing deletes them.

        Each has its new place before it leaves the old one.
        """
        for entry in later:
            if entry.manifest is None:
                continue
            place = entry.directory.relative_to(self.directory.root)
            home = self.directory.abandoned(number) / place
            files.make_directory(home)
            filing.link(entry.manifest, entry.directory, home)
            self.remove(entry.directory, entry.manifest)

    def remove(self, directory: pathlib.Path, mark: Manifest) -> None:
        """Deletes a checkpoint."""
        filing.remove(directory, mark)
        self.catalog = self.catalog.without(directory, mark.step)

    def link(self, entry: Entry, target: pathlib.Path) -> None:
        """Gives a checkpoint another home in this run.

        One of that step there whose manifest can't be read is set aside.
        """
        if entry.manifest is None:
            return
        before = self.catalog.home(target).get(entry.step)
        if before is not None and before.manifest is None:
            self.set_aside(before, before.problem or "unreadable")
        filing.link(entry.manifest, entry.directory, target)
        linked = dataclasses.replace(entry, directory=target)
        self.catalog = self.catalog.with_(linked)
        if self._problem(entry, read=False) is None:
            self.found_whole(linked)

    def any_damaged(self) -> bool:
        """Whether a checkpoint was ever set aside as damaged."""
        homes = self.directory.homes()
        there = (name for home in homes for name in files.names(home))
        return any(name.endswith(layout.DAMAGED) for name in there)

    def write_list(self, directory: pathlib.Path, steps: Iterable[int]) -> None:
        """Writes TensorFlow's list; on a full disk the next start does."""
        try:
            filing.write_list(directory, list(steps))
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise

    def _problem(self, entry: Entry, *, read: bool = True) -> str | None:
        """What is wrong with a checkpoint; each is read once at most."""
        if entry.manifest is None:
            return entry.problem
        if (entry.directory, entry.step, entry.manifest.created) in self._whole:
            return None
        if self._is_linked_to_whole(entry, entry.manifest):
            self.found_whole(entry)
            return None
        if not read:
            return "not read yet"
        try:
            problem = manifest.damage(entry.directory, entry.manifest)
        except OSError as error:
            return f"{_UNREADABLE}: {error}"
        if problem is None:
            self.found_whole(entry)
        return problem

    def _is_linked_to_whole(self, entry: Entry, mark: Manifest) -> bool:
        """Whether the very same files were found whole under another name."""
        homes = [
            home
            for home, step, created in self._whole
            if (step, created) == (entry.step, mark.created)
        ]
        return any(
            all(files.same(home / name, entry.directory / name) for name in mark.files)
            for home in homes
        )

    def _promote(self, wanted: Plan) -> None:
        """Links the recent ones that are among the best."""
        for home, entries in wanted.best.items():
            if not entries:
                if home.is_dir() and not layout.steps(home):
                    self.write_list(home, [])
                continue
            files.make_directory(home)
            for entry in entries:
                if entry.step not in self.catalog.home(home):
                    failpoints.point("promotion")
                    self.link(entry, home)
            self.write_list(home, [entry.step for entry in reversed(entries)])

    def _prune(self, wanted: Plan) -> None:
        """Deletes what the rules don't keep and no one is still to be linked from."""
        self.write_list(self.directory.recent, wanted.recent)
        behind = wanted.behind(self.catalog)
        waiting = {(e.directory, e.step) for home in behind for e in wanted.best[home]}
        for home, mark in wanted.doomed:
            if home not in behind and (home, mark.step) not in waiting:
                self.remove(home, mark)

    def _adopt_staged(self) -> None:
        """Lets what was saved a second time take the place of the first, if whole."""
        staging, recent = self.directory.staging, self.directory.recent
        for step in layout.steps(staging):
            for entry in catalog.read_entry(staging, step):
                problem = self._problem(entry)
                if problem is not None or entry.manifest is None:
                    filing.set_aside_damaged(
                        staging, step, problem or "unreadable", into=recent
                    )
                    continue
                before = self.catalog.home(recent).get(step)
                if before is not None and before.manifest is not None:
                    if not manifest.is_current(recent, entry.manifest):
                        self.remove(recent, before.manifest)
                elif before is not None:
                    self.set_aside(before, before.problem or "unreadable")
                self.link(entry, recent)
                filing.remove(staging, entry.manifest)
        filing.drop_staging(staging)
