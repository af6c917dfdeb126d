"""Records of files by number: where each begins is found once and kept in a file.

An index is valid for a file of the same size and time; otherwise it is made anew.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable
from typing import Any, final

import numpy as np
from absl import logging

from trainer.data.sources import DataError
from trainer.data.trial import READERS

PathLike = str | os.PathLike[str]
Spans = tuple[np.ndarray, np.ndarray]

_SUFFIX = ".index.npz"
_KEPT_OPEN = 128


@final
class Files:
    """A source of the pieces of files, one file after the other: `{name: bytes}`."""

    readers = READERS

    def __init__(
        self,
        paths: PathLike | Iterable[PathLike],
        find: Callable[[pathlib.Path], Spans],
        *,
        name: str,
        index_dir: PathLike | None,
        end: bytes = b"",
    ) -> None:
        """The pieces, each read by its position.

        Args:
          paths: of the files, in the order that numbers the pieces.
          find: the pieces of one file: int64 arrays of where they begin and of how
            many bytes they are.
          name: of a piece in its example.
          index_dir: where the indices are kept; None: each beside its file.
          end: bytes that are no part of a piece when they are its last ones.

        Raises:
          DataError: there is no file, or one can't be read.
        """
        self._name, self._end = name, end
        self._descriptors: list[int] = []
        every = [paths] if isinstance(paths, str | os.PathLike) else paths
        self._paths = [pathlib.Path(path) for path in every]
        if not self._paths:
            raise DataError(
                "there are no files to read. Expected at least one path. Look at the "
                'pattern: sorted(pathlib.Path("data").glob("*.tfrecord")).'
            )
        found = [_spans(path, find, index_dir) for path in self._paths]
        self._begin = np.concatenate([begin for begin, _ in found])
        self._size = np.concatenate([size for _, size in found])
        self._first = np.cumsum([0, *(len(begin) for begin, _ in found)])
        # Of many files, those beyond are opened for each reading: a process may have
        # no more than a thousand open.
        for path in self._paths[:_KEPT_OPEN]:
            self._descriptors.append(os.open(path, os.O_RDONLY))

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._begin)

    def __getitem__(self, index: int) -> dict[str, bytes]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        number = self._number(index)
        size, begin = int(self._size[index]), int(self._begin[index])
        found = self._piece(number, size, begin)
        if len(found) != size:
            raise EOFError(f"{self._paths[number]} ends inside record {index}")
        return {self._name: found.rstrip(self._end)}

    def file_of(self, index: int) -> str:
        """For messages: also which piece of that file it is, counted from 1."""
        number = self._number(index)
        return f"{self._paths[number]}, {self._name} {index - self._first[number] + 1}"

    def _number(self, index: int) -> int:
        """Of the file that a piece is in."""
        return int(np.searchsorted(self._first, index, "right")) - 1

    def _piece(self, number: int, size: int, begin: int) -> bytes:
        if number < len(self._descriptors):
            return os.pread(self._descriptors[number], size, begin)
        descriptor = os.open(self._paths[number], os.O_RDONLY)
        try:
            return os.pread(descriptor, size, begin)
        finally:
            os.close(descriptor)

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
        with tempfile.TemporaryDirectory(dir=kept.parent) as directory:
            whole = pathlib.Path(directory, "index.npz")
            np.savez(whole, **arrays)
            whole.replace(kept)
    except OSError as error:
        logging.info("the index %s can't be kept: %s", kept, error)
