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
from typing import Any, final

import numpy as np

from trainer.data.sources import DataError

PARQUET = (".parquet", ".pq")


@final
class Table(dict[str, np.ndarray]):
    """Columns as arrays `[N]` by name.

    Attributes:
      recipe: how they are read from a file, JSON; `like` reads another one so.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], recipe: Mapping[str, Any]):
        super().__init__(columns)
        self.recipe = recipe

    @property
    def categories(self) -> dict[str, list[Any]]:
        """By column, the categories in the order of their numbers."""
        return dict(self.recipe["categories"])


def table(
    path: str | os.PathLike[str],
    *,
    numbers: Sequence[str] = (),
    categories: Mapping[str, Sequence[Any]] | Sequence[str] = (),
    texts: Sequence[str] = (),
) -> Table:
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
      Arrays `[N]` by name, in memory; `categories` are the lists.

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
    lists: dict[str, list[Any]] = {}
    for name in categories:
        values = columns[name].to_pylist()
        lists[name] = list(given[name]) if name in given else _distinct(values)
        found[name] = _places(values, lists[name])
    for name in texts:
        found[name] = _texts(columns[name].to_pylist())
    recipe = {
        "kind": "table",
        "numbers": {name: found[name].dtype.name for name in numbers},
        "categories": lists,
        "texts": list(texts),
    }
    return Table(found, recipe)


def like(
    place: str, columns: Mapping[str, list[Any]], recipe: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The columns of other rows, read as those of a `Table` were.

    Args:
      place: where they are from, for messages.
      columns: values by name; None where there is none.
      recipe: of the table. What it has and the rows have not is left out.

    Raises:
      DataError: a column holds other values.
    """
    numbers = {k: v for k, v in recipe["numbers"].items() if k in columns}
    lists = {k: v for k, v in recipe["categories"].items() if k in columns}
    return {
        **{k: _cast(place, k, columns[k], dtype) for k, dtype in numbers.items()},
        **{k: _places(columns[k], known) for k, known in lists.items()},
        **{k: _texts(columns[k]) for k in recipe["texts"] if k in columns},
    }


def columns(path: pathlib.Path) -> dict[str, list[Any]]:
    """All columns of a `.csv` or `.parquet` file.

    Raises:
      DataError: the file can't be read.
      ModuleNotFoundError: pyarrow is missing.
    """
    read = _read(path)
    return {name: read.column(name).to_pylist() for name in read.column_names}


def pyarrow(lacking: str) -> Any:
    """The package with its `csv` and `parquet`; `lacking` is what it is needed for.

    Raises:
      ModuleNotFoundError: it is missing; says what to install.
    """
    try:
        for part in ("csv", "parquet"):
            importlib.import_module(f"pyarrow.{part}")
        return importlib.import_module("pyarrow")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{lacking} without pyarrow ({error}). Expected the extra `data` to be "
            "installed: pip install 'keepstep[data]'."
        ) from error


def _columns(path: pathlib.Path, wanted: Sequence[str]) -> dict[str, Any]:
    """The columns as pyarrow has them."""
    read = _read(path)
    if missing := [name for name in wanted if name not in read.column_names]:
        raise DataError(
            f"{path} has no column {missing[0]!r}; it has "
            f"{', '.join(read.column_names)}. Expected {', '.join(wanted)}. Name a "
            "column that it has."
        )
    return {name: read.column(name) for name in wanted}


def _read(path: pathlib.Path) -> Any:
    """The file as pyarrow reads it."""
    arrow = pyarrow(f"{path} can't be read")
    try:
        if path.suffix.lower() in PARQUET:
            return arrow.parquet.read_table(path)
        return arrow.csv.read_csv(path)
    except (OSError, arrow.ArrowInvalid) as error:
        raise DataError(
            f"{path} can't be read as a table: {error}. Expected a .csv with the names "
            "of its columns in the first line, or a .parquet. Check the path."
        ) from error


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


def _cast(place: str, name: str, values: list[Any], dtype: str) -> np.ndarray:
    try:
        found = np.array([np.nan if one is None else one for one in values], np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"the column {name!r} of {place} holds what is no number: {error}. "
            "Expected numbers, as the task's own data has. Correct the file."
        ) from error
    cast: np.ndarray = found
    with np.errstate(invalid="ignore"):
        cast = found.astype(dtype)
    if np.issubdtype(cast.dtype, np.integer) and not np.array_equal(cast, found):
        raise DataError(
            f"the column {name!r} of {place} holds fractions, or nothing in some rows. "
            "Expected whole numbers, as the task's own data has. Correct the file."
        )
    return cast


def _texts(values: list[Any]) -> np.ndarray:
    return np.array([str(one or "").encode() for one in values], object)


def _distinct(values: list[Any]) -> list[Any]:
    return sorted({one for one in values if one is not None and one != ""})


def _places(values: list[Any], known: Sequence[Any]) -> np.ndarray:
    places = {value: place for place, value in enumerate(known)}
    return np.array([places.get(one, -1) for one in values], np.int64)
