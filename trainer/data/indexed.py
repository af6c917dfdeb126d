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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf

from trainer.data import failures, records
from trainer.data.asked import Asked
from trainer.data.failures import SourceError
from trainer.data.packing import Packed, pack, packed
from trainer.data.readers import Readers
from trainer.data.trial import Outline, examine

_tokens: weakref.WeakValueDictionary[bytes, Indexed] = weakref.WeakValueDictionary()
# One for all sources that mind threads: the splits may share a file.
_one = Readers(1)


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
        self._asked = Asked(given, name, self._length)
        self._free = frozenset(free)

    def __len__(self) -> int:
        return self._length

    @functools.cached_property
    def outline(self) -> Outline:
        """What its examples are like, found by reading some of them.

        Raises:
          SourceError: one of them can't be read, or is not like the others.
        """
        return examine(self.given, self.name, self._length, self._asked.rows, _one)

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
        return all(map(_stacks, self.spec.values()))

    @property
    def in_ops(self) -> bool:
        """Whether TensorFlow can read it without Python, as it can ready sources."""
        return hasattr(self.given, "read_in_ops")

    def element(self, index: tf.Tensor) -> dict[str, tf.Tensor]:
        """The example at `index` (int64 scalar), read without Python if `in_ops`.

        It is the very example that `read` gives.
        """
        return dict(self.given.read_in_ops(index))

    def example(self, index: int) -> dict[str, Any]:
        """One example, at once.

        Raises:
          SourceError: it can't be read, or is not like the others.
        """
        (columns,) = self._threads.ask(self._columns, [[index]])
        return records.nested(
            {path: tf.convert_to_tensor(one[0]) for path, one in columns.items()}
        )

    def named(self, index: int) -> str:
        """An example in words, with its file if the source tells it."""
        told = getattr(self.given, "file_of", None)
        file = f" ({told(index)})" if told is not None else ""
        return f"example {index} of {self.name!r}{file}"

    def of_any_length(self, names: Iterable[str]) -> Indexed:
        """The same source, in which arrays of these names may be of any length."""
        found = Indexed(self.given, self.name, names)
        found.outline = self.outline  # found once, for both
        return found

    def read(self, indices: tf.Tensor) -> tuple[Any, ...]:
        """The examples at `indices` (int64 `[B]`), as an op, in the order of `spec`.

        It is stateless: the same indices give the same examples. They are stacked,
        and `Packed` where they are not all of one shape.
        """
        self._threads.begin()
        dtypes = [
            dtype
            for one in self.spec.values()
            for dtype in ([one.dtype] if _stacks(one) else [one.dtype, tf.int64])
        ]
        flat = tf.numpy_function(self._flat, [indices], dtypes, stateful=False)
        flat = tf.nest.flatten(flat)  # one alone comes bare, when executed eagerly
        if not tf.executing_eagerly():
            _tokens[flat[0].op.get_attr("token")] = self
        every = iter(flat)
        return tuple(
            _shaped(next(every), [*indices.shape, *one.shape])
            if _stacks(one)
            else packed(
                _shaped(next(every), [None]),
                _shaped(next(every), [*indices.shape, one.shape.rank]),
            )
            for one in self.spec.values()
        )

    def rows(self, read: Sequence[Any]) -> dict[str, Any]:
        """What `read` gave, by name; a `tf.RaggedTensor` where lengths are unequal."""
        return self._nested(read, Packed.rows)

    def one(self, read: Sequence[Any]) -> dict[str, Any]:
        """A single example of what `read` gave, by name."""
        return self._nested(read, Packed.one)

    def _nested(
        self, read: Sequence[Any], unpack: Callable[..., Any]
    ) -> dict[str, Any]:
        return records.nested(
            {
                path: unpack(part, one) if isinstance(part, Packed) else part
                for part, (path, one) in zip(read, self.spec.items(), strict=True)
            }
        )

    def _flat(self, indices: np.ndarray) -> list[np.ndarray]:
        places = indices.tolist()
        try:
            if not self._asked.many and self.outline.waits:
                rows = self._threads.ask(self._read, [[one] for one in places])
                return [np.concatenate(column) for column in zip(*rows, strict=True)]
            return self._threads.ask(self._read, [places])[0]
        except SourceError as error:
            raise failures.marked(error) from error

    @functools.cached_property
    def _threads(self) -> Readers:
        if self.outline.readers == 1:
            return _one
        return Readers(self.outline.readers)

    def _columns(self, indices: list[int]) -> Any:
        return self._asked.columns(indices, self.spec)

    def _read(self, indices: list[int]) -> list[np.ndarray]:
        columns = self._columns(indices)
        return [
            array
            for path, one in self.spec.items()
            for array in (
                [np.stack(columns[path])] if _stacks(one) else pack(columns[path])
            )
        ]


def read_by(node: Any) -> Indexed | None:
    """The source that a node of a graph (`NodeDef`) reads, if it is such a node."""
    return _tokens.get(node.attr["token"].s) if "token" in node.attr else None


def _stacks(one: tf.TensorSpec) -> bool:
    return bool(one.shape.is_fully_defined())


def _shaped(tensor: tf.Tensor, shape: list[int | None]) -> tf.Tensor:
    tensor.set_shape(shape)
    return tensor
