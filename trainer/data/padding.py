"""Examples of unequal lengths in one batch: filled up, with a mask of what was there.

>>> import tensorflow as tf
>>> from trainer.data.padding import Padding
>>> padding = Padding(fills={"tokens": 0}, multiple=2, owner="Texts")
>>> batch = padding.padded({"tokens": tf.ragged.constant([[3], [4, 1, 5]])}, rows=2)
>>> batch["tokens"].numpy().tolist()
[[3, 0, 0, 0], [4, 1, 5, 0]]
>>> batch["tokens_mask"].numpy().astype(int).tolist()
[[1, 0, 0, 0], [1, 1, 1, 0]]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, final

import tensorflow as tf

from trainer.compat import autograph
from trainer.data.sources import DataError
from trainer.task import Task, TaskError

MASK = "_mask"


@final
@dataclasses.dataclass(frozen=True)
class Padding:
    """How the batches of a task are filled up.

    Attributes:
      fills: by name of what is of unequal lengths, what fills it.
      multiple: lengths are rounded up to a multiple of this.
      owner: the name of the task.
      partly: whether names that aren't there are passed over.
    """

    fills: Mapping[str, Any]
    multiple: int
    owner: str
    partly: bool = False

    @classmethod
    def of(cls, task: Task | None) -> Padding:
        """As a task says, `Task.pad` and `Task.pad_to`; None: nothing is filled.

        Raises:
          task.TaskError: it doesn't say it as it should.
        """
        if task is None:
            return cls({}, 1, "")
        name = type(task).__name__
        if not isinstance(task.pad, Mapping):
            raise TaskError(
                f"{name}.pad is {task.pad!r}; expected what fills each array by name. "
                'Write pad = {"tokens": 0}.'
            )
        whole = isinstance(task.pad_to, int) and not isinstance(task.pad_to, bool)
        if not whole or task.pad_to < 1:
            raise TaskError(
                f"{name}.pad_to is {task.pad_to!r}; expected a whole number of at "
                "least 1, of which lengths become a multiple. Write pad_to = 16."
            )
        return cls(task.pad, task.pad_to, name)

    @autograph.unconverted
    def batched(
        self, dataset: tf.data.Dataset, size: int, **options: Any
    ) -> tf.data.Dataset:
        """Batches of a dataset of examples.

        Args:
          dataset: of examples by name.
          size: of a batch.
          options: of `tf.data.Dataset.batch`.
        """
        if self.partly:
            here = dataclasses.replace(self.among(dataset.element_spec), partly=False)
            return here.batched(dataset, size, **options)
        if not self.fills:
            return dataset.batch(size, **options)
        rows = size if options.get("drop_remainder") else None

        @autograph.unconverted
        def padded(batch: Any) -> Any:
            ragged = {name: batch[name].merge_dims(0, 1) for name in self.fills}
            return self.padded({**batch, **ragged}, rows=rows)

        # Two dimensions for one: so a batch takes examples of any length, and checks
        # the shapes of all others.
        return dataset.map(self._as_rows).batch(size, **options).map(padded)

    def padded(self, batch: Mapping[str, Any], rows: int | None) -> dict[str, Any]:
        """A batch filled up, each mask behind what it is of.

        Args:
          batch: by name, `tf.RaggedTensor`s where lengths are unequal.
          rows: of the batch; None: it is not known.

        Raises:
          DataError: something is ragged and `pad` doesn't name it, or it is named and
            isn't there.
        """
        if self.partly:
            here = dataclasses.replace(self.among(batch), partly=False)
            return here.padded(batch, rows)
        found: dict[str, Any] = {}
        for name, value in self.checked(batch).items():
            if name in self.fills:
                found[name], mask = self._filled(value, self.fills[name], rows)
                if name + MASK in batch:  # it knows better
                    mask, _ = self._filled(batch[name + MASK], False, rows)
                found[name + MASK] = mask
            else:
                found.setdefault(name, value)
        return found

    @property
    def masks(self) -> tuple[str, ...]:
        """The names of the masks that a batch has."""
        return tuple(name + MASK for name in self.fills)

    def among(self, names: Iterable[str]) -> Padding:
        """Of some of the names only."""
        some = set(names)
        fills = {name: fill for name, fill in self.fills.items() if name in some}
        return dataclasses.replace(self, fills=fills)

    def check(self, example: Mapping[str, Any]) -> None:
        """Looks at what an example is like: anything with shapes, by name.

        Raises:
          DataError: what `pad` names isn't there, or can't be filled up.
        """
        padding = self.among(example) if self.partly else self
        padding.checked(example, of_batch=False)

    def _filled(
        self, value: Any, fill: Any, rows: int | None
    ) -> tuple[tf.Tensor, tf.Tensor]:
        if not isinstance(value, tf.RaggedTensor):
            value = tf.RaggedTensor.from_tensor(value)
        fill = tf.constant(fill, value.dtype)
        lengths = value.row_lengths()
        width = tf.maximum(tf.reduce_max(lengths), 1)
        width = -(-width // self.multiple) * self.multiple
        inner = value.shape[2:]
        shape = [
            tf.constant(-1, tf.int64),
            width,
            *(tf.cast(n, tf.int64) for n in inner),
        ]
        dense = value.to_tensor(fill, shape=tf.stack(shape))
        mask = tf.sequence_mask(lengths, width)
        dense.set_shape([rows, None, *inner])
        mask.set_shape([rows, None])
        return dense, mask

    @autograph.unconverted
    def _as_rows(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """What is padded as a row of its own, `[1, (length), ...]`."""
        found = dict(self.checked(example, of_batch=False))
        for name in self.fills:
            one = found[name][tf.newaxis]
            found[name] = tf.RaggedTensor.from_tensor(one)
        return found

    def checked(
        self, given: Mapping[str, Any], *, of_batch: bool = True
    ) -> Mapping[str, Any]:
        for name in self.fills:
            if name not in given:
                raise DataError(
                    f"{self.owner}.pad names {name!r}, which the examples don't have; "
                    f"they have {', '.join(given)}. Name what is of unequal lengths: "
                    f'pad = {{"{next(iter(given))}": 0}}.'
                )
            shape, first = given[name].shape, 2 if of_batch else 1
            known = shape.rank is not None and shape.rank >= first
            if not known or not shape[first:].is_fully_defined():
                raise DataError(
                    f"{self.owner}.pad names {name!r}, whose examples have the shape "
                    f"{shape[first - 1 :]}. Expected that they differ "
                    "in their first dimension only. Cut or resize the others in decode("
                    f'self, example, seed): example["{name}"][:, :100].'
                )
        for name, one in given.items():
            if isinstance(one, tf.RaggedTensor) and name not in self.fills:
                raise DataError(unequal(name))
        return given


def unequal(name: str) -> str:
    """What to do about an array of unequal lengths, as a message."""
    return (
        f"{name!r} is of unequal lengths. Expected one shape, so that batches can be "
        f'made of the examples. Say what fills it, in the task: pad = {{"{name}": 0}}.'
    )
