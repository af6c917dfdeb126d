"""Where the records of files begin: found once, kept in a file beside them.

An index is valid for a file of the same size and time; otherwise it is made anew.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from absl import logging

from trainer.data.sources import DataError

PathLike = str | os.PathLike[str]
Spans = tuple[np.ndarray, np.ndarray]

_SUFFIX = ".index.npz"


@final
class Files:
    """Pieces of files by number, each read by position.

    Args of `__init__`: the paths, and what finds the pieces of one file: int64 arrays
    of where they begin and of how many bytes they are.

    Raises:
      DataError: there is no file, or one can't be read.
    """

    def __init__(
        self,
        paths: Sequence[PathLike],
        find: Callable[[pathlib.Path], Spans],
        index_dir: PathLike | None,
    ) -> None:
        self._descriptors: list[int] = []
        if not paths:
            raise DataError(
                "there are no files to read. Expected at least one path. Look at the "
                'pattern: sorted(pathlib.Path("data").glob("*.tfrecord")).'
            )
        self._paths = [pathlib.Path(path) for path in paths]
        found = [_spans(path, find, index_dir) for path in self._paths]
        self._begin = np.concatenate([begin for begin, _ in found])
        self._size = np.concatenate([size for _, size in found])
        self._first = np.cumsum([0, *(len(begin) for begin, _ in found)])
        self._descriptors = [os.open(path, os.O_RDONLY) for path in self._paths]

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._begin)

    def read(self, index: int) -> bytes:
        """The piece of that number."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = int(np.searchsorted(self._first, index, "right")) - 1
        size, begin = int(self._size[index]), int(self._begin[index])
        found = os.pread(self._descriptors[number], size, begin)
        if len(found) != size:
            raise EOFError(f"{self._paths[number]} ends inside record {index}")
        return found

    def fingerprint(self) -> str:
        """The names and sizes of the files."""
        return " ".join(f"{p.name}:{p.stat().st_size}" for p in self._paths)


def _spans(
    path: pathlib.Path,
    find: Callable[[pathlib.Path], Spans],
    index_dir: PathLike | None,
) -> Spans:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(
            f"there is no file {path}: {error.strerror}. Expected a file of records. "
            "Check the path."
        ) from error
    mark = np.array([status.st_size, status.st_mtime_ns], np.int64)
    kept = _kept(path, index_dir)
    try:
        with np.load(kept, allow_pickle=False) as index:
            if np.array_equal(index["mark"], mark):
                return index["begin"], index["size"]
    except (OSError, ValueError, KeyError, EOFError):
        pass  # there is none, or half of one
    begin, size = find(path)
    _keep(kept, mark=mark, begin=begin, size=size)
    return begin, size


def _kept(path: pathlib.Path, index_dir: PathLike | None) -> pathlib.Path:
    if index_dir is None:
        return path.with_name(path.name + _SUFFIX)
    whole = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return pathlib.Path(index_dir) / f"{path.name}.{whole}{_SUFFIX}"


def _keep(kept: pathlib.Path, **arrays: Any) -> None:
    """Writes an index whole or not at all; without one, the next start looks again."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            np.savez(file, **arrays)
        pathlib.Path(file.name).replace(kept)
    except OSError as error:
        logging.info("the index %s can't be kept: %s", kept, error)
