"""A source that gives its examples by number, in Python: `source[17]`.

>>> import tensorflow as tf
>>> from trainer.data.indexed import Indexed
>>> source = Indexed([(0.5, 0), (1.5, 1), (2.5, 0)], "train")
>>> len(source), [one.numpy().tolist() for one in source.read(tf.constant([2, 1]))]
(3, [[2.5, 1.5], [0, 1]])

Any class with `__len__` and `__getitem__` is one. If it has `__getitems__`, that is
asked for many examples at once; it gives a list of them, or arrays `[B, ...]` by name.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.data import failures, records
from trainer.data.failures import SourceError
from trainer.data.records import Path, ValueProblemError
from trainer.data.trial import ALIKE, Outline, examine

_tokens: weakref.WeakValueDictionary[bytes, Indexed] = weakref.WeakValueDictionary()
# One for all sources that mind threads: the splits may share a file.
_one = futures.ThreadPoolExecutor(1, "source")


@final
class Indexed:
    """Reads the examples of a source in threads of its own.

    Attributes:
      given: the user's object.
      name: of the split, for messages.
    """

    def __init__(self, given: Any, name: str, free: Iterable[str] = ()) -> None:
        self.given = given
        self.name = name
        self._length = len(given)
        self._many = getattr(given, "__getitems__", None)
        self._free = frozenset(free)

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def outline(self) -> Outline:
        """What its examples are like, found by reading some of them.

        Raises:
          SourceError: one of them can't be read, or is not like the others.
        """
        return examine(self.given, self.name, self._length, self._sampled, _one)

    @functools.cached_property
    def spec(self) -> records.Spec:
        """What an example is like, by path; None where a dimension is not always so."""
        return {
            path: records.of_any_length(one) if path[0] in self._free else one
            for path, one in self.outline.spec.items()
        }

    @property
    def stacks(self) -> bool:
        """Whether examples can be stacked as they are: all have one shape."""
        return all(one.shape.is_fully_defined() for one in self.spec.values())

    def of_any_length(self, names: Iterable[str]) -> Indexed:
        """The same source, in which arrays of these names may be of any length."""
        found = Indexed(self.given, self.name, names)
        found.outline = self.outline  # found once, for both
        return found

    def nested(self, flat: Sequence[tf.Tensor]) -> dict[str, Any]:
        """What `read` gave, by name."""
        return records.nested(dict(zip(self.spec, flat, strict=True)))

    def read(self, indices: tf.Tensor) -> list[tf.Tensor]:
        """The examples at `indices` (int64 `[B]`), stacked, as an op.

        It is stateless: the same indices give the same examples.
        """
        spec = self.spec
        flat = tf.numpy_function(
            self._stacked,
            [indices],
            [one.dtype for one in spec.values()],
            stateful=False,
        )
        flat = tf.nest.flatten(flat)  # one alone comes bare, when executed eagerly
        for tensor, one in zip(flat, spec.values(), strict=True):
            tensor.set_shape([*indices.shape, *one.shape])
        if not tf.executing_eagerly():
            _tokens[flat[0].op.get_attr("token")] = self
        return list(flat)

    def _stacked(self, indices: np.ndarray) -> list[np.ndarray]:
        places = indices.tolist()
        try:
            if self._many is None and self.outline.waits:
                rows = list(self._threads.map(self._read, [[one] for one in places]))
                return [np.concatenate(column) for column in zip(*rows, strict=True)]
            return self._threads.submit(self._read, places).result()
        except SourceError as error:
            raise failures.marked(error) from error

    @functools.cached_property
    def _threads(self) -> futures.ThreadPoolExecutor:
        """Python's own, which keep what is local to a thread; TensorFlow's don't."""
        if self.outline.readers == 1:
            return _one
        return futures.ThreadPoolExecutor(self.outline.readers, "source")

    def _sampled(self, indices: list[int]) -> list[dict[Path, np.ndarray]]:
        """Examples in the trial at the start, which finds out what they are like."""
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

    def _read(self, indices: list[int]) -> list[np.ndarray]:
        spec = self.spec
        given = self._asked(indices)
        if isinstance(given, Mapping):
            columns = self._columns(given, indices)
            self._check(columns, indices, batched=True)
            return [columns[path] for path in spec]
        rows = []
        for one, index in zip(given, indices, strict=True):
            row = self._arrays(one, index)
            self._check(row, [index])
            rows.append(row)
        return [_stack([row[path] for row in rows]) for path in spec]

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
        *,
        batched: bool = False,
    ) -> None:
        """Against what the first examples were like."""
        spec = self.spec
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


def read_by(node: Any) -> Indexed | None:
    """The source that a node of a graph (`NodeDef`) reads, if it is such a node."""
    return _tokens.get(node.attr["token"].s) if "token" in node.attr else None


def _stack(rows: list[np.ndarray]) -> np.ndarray:
    return np.stack(rows)


def _names(paths: Any) -> str:
    return ", ".join(map(records.named, paths)) or "nothing"
