"""Keeps the directories of a run in the shape that its manifests call for.

What a killed save left is removed, the best are linked to where the best belong, and
what the rules don't keep is deleted. Every step may be interrupted and done again. No
TensorFlow, and no bytes of a checkpoint are read.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from absl import logging

from trainer.checkpoint import catalog, manifest, retention
from trainer.config import options
from trainer.storage import failpoints, files

DAMAGED = ".damaged"
_OURS = re.compile(r"ckpt-(\d+)(\.index|\.data-.*|\.json\.tmp|_temp|\..*tempstate.*)")
_TEMPORARY = re.compile(r"checkpoint\.tmp.*|ckpt-\d+\..*\.tmp")


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Upkeep:
    """The rules of one run directory. Only the holder of its lock may apply them.

    Attributes:
      run_dir: of the run.
      keep_recent: how many rolling checkpoints to keep.
      keep_every_steps: those at multiples of this are kept for good; 0: none.
      best: what else to keep.
      save_every_steps: the newest multiple of this is kept; 0: none.
    """

    run_dir: pathlib.Path
    keep_recent: int
    keep_every_steps: int
    best: tuple[retention.Best, ...]
    save_every_steps: int = 0

    @classmethod
    def of(cls, choices: options.Config) -> Upkeep:
        """The rules that a run's choices give."""
        return cls(
            run_dir=choices.directory(),
            keep_recent=choices.keep_recent,
            keep_every_steps=choices.keep_every_steps,
            best=choices.rules(),
            save_every_steps=choices.save_every_steps,
        )

    @property
    def recent(self) -> pathlib.Path:
        """Where the rolling checkpoints are."""
        return self.run_dir / catalog.RECENT

    @property
    def staging(self) -> pathlib.Path:
        """Where a step that is committed already is saved once more."""
        return self.recent / "staging"

    def prepare(self) -> None:
        """Makes the directories whole again after a kill at any instant."""
        files.make_directory(self.recent)
        for directory in self._directories():
            remove_debris(directory)
        self._adopt_staged()

    def settle(self) -> None:
        """Brings the directories to what the manifests call for."""
        self._adopt_staged()
        for rule in self.best:
            self._promote(rule)
        steps = manifest.steps(self.recent)
        kept = self._kept()
        record_state(self.recent, kept)
        for step in steps:
            if step not in kept:
                remove(self.recent, step)

    def doomed(self) -> list[pathlib.Path]:
        """The checkpoints that `settle` would delete."""
        found = [
            self.recent / f"{manifest.PREFIX}-{step}"
            for step in manifest.steps(self.recent)
            if step not in self._kept()
        ]
        for rule in self.best:
            top, directory = self._top(rule), self._directory(rule)
            found += [
                directory / f"{manifest.PREFIX}-{step}"
                for step in manifest.steps(directory)
                if top and step not in top
            ]
        return found

    def is_best(
        self,
        step: int,
        metrics: Mapping[str, float],
        pending: manifest.Manifest | None = None,
    ) -> bool:
        """Whether a checkpoint with these metrics would be among the best.

        Args:
          step: of that checkpoint.
          metrics: of its evaluation.
          pending: a checkpoint that is being saved, which counts as saved.
        """
        for rule in self.best:
            directory = self._directory(rule)
            entries = catalog.ranked(directory, rule)
            held = {entry.step for entry in entries}
            if pending is not None:
                entries.append(catalog.Entry(directory, pending.step, pending))
            values = _values(entries, rule)
            if rule.metric in metrics and step not in values:
                values[step] = metrics[rule.metric]
                if step in rule.top(values, held):
                    return True
        return False

    def is_scheduled(self, entry: catalog.Entry) -> bool:
        """Whether a checkpoint is one that the run makes wherever it is interrupted.

        Those made at a stop or by the clock are not.
        """
        of_best = entry.directory != self.recent
        return of_best or retention.is_multiple(entry.step, self.save_every_steps)

    def move_aside(self, later: Iterable[catalog.Entry], number: int) -> None:
        """Moves checkpoints to `abandoned/<number>`, where nothing deletes them.

        Each has its new place before it leaves the old one.
        """
        for entry in later:
            if entry.manifest is None:
                continue
            place = entry.directory.relative_to(self.run_dir)
            home = self.run_dir / "abandoned" / str(number) / place
            files.make_directory(home)
            link(entry.manifest, entry.directory, home)
            remove(entry.directory, entry.step)

    def any_damaged(self) -> bool:
        """Whether a checkpoint was ever set aside as damaged."""
        return any(
            path
            for directory in self._directories()
            for path in directory.glob(f"*{DAMAGED}")
        )

    def _directories(self) -> list[pathlib.Path]:
        return [self.recent, *catalog.best_directories(self.run_dir)]

    def _directory(self, rule: retention.Best) -> pathlib.Path:
        return self.run_dir / catalog.BEST / rule.metric

    def _kept(self) -> list[int]:
        return retention.recent(
            manifest.steps(self.recent),
            keep_recent=self.keep_recent,
            keep_every_steps=self.keep_every_steps,
            save_every_steps=self.save_every_steps,
        )

    def _adopt_staged(self) -> None:
        """Lets what was saved a second time take the place of the first."""
        for step in manifest.steps(self.staging):
            remove(self.recent, step)
            link(manifest.read(self.staging, step), self.staging, self.recent)
            remove(self.staging, step)
        files.delete(self.staging)

    def _candidates(self, rule: retention.Best) -> dict[int, catalog.Entry]:
        """The checkpoints that may be among the best; those that are, as such."""
        entries = catalog.scan(self.run_dir)
        found = {e.step: e for e in entries if e.directory == self.recent}
        return found | {e.step: e for e in catalog.ranked(self._directory(rule), rule)}

    def _top(self, rule: retention.Best) -> list[int]:
        """The steps that belong into the directory of a rule, best first."""
        held = {e.step for e in catalog.ranked(self._directory(rule), rule)}
        return rule.top(_values(self._candidates(rule).values(), rule), held)

    def _promote(self, rule: retention.Best) -> None:
        """Links the recent ones that are among the best, then lets the worst go."""
        directory, entries = self._directory(rule), self._candidates(rule)
        top = self._top(rule)
        if not top:
            if directory.is_dir() and not manifest.steps(directory):
                record_state(directory, [])
            return
        files.make_directory(directory)
        for step in top:
            entry = entries[step]
            if entry.directory != directory and entry.manifest is not None:
                failpoints.point("promotion")
                link(entry.manifest, entry.directory, directory)
        record_state(directory, top[::-1])
        for step in manifest.steps(directory):
            if step not in top:
                remove(directory, step)


def link(mark: manifest.Manifest, source: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a checkpoint a second home, its manifest last."""
    for name in mark.files:
        files.link(source / name, target / name)
    files.sync(target)
    path = manifest.path_of(source, mark.step)
    files.link(path, target / path.name)
    files.sync(target)


def remove(directory: pathlib.Path, step: int) -> None:
    """Deletes a checkpoint, its manifest first: what is left is debris at worst."""
    files.delete(manifest.path_of(directory, step))
    files.sync(directory)
    for path in directory.glob(f"ckpt-{step}.*"):
        if not path.name.endswith(DAMAGED):
            files.delete(path)


def set_aside(entry: catalog.Entry, problem: str) -> None:
    """Renames the files of a damaged checkpoint, loudly; nothing is deleted."""
    logging.error(
        "damaged checkpoint %s: %s. It is renamed *%s, and an older one is used.",
        entry.prefix,
        problem,
        DAMAGED,
    )
    mark = manifest.path_of(entry.directory, entry.step)
    paths = sorted(
        entry.directory.glob(f"ckpt-{entry.step}.*"), key=lambda p: p != mark
    )
    for path in paths:
        if not path.name.endswith(DAMAGED):
            files.replace(path, _unused(path))


def _unused(path: pathlib.Path) -> pathlib.Path:
    """A name for a damaged file that no other damaged file has."""
    name, number = path.with_name(path.name + DAMAGED), 1
    while name.exists():
        number += 1
        name = path.with_name(f"{path.name}.{number}{DAMAGED}")
    return name


def remove_debris(directory: pathlib.Path) -> None:
    """Deletes what a killed save left: files of ours that no manifest speaks for."""
    committed = set(manifest.steps(directory))
    for path in directory.iterdir():
        if path.name.endswith(DAMAGED):
            continue
        match = _OURS.fullmatch(path.name)
        if (match and int(match[1]) not in committed) or (
            _TEMPORARY.fullmatch(path.name)
        ):
            logging.info("removing what an interrupted save left: %s", path)
            files.delete(path)


def record_state(directory: pathlib.Path, steps: Sequence[int]) -> None:
    """Writes TensorFlow's own list; the last of `steps` is what it calls the latest.

    A CheckpointState proto as text, with names relative to the directory, so that the
    run can be moved.
    """
    if not steps:
        files.delete(directory / "checkpoint")
        return
    lines = [f'model_checkpoint_path: "{manifest.PREFIX}-{steps[-1]}"']
    lines += [
        f'all_model_checkpoint_paths: "{manifest.PREFIX}-{step}"' for step in steps
    ]
    path, text = directory / "checkpoint", "\n".join(lines) + "\n"
    if not path.exists() or path.read_bytes() != text.encode():
        files.write_atomically(path, text)


def _values(entries: Iterable[catalog.Entry], rule: retention.Best) -> dict[int, float]:
    """The metric of a rule by step, where the evaluation gave it."""
    return {
        entry.step: entry.manifest.metrics[rule.metric]
        for entry in entries
        if entry.manifest is not None and rule.metric in entry.manifest.metrics
    }
