"""Examples in memory, and how they are read from a file.

>>> import numpy as np
>>> from trainer import data
>>> source = data.Arrays({"x": np.arange(6.0), "y": np.arange(6) % 2})
>>> len(source)
6
>>> source.gather([0, 5])["y"].numpy().tolist()
[0, 1]
"""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat import autograph
from trainer.data import ragged
from trainer.data.records import ValueProblemError


class DataError(KeepstepError, ValueError):
    """Examples are missing or do not fit together."""


setattr(DataError, autograph.PASS_THROUGH, True)


@final
class Arrays:
    """A source of arrays in memory: `{"image": [N, ...], "label": [N]}`.

    Rows of unequal lengths are taken as well, in a list or a `tf.RaggedTensor`; the
    task says what fills them (`Task.pad`).

    Raises:
      DataError: there is no array, or they do not have one common length above 0.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._length = common_length(arrays)
        # A large NumPy array in a graph would be copied into it; a tensor is captured.
        self._tensors = {k: as_tensor(k, v) for k, v in arrays.items()}

    def __len__(self) -> int:
        return self._length

    @autograph.unconverted
    def gather(self, indices: tf.Tensor) -> dict[str, tf.Tensor]:
        """The examples at `indices` (int64 `[B]`)."""
        return {
            name: tf.gather(array, indices) for name, array in self._tensors.items()
        }


def as_tensor(name: str, array: Any) -> Any:
    """A tensor, or a `tf.RaggedTensor` if its rows are of unequal lengths.

    Raises:
      DataError: its rows differ in more than their first dimension, or hold what no
        tensor can.
    """
    try:
        return ragged.tensor(name, array)
    except ValueProblemError as error:
        raise DataError(str(error)) from error
    except (ValueError, TypeError, OverflowError) as error:
        kind = getattr(array, "dtype", type(array).__name__)
        reason = str(error).partition("\n")[0].rstrip(".")
        raise DataError(
            f"{name!r} ({kind}) holds what no tensor can: {reason}. Expected numbers "
            "or texts, and one kind of them. Convert it: np.asarray(values, "
            "np.float32), or leave it out."
        ) from error


def common_length(arrays: Mapping[str, Any]) -> int:
    """How many examples arrays by name are.

    Raises:
      DataError: there is no array, or they do not have one common length above 0.
    """
    for name, array in arrays.items():
        if isinstance(array, tf.SparseTensor):
            raise DataError(
                f"{name!r} is a sparse tensor; expected an array with one entry per "
                "example. Make it dense: tf.sparse.to_dense(x)."
            )
        if ragged.is_single(array):
            raise DataError(
                f"{name!r} is a single value, {array!r}; expected an array with one "
                "entry per example. Leave it out, or repeat it: np.full([N], value)."
            )
    lengths = {name: ragged.length(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise DataError(
            f"the arrays of a source have the lengths {lengths}; expected one "
            "common length of at least 1."
        )
    return next(iter(lengths.values()))


def npz(
    path: str | pathlib.Path, names: Sequence[str], *, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The named arrays of an `.npz` file. Pickled objects are refused.

    Args:
      path: of the file.
      names: that it must have.
      optional: that are read as well where the file has them.

    Raises:
      DataError: there is no such file, or it has no such array.
    """
    wanted = ", ".join(names)
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            if missing := [name for name in names if name not in file]:
                raise DataError(
                    f"{path} has no array {missing[0]!r}; it has "
                    f"{', '.join(sorted(file)) or 'none'}. Expected {wanted}."
                )
            more = [name for name in optional if name in file]
            arrays = {name: file[name] for name in (*names, *more)}
            for name, array in arrays.items():
                if not isinstance(array, np.ndarray):
                    raise DataError(
                        f"{path} cannot be read as an .npz with the arrays {wanted}: "
                        f"{name!r} is no array."
                    )
            return arrays
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(
            f"there is no file {path}. Expected an .npz with the arrays {wanted}."
        ) from None
    except (
        OSError,
        ValueError,
        EOFError,
        TypeError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise DataError(
            f"{path} cannot be read as an .npz with the arrays {wanted}: {error}"
        ) from error


def outline(spec: Mapping[str, Any]) -> str:
    """What one example is made of, such as `image uint8 (8, 8), label uint8 ()`."""
    return ", ".join(
        f"{name} {one.dtype.name} {tuple(one.shape)}" for name, one in _leaves("", spec)
    )


def _leaves(above: str, spec: Any) -> Iterator[tuple[str, Any]]:
    """The tensors in nested mappings and tuples, by longer names."""
    if isinstance(spec, Mapping):
        parts = spec.items()
    elif isinstance(spec, list | tuple):
        parts = dict(enumerate(spec)).items()
    else:
        yield above, spec
        return
    for name, one in parts:
        yield from _leaves(f"{above}/{name}" if above else str(name), one)
