"""The format of a run directory: every name in it, and what stands under it.

    config.json              the choices of the run; what each resume changed
    run.flags                the same as a flagfile
    prepared.npz             what the task learned from its data before training
    run.lock                 who writes here, while somebody does
    recent/                  the newest checkpoints
      ckpt-1200.index        TensorFlow's files of the checkpoint of step 1200: its
      ckpt-1200.data-00000-of-00001        tensors, in one file or more
      ckpt-1200.json         its manifest, written last: without one it is no checkpoint
      ckpt-1200.partial      its files are being made; gone once the manifest is there
      ckpt-1200.deleting     its files are being deleted; was the manifest
      ckpt-1200.json.damaged          set aside: damaged, as its manifest showed
      ckpt-1200.index.unclaimed       set aside: no manifest and no mark speaks for it
      checkpoint             TensorFlow's own list, derived from the manifests
      staging/               a step that is committed already, saved once more
    best/accuracy/           the best checkpoints by a metric, as hard links
    averaged/accuracy/       averages of the best, made by `average`
    served.json              the version of the last SavedModel that was exported
    exports/saved_model/1/   written by `export`: a version, which rises each time
    exports/keras/1200/      the other formats: of a step
    summaries/train/         event files for TensorBoard
    summaries/eval/
    train.csv                the training values, a row per report, with `--hook=csv`
    eval.csv                 the metrics, a row per evaluation
    abandoned/1/             set aside when the run went back to an earlier checkpoint
    *.tmp                    of any of these, being written; renamed once it is whole

Nothing in it is absolute: a run can be moved and renamed. Only JSON and TensorFlow's
tensors are parsed, never code, and nothing is written through a link that leads out of
it.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Iterator
from typing import final

from trainer.base.errors import KeepstepError
from trainer.storage import files

PREFIX = "ckpt"
RECENT, BEST, AVERAGED, ABANDONED = "recent", "best", "averaged", "abandoned"
PARTIAL, DELETING = ".partial", ".deleting"
DAMAGED, UNCLAIMED = ".damaged", ".unclaimed"
LIST = "checkpoint"
# Names are matched whole; the numbers are those that a step can have.
MANIFEST = re.compile(r"ckpt-(0|[1-9]\d{0,17})\.json", re.ASCII)
DATA = re.compile(r"ckpt-(0|[1-9]\d{0,17})\.(index|data-\d{5}-of-\d{5})", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PATTERN = re.compile(r"[\[\]*?\\]")
_OWNED = ("recent", "best", "averaged", "exports", "summaries", "abandoned")


class OutsideError(KeepstepError, ValueError):
    """A link in a run directory leads out of it."""


def prefix(directory: pathlib.Path, step: int) -> pathlib.Path:
    """The path of a checkpoint that `tf.train.Checkpoint.read` takes."""
    return directory / f"{PREFIX}-{step}"


def manifest_path(directory: pathlib.Path, step: int) -> pathlib.Path:
    """Where the manifest of a step is."""
    return directory / f"{PREFIX}-{step}.json"


def marker(directory: pathlib.Path, step: int, kind: str) -> pathlib.Path:
    """Where the mark `PARTIAL` or `DELETING` of a step is."""
    return directory / f"{PREFIX}-{step}{kind}"


def staging(directory: pathlib.Path) -> pathlib.Path:
    """Where a step that a directory holds already is saved once more."""
    return directory / "staging"


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that have a manifest, in rising order."""
    found = (MANIFEST.fullmatch(name) for name in files.names(directory))
    return sorted(int(match[1]) for match in found if match)


def data_files(directory: pathlib.Path, step: int) -> list[pathlib.Path]:
    """TensorFlow's files of one step that are there, sorted by name."""
    matches = (DATA.fullmatch(name) for name in files.names(directory))
    names = sorted(m[0] for m in matches if m and int(m[1]) == step)
    return [directory / name for name in names]


class PlaceError(KeepstepError, ValueError):
    """A directory has a name under which TensorFlow could not read checkpoints back."""


def check_name(directory: str) -> None:
    """Makes sure that checkpoints in a directory of that name can be read back.

    Raises:
      PlaceError: they can't; says why.
    """
    if match := _ADDRESS.match(directory):
        raise PlaceError(
            f"{directory!r} begins with {match[0]!r}, and runs are kept on local or "
            "mounted file systems only. Give the path of a directory."
        )
    if match := _PATTERN.search(directory):
        raise PlaceError(
            f"{directory!r} has a {match[0]!r} in it: TensorFlow takes that for a "
            "pattern and could not read its checkpoints back. Choose a name without "
            "[ ] * ? \\."
        )
    try:
        os.fsencode(directory).decode("utf-8")
    except UnicodeError:
        unprintable = True
    else:
        unprintable = not all(one.isprintable() for one in directory)
    if unprintable:
        raise PlaceError(
            f"{directory!r} has characters that can't be printed, or that this locale "
            "or TensorFlow can't hold. Choose a name of plain characters."
        )


@final
@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """The places in one run directory."""

    root: pathlib.Path

    @property
    def config(self) -> pathlib.Path:
        """The choices of the run."""
        return self.root / "config.json"

    @property
    def flags(self) -> pathlib.Path:
        """The choices as a flagfile."""
        return self.root / "run.flags"

    @property
    def prepared(self) -> pathlib.Path:
        """What was learned from the data before training."""
        return self.root / "prepared.npz"

    @property
    def lock(self) -> pathlib.Path:
        """Says who writes here."""
        return self.root / "run.lock"

    @property
    def recent(self) -> pathlib.Path:
        """Where the rolling checkpoints are."""
        return self.root / RECENT

    @property
    def staging(self) -> pathlib.Path:
        """Where a step that is committed already is saved once more."""
        return staging(self.recent)

    @property
    def summaries(self) -> pathlib.Path:
        """Where the event files are."""
        return self.root / "summaries"

    def best(self, metric: str) -> pathlib.Path:
        """Where the best checkpoints by a metric are."""
        return self.root / BEST / metric

    def bests(self) -> list[pathlib.Path]:
        """The directories of the best checkpoints that are there, one per metric.

        One that has two names, as a link gives it, counts once, by that of the link.
        """
        found: list[pathlib.Path] = []
        there = [self.root / BEST / name for name in files.names(self.root / BEST)]
        for path in sorted(there, key=lambda one: (not one.is_symlink(), one.name)):
            if path.is_dir() and not any(files.same(path, one) for one in found):
                found.append(path)
        return sorted(found)

    def homes(self) -> list[pathlib.Path]:
        """Every directory in which the run keeps its checkpoints."""
        return [self.recent, *self.bests()]

    def home_of(self, directory: pathlib.Path) -> pathlib.Path | None:
        """Which home of this run a directory is, however it is spelled."""
        return next((one for one in self.homes() if files.same(one, directory)), None)

    def averaged(self, metric: str) -> pathlib.Path:
        """Where the averages of the best by a metric are."""
        return self.root / AVERAGED / metric

    def export(self, kind: str, number: int) -> pathlib.Path:
        """Where an export in one format is: of a step, or a version of a SavedModel."""
        return self.root / "exports" / kind / str(number)

    @property
    def last_served(self) -> pathlib.Path:
        """Says which version was the last."""
        return self.root / "served.json"

    def abandoned(self, number: int) -> pathlib.Path:
        """What one going back set aside."""
        return self.root / ABANDONED / str(number)

    def unused_number(self) -> int:
        """One more than every number that `abandoned` holds."""
        taken = files.names(self.root / ABANDONED)
        return 1 + max((int(name) for name in taken if name.isdecimal()), default=0)

    def check_links(self) -> None:
        """Makes sure that whoever writes here writes nowhere else.

        Raises:
          OutsideError: a directory of the run is a link that leads out of it, or to
            another one of them.
        """
        root = self.root.resolve()
        own = [one for one in (self.recent, *self.bests()) if not one.is_symlink()]
        homes = {one.resolve() for one in own}
        for path in self._links():
            target = path.resolve()
            if root not in (target, *target.parents):
                raise OutsideError(
                    f"{path} is a link that leads out of the run directory, to "
                    f"{target}; nothing is written through it. Put the directory "
                    "itself in its place, or give another --run_dir."
                )
            if target in homes:
                raise OutsideError(
                    f"{path} is a link to {target}, another directory of the run: what "
                    "is deleted from the one would be gone from the other. Put a "
                    "directory in its place."
                )

    def _links(self) -> Iterator[pathlib.Path]:
        """The directories of ours, or in one of ours, that are links."""
        for owned in (self.root / name for name in _OWNED):
            if owned.is_symlink():
                yield owned
            else:
                inner = files.beneath(owned)
                yield from (one for one in inner if one.is_symlink() and one.is_dir())
