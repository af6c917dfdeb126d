r"""Rows of a CSV, Parquet or JSON lines file as values by column.

>>> import pathlib
>>> from trainer.data import rows
>>> _ = pathlib.Path("rows.jsonl").write_text('{"x": [1, 2]}\n{"x": [3, 4]}\n')
>>> rows.read(pathlib.Path("rows.jsonl"))
{'x': [[1, 2], [3, 4]]}
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import tables
from trainer.data.sources import DataError

LINES = (".jsonl", ".ndjson", ".json")
SUFFIXES = (".csv", *tables.PARQUET, *LINES)


def read(path: pathlib.Path, *, typed: bool = False) -> dict[str, list[Any]]:
    """All columns.

    Args:
      path: as its ending says.
      typed: whether the values of a CSV are to be what they look like, as in
        `data.table`, which takes pyarrow; else they are texts.

    Raises:
      DataError: the file can't be read.
      ModuleNotFoundError: pyarrow is missing.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(
            f"there is no file {path}. Expected rows in a file that ends with "
            f"{', '.join(SUFFIXES)}. Check the path."
        )
    if suffix in LINES:
        return _columns(path, list(_objects(path)))
    if suffix == ".csv" and not typed:
        return _texts(path)
    return tables.columns(path)


def fitting(path: pathlib.Path, name: str, values: list[Any], spec: Any) -> np.ndarray:
    """A column as an array for a tensor of that kind.

    Raises:
      DataError: it holds something else.
    """
    try:
        if spec.dtype == tf.string:
            return _as_bytes(np.array(values, object))
        if any(isinstance(one, str) for one in values):
            values = [float(one or "nan") for one in values]
        return np.array([np.nan if one is None else one for one in values])
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{path}: {name!r} can't be read as {spec.dtype.name} "
            f"{tuple(spec.shape[1:])}: {error}. Expected in each row as many numbers. "
            "Correct the file."
        ) from error


def _objects(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"line {number} of {path} is no JSON: {error}. Expected one "
                    'object per line: {"x": [0.5, 1.0], "y": 3}'
                ) from error
            if not isinstance(found, Mapping):
                raise DataError(
                    f"line {number} of {path} is a {type(found).__name__}. Expected "
                    'one object per line: {"x": [0.5, 1.0], "y": 3}'
                )
            yield number, dict(found)


def _columns(
    path: pathlib.Path, given: list[tuple[int, dict[str, Any]]]
) -> dict[str, list[Any]]:
    if not given:
        raise DataError(f"{path} is empty. Expected one JSON object per line.")
    names = given[0][1].keys()
    for number, row in given:
        if row.keys() != names:
            raise DataError(
                f"line {number} of {path} has {', '.join(row) or 'nothing'}; others "
                f"have {', '.join(names)}. Expected the same names in each line."
            )
    return {name: [row[name] for _, row in given] for name in names}


def _texts(path: pathlib.Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line]
    if len(lines) < 2:
        raise DataError(
            f"{path} has no rows. Expected the names of the columns in the first line, "
            "and one example in each other."
        )
    for number, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise DataError(
                f"row {number} of {path} has {len(line)} fields; its first line names "
                f"{len(lines[0])}. Expected one for each name. Correct the file."
            )
    return {name: [line[n] for line in lines[1:]] for n, name in enumerate(lines[0])}


def _as_bytes(values: np.ndarray) -> np.ndarray:
    flat = [one.encode() if isinstance(one, str) else one for one in values.ravel()]
    if any(not isinstance(one, bytes) for one in flat):
        raise TypeError("it holds what is no text")
    found = np.empty([len(flat)], object)
    found[:] = flat
    return found.reshape(values.shape)
