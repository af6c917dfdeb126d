r"""Columns of CSV and Parquet files, numbers and categories, as arrays by name.

    >>> import pathlib
    >>> from trainer import data
    >>> _ = pathlib.Path("people.csv").write_text("age,city\n31,Rome\n27,Bern\n")
    >>> data.table("people.csv", numbers=["age"], categories={"city": ["Bern", "Rome"]})
    {'age': array([31, 27]), 'city': array([1, 0])}

pyarrow reads them, which the extra `data` brings: `pip install 'keepstep[data]'`.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.data.sources import DataError

_PARQUET = (".parquet", ".pq")


def table(
    path: str | os.PathLike[str],
    *,
    numbers: Sequence[str] = (),
    categories: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    texts: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Columns of a `.csv` or `.parquet` file, one row per example.

    Args:
      path: of the file; a CSV has the names of the columns in its first line.
      numbers: columns of numbers. An empty field is NaN; a column of integers without
        one is int64, any other float32.
      categories: columns of which each value is the place in a list: int64, counted
        from 0. A mapping gives the lists, and a value that is not in its list is -1;
        for names alone the list is what the file holds, sorted, without empty fields.
        Give the lists where a split has files of its own: each must count alike.
      texts: columns of texts, as bytes.

    Returns:
      Arrays `[N]` by name, in memory.

    Raises:
      DataError: the file can't be read, has no such column, or one holds other values.
      ModuleNotFoundError: pyarrow is missing.
    """
    wanted = [*numbers, *categories, *texts]
    columns = _columns(pathlib.Path(path), wanted)
    given = categories if isinstance(categories, Mapping) else {}
    found: dict[str, np.ndarray] = {}
    for name in numbers:
        found[name] = _numbers(path, name, columns[name])
    for name in categories:
        found[name] = _places(columns[name], given.get(name))
    for name in texts:
        texts_of = columns[name].to_pylist()
        found[name] = np.array([str(one or "").encode() for one in texts_of], object)
    return found


def _columns(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The columns as pyarrow has them."""
    try:
        arrow = importlib.import_module("pyarrow")
        csv = importlib.import_module("pyarrow.csv")
        parquet = importlib.import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} can't be read without pyarrow ({error}). Expected the extra "
            "`data` to be installed: pip install 'keepstep[data]'."
        ) from error
    try:
        if path.suffix.lower() in _PARQUET:
            read = parquet.read_table(path)
        else:
            read = csv.read_csv(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise DataError(
            f"{path} can't be read as a table: {error}. Expected a .csv with the names "
            "of its columns in the first line, or a .parquet. Check the path."
        ) from error
    if missing := [name for name in wanted if name not in read.column_names]:
        raise DataError(
            f"{path} has no column {missing[0]!r}; it has "
            f"{', '.join(read.column_names)}. Expected {', '.join(wanted)}. Name a "
            "column that it has."
        )
    return {name: read.column(name) for name in wanted}


def _numbers(path: Any, name: str, column: Any) -> np.ndarray:
    values: np.ndarray = column.to_numpy()
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    first = next((one for one in column.to_pylist() if isinstance(one, str)), "")
    raise DataError(
        f"the column {name!r} of {path} holds {column.type}, such as {first!r}; "
        f"expected numbers. Take it as categories=[{name!r}], or correct the file."
    )


def _places(column: Any, known: Sequence[Any] | None) -> np.ndarray:
    values = column.to_pylist()
    if known is None:
        known = sorted({one for one in values if one is not None and one != ""})
    places = {value: place for place, value in enumerate(known)}
    return np.array([places.get(one, -1) for one in values], np.int64)
