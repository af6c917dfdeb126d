"""What a task has besides the arguments of its methods, and what it raises.

>>> from trainer.task import given
>>> given.Learned(words=["a", "b"])["words"]
['a', 'b']
>>> with given.at_step(7):
...     int(given.step_number())
7
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.base.errors import KeepstepError
from trainer.compat import autograph

_step: contextvars.ContextVar[Any] = contextvars.ContextVar("step")


class TaskError(KeepstepError, ValueError):
    """A task doesn't keep its side of the contract."""

    __module__ = "trainer.task"  # where authors find it


setattr(TaskError, autograph.PASS_THROUGH, True)


class Learned(dict[str, Any]):
    """What `Task.prepare` gave, by name."""

    def __missing__(self, name: str) -> Any:
        raise TaskError(
            f"nothing of the name {name!r} is prepared; there is "
            f"{', '.join(map(repr, self)) or 'nothing'}. Return it from prepare(self, "
            f'sources): return {{"{name}": ...}}. It is there in every other method '
            "but sources(), once the run has begun."
        )


@contextlib.contextmanager
def at_step(number: Any) -> Iterator[None]:
    """Inside, `Task.step_number` is this one: an int, or int64 scalar.

    It goes with the thread, and what it says is traced into a graph like any tensor.
    """
    token = _step.set(number)
    try:
        yield
    finally:
        _step.reset(token)


def step_number() -> tf.Tensor:
    """The number of the step that is traced now: int64 scalar.

    Raises:
      TaskError: nothing is.
    """
    try:
        return tf.cast(_step.get(), tf.int64)
    except LookupError:
        raise TaskError(
            "step_number is known in values(), step(), augment() and decode() only "
            "(and not to decode a tf.data.Dataset). Expected it to be read there. What "
            "depends on the number of the step belongs into one of them."
        ) from None
