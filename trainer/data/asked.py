"""What a source answers when it is asked for examples: as arrays, and checked.

>>> from trainer.data.asked import Asked
>>> asked = Asked([(0.5, 0), (1.5, 1), (2.5, 0)], "train", 3)
>>> asked.rows([2])
[{('x',): array(2.5, dtype=float32), ('y',): array(0)}]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.data import failures, records
from trainer.data.failures import SourceError
from trainer.data.records import Path, Spec, ValueProblemError
from trainer.data.trial import ALIKE


@final
class Asked:
    """Asks a source for examples by number.

    Attributes:
      given: the user's object.
      name: of the split, for messages.
      many: whether it is asked for many examples at once.
    """

    def __init__(self, given: Any, name: str, length: int) -> None:
        self.given = given
        self.name = name
        self._length = length
        self._many = getattr(given, "__getitems__", None)
        self.many = self._many is not None

    def rows(self, indices: list[int]) -> list[dict[Path, np.ndarray]]:
        """Examples, whatever they are like.

        Raises:
          SourceError: one can't be read, or no tensor can hold it.
        """
        given = self._asked(indices)
        if isinstance(given, Mapping):
            columns = self._columns(given, indices)
            return [
                {path: np.asarray(one[n]) for path, one in columns.items()}
                for n in range(len(indices))
            ]
        return [
            self._arrays(one, index) for one, index in zip(given, indices, strict=True)
        ]

    def columns(self, indices: list[int], spec: Spec) -> dict[Path, Any]:
        """Examples that are like others, by path: rows, or one array of all.

        Raises:
          SourceError: one can't be read, or is not like the others.
        """
        given = self._asked(indices)
        if isinstance(given, Mapping):
            columns = self._columns(given, indices)
            self._check(columns, indices, spec, batched=True)
            return columns
        rows = []
        for one, index in zip(given, indices, strict=True):
            row = self._arrays(one, index)
            self._check(row, [index], spec)
            rows.append(row)
        return {path: [row[path] for row in rows] for path in spec}

    def _asked(self, indices: list[int]) -> Any:
        """What the source answers: a list of examples, or arrays by name."""
        if self._many is None:
            return [self._item(index) for index in indices]
        try:
            given = self._many(indices)
        except Exception as error:
            for index in indices:  # which of them is it?
                self._item(index)
            raise self._failed(f"{indices}", error) from error
        if not isinstance(given, Mapping) and len(given) != len(indices):
            raise SourceError(
                f"__getitems__ of {self.name!r} was asked for {len(indices)} examples "
                f"and gives {len(given)}. Expected one for each index, in their order. "
                "Return [self[i] for i in indices]."
            )
        return given

    def _item(self, index: int) -> Any:
        try:
            return self.given[index]
        except Exception as error:
            raise self._failed(index, error) from error

    def _failed(self, index: int | str, error: Exception) -> SourceError:
        line = failures.place(error.__traceback__)
        return SourceError(
            f"example {index} of {self.name!r} can't be read: {type(error).__name__}: "
            f"{error}{f' ({line})' if line else ''}. Expected an example for each "
            f"index from 0 to {self._length - 1}. Mend what that line reads, or leave "
            "the example out of the source."
        )

    def _arrays(self, element: Any, index: int) -> dict[Path, np.ndarray]:
        try:
            return records.arrays(element)
        except ValueProblemError as error:
            raise SourceError(
                f"in example {index} of {self.name!r}, {error}. Expected numbers or "
                "texts, as arrays by name, or (x, y), or (x, y, weight). Return "
                '{"image": np.asarray(...), "label": ...} from __getitem__.'
            ) from error

    def _columns(self, given: Any, indices: list[int]) -> dict[Path, np.ndarray]:
        columns = self._arrays(given, indices[0])
        for path, column in columns.items():
            if column.shape[:1] != (len(indices),):
                raise SourceError(
                    f"__getitems__ of {self.name!r} was asked for {len(indices)} "
                    f"examples and gives {records.named(path)} with shape "
                    f"{column.shape}. Expected one row for each index. Return "
                    "[self[i] for i in indices]."
                )
        return columns

    def _check(
        self,
        found: Mapping[Path, np.ndarray],
        indices: list[int],
        spec: Spec,
        *,
        batched: bool = False,
    ) -> None:
        """Against what the first examples were like."""
        problem = ""
        if found.keys() != spec.keys():
            problem = f"gives {_names(found)}; others give {_names(spec)}"
        for path, one in spec.items() if not problem else ():
            array = found[path]
            shape = array.shape[1:] if batched else array.shape
            text = one.dtype == tf.string
            same = text == (array.dtype == object) and (
                text or array.dtype == one.dtype.as_numpy_dtype
            )
            if not same or not one.shape.is_compatible_with(shape):
                problem = (
                    f"gives {records.named(path)} as "
                    f"{'text' if array.dtype == object else array.dtype} {shape}; "
                    f"others give {'text' if text else one.dtype.name} "
                    f"{tuple(one.shape)}"
                )
                break
        if problem:
            where = indices[0] if len(indices) == 1 else f"{indices[0]}, ..."
            raise SourceError(
                f"example {where} of {self.name!r} {problem}. {ALIKE}. Convert, pad "
                "or cut it in __getitem__: np.asarray(value, np.float32)."
            )


def _names(paths: Any) -> str:
    return ", ".join(map(records.named, paths)) or "nothing"
