"""Examples of the user's own, from a file or a folder: `--data`.

An `.npz`, and other rows where a task has no recipe for them, hold what the networks
take. Images, and the rows of a table, are read as the task's own were, and decoded.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.data import image_folder, rows, tables
from trainer.data.decoding import decodes
from trainer.data.sources import Arrays, DataError, npz
from trainer.data.splits import taken
from trainer.task import Task

Recipe = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Own:
    """Examples, as they are read.

    Attributes:
      place: where they are from, for messages.
      arrays: what the networks take, by name; or None.
      source: what is decoded before networks take it; or None.
      files: the paths of images in their folder, one per example; of all else none.
    """

    place: str
    arrays: Mapping[str, Any] | None = None
    source: Any = None
    files: tuple[str, ...] = ()


def read(
    given: str,
    task: Task,
    recipe: Recipe | None,
    spec: Mapping[str, tf.TensorSpec],
    wanted: Sequence[str],
    *,
    optional: Sequence[str] = (),
) -> Own:
    """Reads a file or a folder.

    Args:
      given: its path.
      task: of the run.
      recipe: how the task's own examples are read, where that is known.
      spec: of a batch that the networks take.
      wanted: what is needed of that.
      optional: what is read of an `.npz` if it is there.

    Raises:
      DataError: it can't be read, or does not fit the task.
      ModuleNotFoundError: pyarrow is missing.
    """
    path = pathlib.Path(given)
    kind = recipe["kind"] if recipe else ""
    if path.is_dir():
        if recipe is None or kind != "images":
            raise DataError(
                f"{path} is a folder, and the task's own examples are no folder of "
                f"images (data.images). Expected a file with {', '.join(wanted)}: "
                f".npz, {', '.join(rows.SUFFIXES)}."
            )
        images = image_folder.like(path, recipe)
        names = tuple(one.relative_to(path).as_posix() for one in images.paths)
        return Own(given, source=taken(images, given), files=names)
    if path.suffix.lower() not in rows.SUFFIXES:
        return Own(given, arrays=npz(given, wanted, optional=optional))
    columns = rows.read(path, typed=kind == "table")
    if recipe is not None and kind == "table":
        found = tables.like(given, columns, recipe)
        if decodes(task):
            return Own(given, source=Arrays(found))
        _check(path, found, wanted)
        return Own(given, arrays=found)
    _check(path, columns, wanted)
    return Own(
        given, arrays={n: rows.fitting(path, n, columns[n], spec[n]) for n in wanted}
    )


def check_labelled(found: Own, given: str) -> None:
    """Makes sure that the images of a folder are sorted by class.

    Raises:
      DataError: they are not, so an evaluation would mean nothing.
    """
    images = getattr(found.source, "given", None)
    if isinstance(images, image_folder.Images) and -1 in images.labels:
        path = images.paths[images.labels.index(-1)]
        raise DataError(
            f"{path} is in no folder of a class. Expected each image of {given} in one "
            f"of {', '.join(images.classes)}, to evaluate them. Sort the images, or "
            "predict instead."
        )


def _check(path: pathlib.Path, found: Mapping[str, Any], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in found]:
        raise DataError(
            f"{path} has no column {missing[0]!r}; it has {', '.join(found)}. "
            f"Expected {', '.join(wanted)}, as the networks take them. Name the "
            "columns so."
        )
