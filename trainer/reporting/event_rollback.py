"""Event files brought back to a checkpoint: one curve for every reader.

TensorFlow starts a new event file in each process and never takes back what a killed
one wrote after its last checkpoint, so some readers would show steps twice. Event files
only ever grow, so their sizes at a save say exactly what belongs to it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from trainer.storage import files

_PATTERN = "events.out.tfevents.*"


def sizes(directory: pathlib.Path) -> dict[str, int]:
    """Bytes of every event file below `directory`, by relative name.

    Flush the writers first.
    """
    return {
        path.relative_to(directory).as_posix(): path.stat().st_size
        for path in sorted(directory.rglob(_PATTERN))
    }


def copy(directory: pathlib.Path, target: pathlib.Path) -> None:
    """Copies the event files below `directory` to below `target`."""
    for name in sizes(directory):
        copied = target / directory.name / name
        files.make_directory(copied.parent)
        files.copy(directory / name, copied)


def cut(directory: pathlib.Path, kept: Mapping[str, int]) -> None:
    """Cuts the event files below `directory` back to the sizes that `kept` says.

    A file that it doesn't name was begun later, and goes. A torn last record goes
    with its file's tail. Interrupted anywhere, it can be done again.
    """
    for name, size in sizes(directory).items():
        path = directory / name
        if name not in kept:
            files.delete(path)
        elif size > kept[name]:
            os.truncate(path, kept[name])
            files.sync(path)
