"""Arrays in `.npy` files that stay on disk: only what a batch needs is read.

>>> import pathlib, tempfile
>>> import numpy as np
>>> from trainer import data
>>> path = pathlib.Path(tempfile.mkdtemp(), "x.npy")
>>> np.save(path, np.arange(6.0).reshape(3, 2))
>>> source = data.memmap({"x": path})
>>> len(source), source[2]["x"].tolist()
(3, [4.0, 5.0])
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from trainer.data.sources import DataError
from trainer.data.trial import READERS

PathLike = str | os.PathLike[str]


@final
class Rows:
    """The rows of one `.npy` file, read by position: no memory is mapped.

    So what was read doesn't stay in the memory of the process, a file that is cut off
    is an error and not the end of the process, and threads don't mind each other.

    Raises:
      DataError: it is no such file, or one that can't be read row by row.
    """

    readers = READERS

    def __init__(self, path: PathLike) -> None:
        self._path = pathlib.Path(path)
        self._descriptor = -1
        try:
            with self._path.open("rb") as file:
                head: Any = np.load(self._path, mmap_mode="r")
                if not isinstance(head, np.memmap):
                    head.close()
                    raise ValueError("it is an archive of arrays, .npz")
                self._descriptor = os.open(file.name, os.O_RDONLY)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} can't be read as an .npy file: {error}. Expected an array of "
                "numbers, one row per example. Write it with np.save(path, array)."
            ) from error
        if head.ndim == 0 or not head.flags.c_contiguous or len(head) == 0:
            raise DataError(
                f"{path} holds an array of shape {head.shape}, in "
                f"{'Fortran' if head.flags.f_contiguous else 'C'} order; expected one "
                "row per example, row after row. Write it again: np.save(path, "
                "np.ascontiguousarray(array))."
            )
        self.shape: tuple[int, ...] = head.shape
        self.dtype = head.dtype
        self._offset = head.offset

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int | slice) -> np.ndarray:
        if isinstance(index, slice):
            first, last, _ = index.indices(len(self))
            return self._read(first, max(0, last - first))
        row: np.ndarray = self._read(index, 1)[0]
        return row

    def fingerprint(self) -> str:
        """Its size."""
        return f"{self._path.stat().st_size}"

    def _read(self, first: int, count: int) -> np.ndarray:
        if not 0 <= first <= first + count <= len(self):
            raise IndexError(f"row {first} of {len(self)}")
        rows = np.empty([count, *self.shape[1:]], self.dtype)
        flat: Any = rows.reshape(-1).view(np.uint8)
        view = memoryview(flat)
        row_bytes = rows.nbytes // count if count else 0
        done = 0
        while done < len(view):
            place = self._offset + first * row_bytes + done
            got = os.preadv(self._descriptor, [view[done:]], place)
            if not got:
                raise EOFError(f"{self._path} ends before row {first + count}")
            done += got
        return rows


@final
class Columns:
    """Arrays on disk or in memory, of one length, as a source. Use `memmap`."""

    readers = READERS

    def __init__(self, arrays: Mapping[str, Rows | np.ndarray]) -> None:
        self._arrays = dict(arrays)
        lengths = {name: len(one) for name, one in self._arrays.items()}
        if len(set(lengths.values())) != 1:
            raise DataError(
                f"the arrays have the lengths {lengths}; expected one common length. "
                "Cut the longer ones, or leave one out."
            )
        self._length = next(iter(lengths.values()))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: one[index] for name, one in self._arrays.items()}

    def __getitems__(self, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """Examples as arrays `[B, ...]` by name."""
        return {
            name: np.stack([one[index] for index in indices])
            for name, one in self._arrays.items()
        }

    def fingerprint(self) -> str:
        """The sizes of the files."""
        files = [one for one in self._arrays.values() if isinstance(one, Rows)]
        return " ".join(one.fingerprint() for one in files)


def memmap(paths: Mapping[str, PathLike]) -> Columns:
    """A source of arrays in `.npy` files, which stay on disk.

    Args:
      paths: of files with one array `[N, ...]` each, by name.

    Raises:
      DataError: a file can't be read, or the lengths differ.
    """
    return Columns({name: Rows(path) for name, path in paths.items()})
