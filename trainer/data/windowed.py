"""One long array cut into windows: of a time series, of a text.

>>> import numpy as np
>>> from trainer import data
>>> source = data.windows(np.arange(10.0), length=4, stride=3, horizon=2)
>>> len(source), source[1]["x"].tolist(), source[1]["y"].tolist()
(2, [3.0, 4.0, 5.0, 6.0], [7.0, 8.0])
"""

from __future__ import annotations

import os
from typing import Any, final

import numpy as np

from trainer.data.npy_files import Rows
from trainer.data.sources import DataError
from trainer.data.trial import READERS


@final
class Windows:
    """The windows of an array, views of it until a batch is made. Use `windows`."""

    readers = READERS

    def __init__(self, array: Any, length: int, stride: int, horizon: int) -> None:
        self._array = array
        self._length = length
        self._stride = stride
        self._horizon = horizon
        rest = len(array) - length - horizon
        if min(length, stride) < 1 or horizon < 0 or rest < 0:
            raise DataError(
                f"an array of {len(array)} rows has no window of length={length}, "
                f"horizon={horizon} at stride={stride}. Expected length and stride of "
                "at least 1, and length + horizon rows. Choose a smaller length."
            )
        self._count = rest // stride + 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self._count:
            raise IndexError(f"window {index} of {self._count}")
        first = index * self._stride
        whole = self._array[first : first + self._length + self._horizon]
        found = {"x": whole[: self._length]}
        return found | {"y": whole[self._length :]} if self._horizon else found

    def fingerprint(self) -> str:
        """Of the array, as far as it can be told without reading it."""
        own = getattr(self._array, "fingerprint", None)
        return f"{self._length} {self._stride} {self._horizon} {own() if own else ''}"


def windows(array: Any, length: int, *, stride: int = 1, horizon: int = 0) -> Windows:
    """A source of windows: `x` `[length, ...]`, what follows is `y` `[horizon, ...]`.

    Args:
      array: `[T, ...]`, also an `np.memmap`; or the path of an `.npy` file, which stays
        on disk.
      length: rows in a window.
      stride: rows from the beginning of a window to that of the next one.
      horizon: rows after a window that are to be predicted; 0: there is no `y`.

    Raises:
      DataError: there is no such window.
    """
    if isinstance(array, str | os.PathLike):
        array = Rows(array)
    elif not hasattr(array, "shape"):
        array = np.asarray(array)
    sizes = {"length": length, "stride": stride, "horizon": horizon}
    if not all(isinstance(one, int | np.integer) for one in sizes.values()):
        raise DataError(
            f"windows are to have {sizes}. Expected whole numbers of rows. Round them: "
            "length=int(24.0)."
        )
    if not array.shape:
        raise DataError(
            f"windows are to be cut out of one value, {array!r}. Expected an array "
            "[T, ...]. Give the series itself, or the path of its .npy file."
        )
    return Windows(array, length, stride, horizon)
