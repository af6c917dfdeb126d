"""One CSV file with a row per step, which can be cut back to an earlier one.

    >>> import pathlib
    >>> from trainer.reporting import csv_file
    >>> path = pathlib.Path("curve.csv")
    >>> file = csv_file.CsvFile(path)
    >>> for step in (1, 2, 3):
    ...     file.write(step, {"loss": 1 / step})
    >>> file.cut(1)                          # as at a resume
    >>> file.write(2, {"loss": 0.25, "accuracy": 0.5})
    >>> file.close()
    >>> print(path.read_text())
    step,accuracy,loss
    1,,1.0
    2,0.5,0.25

Rows go to the operating system at once, so a killed process loses none. No TensorFlow.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import final

from trainer.base.errors import KeepstepError
from trainer.storage import files

_FIRST = "step"


class CsvFileError(KeepstepError, RuntimeError):
    """A file has the name of ours, and is not one."""


@final
class CsvFile:
    """A CSV file; made when there is something to write."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._names: list[str] = []
        self._checked = False
        self._last: int | None = None
        self._begin = 0  # of the row of the last step
        self._file: io.FileIO | None = None
        self._pending = b""

    def cut(self, step: int) -> None:
        """Cuts away every row of a later step, and what a crash left of a row.

        Raises:
          CsvFileError: the file is none of ours, or a link.
        """
        self._checked, self._pending = False, b""
        self._names, self._last, self._begin = [], None, 0
        if os.path.lexists(self._path):
            with self._opened() as file:
                header, *rows = file.readall().splitlines(keepends=True) or [b""]
                self._names = self._header(header)
                size = len(header)
                for row in rows:
                    if not _is_row(row, step):
                        break
                    self._last, self._begin = int(row.partition(b",")[0]), size
                    size += len(row)
                file.truncate(size)
        self._checked = True

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a row; takes the place of the last one, if that is of this step.

        Raises:
          CsvFileError: as `cut`.
          OSError: it can't be written now; it is with the next one.
        """
        if not self._checked:
            self.cut(step)
        new = sorted(values.keys() - set(self._names))
        if new or not self._names:
            self._widen(new)
        if self._file is None:
            self._file = self._opened()
        if step == self._last and not self._pending:
            self._file.truncate(self._begin)
        row = [values.get(name, "") for name in self._names]
        self._pending += _encoded([[step, *row]])
        size = self._file.seek(0, os.SEEK_END)
        try:
            left = memoryview(self._pending)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(size)
            raise
        self._last, self._begin = step, size
        self._pending = b""

    def close(self) -> None:
        """Closes the file, durably."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
        self._file = None

    def _opened(self) -> io.FileIO:
        """The file for reading and writing; a link in its place is not followed."""
        self.close()
        files.make_directory(self._path.parent)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        try:
            return io.FileIO(os.open(self._path, flags, 0o666), "r+")
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise CsvFileError(
                f"{self._path} is a link; nothing is written through it. Put it away, "
                "or have the files written elsewhere: --hook=csv(DIRECTORY)."
            ) from None

    def _header(self, line: bytes) -> list[str]:
        """The columns that the first line names; it is written whole, or not at all."""
        if not line:
            return []
        first, *names = next(csv.reader([line.decode(errors="replace")]), [""])
        if first != _FIRST or not line.endswith(b"\n"):
            raise CsvFileError(
                f"{self._path} does not begin with {_FIRST!r}, so it is not a file of "
                "this hook, and nothing is written to it. Move it, or have the files "
                "written elsewhere: --hook=csv(DIRECTORY)."
            )
        return names

    def _widen(self, new: Iterable[str]) -> None:
        """Gives the file further columns; what is written has nothing there."""
        names = sorted([*self._names, *new])
        with self._opened() as file:
            text = file.readall().decode(errors="replace")
        _, *rows = csv.reader(io.StringIO(text)) if self._names else ([],)
        table: list[list[object]] = [[_FIRST, *names]]
        for step, *values in rows:
            known = dict(zip(self._names, values, strict=False))
            table.append([step, *(known.get(name, "") for name in names)])
        with files.replacing(self._path) as temporary:
            temporary.write_bytes(_encoded(table))
        self._names, self._file = names, None
        self._begin = len(_encoded(table[:-1]))


def _is_row(line: bytes, step: int) -> bool:
    """Whether it is a whole row of that step or an earlier one."""
    number = line.partition(b",")[0].strip()
    return line.endswith(b"\n") and number.isdigit() and int(number) <= step


def _encoded(rows: Iterable[Sequence[object]]) -> bytes:
    """As a CSV file has them; a float has the digits that give the very same one."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
