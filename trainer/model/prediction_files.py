"""Predictions in a file, as its ending says: arrays, CSV, Parquet or JSON lines.

>>> import pathlib
>>> import numpy as np
>>> from trainer.model import prediction_files
>>> said = {"class": np.array([b"cat"]), "score": np.array([[0.25, 0.75]])}
>>> prediction_files.write(pathlib.Path("said.csv"), "said.csv", [said])
1
>>> pathlib.Path("said.csv").read_text().split()
['index,class,score.0,score.1', '0,cat,0.25,0.75']
"""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from trainer.data import tables
from trainer.model import prediction
from trainer.model.prediction import Arrays
from trainer.task import TaskError


def write(path: pathlib.Path, name: str, predicted: Iterable[Arrays]) -> int:
    """Writes all predictions; gives their number.

    Args:
      path: where to.
      name: that the file gets in the end; its ending says what is written.
      predicted: arrays `[B, ...]` by name, batch by batch.

    Raises:
      task.TaskError: the file can't hold what is predicted.
      ModuleNotFoundError: pyarrow is missing.
    """
    suffix = pathlib.Path(name).suffix.lower()
    if suffix == ".npz":
        return prediction.write_npz(path, predicted)
    if suffix == ".csv":
        return _write_csv(path, name, predicted)
    if suffix in tables.PARQUET:
        return _write_parquet(path, name, predicted)
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for line in prediction.as_lines(predicted):
            file.write(line + "\n")
            count += 1
    return count


def _write_csv(path: pathlib.Path, name: str, predicted: Iterable[Arrays]) -> int:
    """A vector takes one column for each of its numbers: `score.0`, `score.1`."""
    # Joined first: batches may be padded to other lengths, and a file has one header.
    columns = _columns(name, prediction.joined(prediction.numbered(predicted)))
    count = len(next(iter(columns.values())))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", *columns])
        rows = zip(*columns.values(), strict=True)
        writer.writerows([number, *row] for number, row in enumerate(rows))
    return count


def _columns(name: str, batch: Arrays) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, one in batch.items():
        if one.ndim > 2:
            raise TaskError(
                f"{name} can't hold {key!r}, of shape {one.shape[1:]} per example. "
                "Expected a number, a text or a vector of them. Write all of it to "
                "another kind of file: --output=predictions.npz."
            )
        if one.ndim == 1:
            found[key] = _plain(one)
        else:
            found |= {f"{key}.{n}": _plain(one[:, n]) for n in range(one.shape[1])}
    return found


def _write_parquet(path: pathlib.Path, name: str, predicted: Iterable[Arrays]) -> int:
    arrow = tables.pyarrow(f"{name} (unlike a .csv) can't be written")
    arrays = prediction.joined(prediction.numbered(predicted))
    count = len(next(iter(arrays.values())))
    columns = {key: arrow.array(_listed(one)) for key, one in arrays.items()}
    table = arrow.table({"index": np.arange(count), **columns})
    arrow.parquet.write_table(table, path)
    return count


def _listed(array: np.ndarray) -> Any:
    """As pyarrow takes it."""
    texts = _texts(array)
    return texts if texts.ndim == 1 and texts.dtype.kind != "U" else texts.tolist()


def _plain(array: np.ndarray) -> list[Any]:
    return list(_texts(array))


def _texts(array: np.ndarray) -> np.ndarray:
    """Bytes as texts; all else as it is."""
    if array.dtype.kind != "S":
        return array
    decoded: np.ndarray = np.char.decode(array, "utf-8", "replace")
    return decoded
