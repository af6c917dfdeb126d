"""The files of one checkpoint handled as one: linked, removed, set aside.

Every act may be interrupted anywhere and done again. At each instant a mark says whose
files these are: `ckpt-5.partial` while they are being made, `ckpt-5.deleting` while
they are being deleted. No TensorFlow, and no bytes of a checkpoint are read.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
from collections.abc import Sequence

from absl import logging

from trainer.checkpoint import layout, manifest
from trainer.checkpoint.manifest import Manifest
from trainer.storage import files


def link(mark: Manifest, source: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a checkpoint a second home, its manifest last.

    Where it is at home there already, nothing happens.

    Raises:
      OSError: it can't be written, or another checkpoint of that step is there.
    """
    if files.same(source, target) or manifest.is_current(target, mark):
        return
    path = layout.manifest_path(target, mark.step)
    if path.exists():
        raise FileExistsError(
            errno.EEXIST, "another checkpoint of that step is there", str(path)
        )
    partial = layout.marker(target, mark.step, layout.PARTIAL)
    files.touch(partial)
    for name in mark.files:
        files.link(source / name, target / name)
    files.sync(target)
    files.link(layout.manifest_path(source, mark.step), path)
    files.sync(target)
    files.delete(partial)


def remove(directory: pathlib.Path, mark: Manifest) -> None:
    """Deletes a checkpoint; needs no room on the disk.

    From the first instant it is no checkpoint any more, and its files are known to be
    deleted.
    """
    path = layout.manifest_path(directory, mark.step)
    deleting = layout.marker(directory, mark.step, layout.DELETING)
    try:
        files.replace(path, deleting)
    except FileNotFoundError:
        return
    except OSError:  # no room even for another name
        files.delete(path)
        files.sync(directory)
    for name in mark.files:
        files.delete(directory / name)
    files.sync(directory)  # or a power cut could keep them, and not their mark
    files.delete(deleting)


def set_aside(
    directory: pathlib.Path, step: int, suffix: str, into: pathlib.Path | None = None
) -> None:
    """Renames the files of a checkpoint, its manifest first; nothing is deleted.

    Args:
      directory: that holds them.
      step: of the checkpoint.
      suffix: `layout.DAMAGED` or `layout.UNCLAIMED`.
      into: where they go; where they are, if None.
    """
    manifests = [layout.manifest_path(directory, step)]
    for path in [*manifests, *layout.data_files(directory, step)]:
        if os.path.lexists(path):
            files.replace(path, _unused(into or directory, path.name, suffix))


def set_aside_damaged(
    directory: pathlib.Path, step: int, problem: str, into: pathlib.Path | None = None
) -> None:
    """As `set_aside`, loudly."""
    logging.error(
        "damaged checkpoint %s: %s. It is renamed *%s, and an older one is used.",
        layout.prefix(directory, step),
        problem,
        layout.DAMAGED,
    )
    set_aside(directory, step, layout.DAMAGED, into)


def drop_staging(directory: pathlib.Path) -> None:
    """Deletes a staging directory that holds TensorFlow's list at most."""
    with contextlib.suppress(OSError):
        write_list(directory, layout.steps(directory))
        directory.rmdir()


def write_list(directory: pathlib.Path, steps: Sequence[int]) -> None:
    """Writes TensorFlow's own list; the last of `steps` is what it calls the latest.

    A CheckpointState proto as text, with names relative to the directory, so that the
    run can be moved.
    """
    path = directory / layout.LIST
    if not steps:
        files.delete(path)
        return
    names = [f"{layout.PREFIX}-{step}" for step in steps]
    lines = [f'model_checkpoint_path: "{names[-1]}"']
    lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
    text = "\n".join(lines) + "\n"
    with contextlib.suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    files.write_atomically(path, text)


def _unused(directory: pathlib.Path, name: str, suffix: str) -> pathlib.Path:
    """A name that no other file that was set aside has."""
    path, number = directory / f"{name}{suffix}", 1
    while os.path.lexists(path):
        number += 1
        path = directory / f"{name}.{number}{suffix}"
    return path
