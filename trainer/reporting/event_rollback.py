"""Event files brought back to a checkpoint: one curve for every reader.

    >>> import pathlib
    >>> from trainer.reporting import event_file, event_rollback
    >>> summaries = pathlib.Path("runs/line/summaries")
    >>> sizes = event_rollback.sizes(summaries)              # at a save
    >>> file = event_file.EventFile(summaries / "train")     # after it
    >>> file.add(31, [event_file.scalar("loss", 0.5)])
    >>> file.close()
    >>> event_rollback.cut(summaries, sizes)                 # at a resume: no problems
    []
    >>> event_rollback.sizes(summaries) == sizes
    True

A killed process leaves what it wrote after its last checkpoint, so some readers would
show steps twice. Event files only ever grow, so their sizes at a save say exactly what
belongs to it. Each process begins its own file; when there are many they are joined
into one, so that thousands of restarts cost no more than a few. Files of other writers
are left alone.
"""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import stat
from collections.abc import Iterator, Mapping

from trainer.storage import files

KINDS = ("train", "eval")
PREFIX = "events.out.tfevents."
_OURS = re.compile(r"events\.out\.tfevents\.(\d{1,20})(\.joined)?", re.ASCII)
_JOINED = ".joined"
_MANY = 16


def names(directory: pathlib.Path) -> list[str]:
    """Our event files in one directory, in the order in which they are read."""
    found = [match for n in files.names(directory) if (match := _OURS.fullmatch(n))]
    regular = [m for m in found if stat.S_ISREG((directory / m[0]).lstat().st_mode)]
    return [m[0] for m in sorted(regular, key=lambda m: (int(m[1]), bool(m[2])))]


def last_number(directory: pathlib.Path) -> int:
    """The number in the name of the last file; -1 if there is none."""
    return max((_number(name) for name in names(directory)), default=-1)


def sizes(directory: pathlib.Path) -> dict[str, int]:
    """Bytes of every event file of the run, by name relative to `directory`.

    Flush the writers first.
    """
    return {
        f"{kind}/{name}": (directory / kind / name).stat().st_size
        for kind in KINDS
        for name in names(directory / kind)
    }


def copy(directory: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the event files below `directory` to below `target`."""
    for name in sizes(directory):
        copied = target / directory.name / name
        files.make_directory(copied.parent)
        files.copy(directory / name, copied)


def cut(directory: pathlib.Path, kept: Mapping[str, int]) -> list[str]:
    """Cuts the event files below `directory` back to the sizes that `kept` says.

    A file that it doesn't name was begun later, and goes. A torn last record goes
    with its file's tail. Interrupted anywhere, it can be done again.

    Returns:
      What is missing, a text per file: there the curves have a hole.
    """
    problems = []
    for kind in KINDS:
        home = directory / kind
        _finish_joining(home)
        limits = _limits(home, kind, kept)
        for name in names(home):
            size = (home / name).stat().st_size
            limit = limits.pop(name, None)
            if limit is None:
                files.delete(home / name)
            elif size > limit:
                os.truncate(home / name, limit)
                files.sync(home / name)
            elif size < limit:
                problems.append(
                    f"{home / name} has {size} bytes and had {limit} at the save"
                )
        problems += [
            f"{home / name} is missing, with {limit} bytes"
            for name, limit in limits.items()
        ]
        if len(names(home)) > _MANY:
            _join(home)
    return problems


def _limits(home: pathlib.Path, kind: str, kept: Mapping[str, int]) -> dict[str, int]:
    """How long each file of one kind was, those that were joined since as one."""
    joined = [name for name in names(home) if name.endswith(_JOINED)]
    limits: dict[str, int] = {}
    for name, size in _of_kind(kind, kept):
        later = (one for one in joined if _number(name) <= _number(one))
        home_now = name if (home / name).exists() else next(later, name)
        limits[home_now] = limits.get(home_now, 0) + size
    return limits


def _of_kind(kind: str, kept: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for name, size in kept.items():
        folder, _, base = name.rpartition("/")
        if folder == kind and _OURS.fullmatch(base):
            yield base, size


def _join(home: pathlib.Path) -> None:
    """Makes one file of all, which sorts where the last of them did."""
    parts = names(home)
    target = home / f"{PREFIX}{_number(parts[-1])}{_JOINED}"
    if target.name == parts[-1]:
        return  # nothing was written since the last time
    with files.replacing(target) as temporary, temporary.open("wb") as whole:
        for name in parts:
            with (home / name).open("rb") as part:
                shutil.copyfileobj(part, whole)
    _finish_joining(home)


def _finish_joining(home: pathlib.Path) -> None:
    """Deletes the parts of a file that is their whole."""
    found = names(home)
    last = max((i for i, n in enumerate(found) if n.endswith(_JOINED)), default=0)
    for name in found[:last]:
        files.delete(home / name)


def _number(name: str) -> int:
    match = _OURS.fullmatch(name)
    return int(match[1]) if match else -1
