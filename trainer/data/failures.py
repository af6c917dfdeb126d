"""Errors in a source, told with the example and the user's own line.

    >>> from trainer import data
    >>> class Points:
    ...     def __len__(self): return 100
    ...     def __getitem__(self, index): return {"x": 1 / (index - 40)}
    >>> with data.failures.told():                     # no error of an op
    ...     for batch in data.ordered(data.split({"valid": Points()}, "valid"), 8):
    ...         pass
    Traceback (most recent call last):
    trainer.data.failures.SourceError: example 40 of 'valid' can't be read: ...

A source is read in threads, ahead of training. What goes wrong there comes out of
TensorFlow as an error of an op, and is turned back here.
"""

from __future__ import annotations

import ast
import contextlib
import itertools
import os
import pathlib
import re
import site
import sysconfig
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import tensorflow as tf

from trainer.data.sources import DataError

_OWN = f"{pathlib.Path(__file__).resolve().parents[1]}{os.sep}"
_FOREIGN = tuple(
    f"{one}{os.sep}"
    for one in {
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
        sysconfig.get_path("platlib"),
        *site.getsitepackages(),
    }
)


class SourceError(DataError):
    """An example can't be read, or is not like the others."""


Found = SourceError | None
_MOST = 100
_IN_INPUT = "IteratorGetNext"
_MARK = "source failure no. "
# TensorFlow has two ways to say it: `batch`, and `map` with `batch` after it.
_UNEQUAL = (
    re.compile(r"Cannot batch tensors with different shapes.*", re.S),
    re.compile(r"Cannot add tensor to the batch: .*", re.S),
)
_SHAPE = re.compile(r"(?:had shape|\[tensor\]:|\[batch\]:) (\[[^\]]*\])")
_MISSING = re.compile(r"KeyError: ('[^'\n]*')\s*$")
_MISSING_IN_KERAS = re.compile(r"KeyError: .Exception encountered.*?\[1m(\w+)[\\\x1b]")
_CONVERTED = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_numbers = itertools.count(1)
_failures: dict[int, SourceError] = {}
_searches: Any = weakref.WeakKeyDictionary()


class Marked(Exception):  # noqa: N818  it is a messenger
    """Carries the number of a `SourceError` through TensorFlow."""


def place(trace: TracebackType | None) -> str:
    """The user's own line in a traceback, such as `mine.py, line 3, in decode`."""
    frames = [
        one for one in traceback.extract_tb(trace) if not one.filename.startswith(_OWN)
    ]
    users = [one for one in frames if not one.filename.startswith(_FOREIGN)]
    if not frames:
        return ""
    frame = (users or frames)[-1]
    return f"{frame.filename}, line {frame.lineno}, in {frame.name}"


def looked_up(error: BaseException) -> str:
    """The name that a task's own code looked up in vain; empty, if it failed else."""
    # AutoGraph tells an error once more, as one of another class; so does Keras.
    text = f"{type(error).__name__}: {error}"
    if found := _MISSING.search(text):
        return str(ast.literal_eval(found[1]))
    found = _MISSING_IN_KERAS.search(text)
    return found[1] if found else ""


def converted_place(error: BaseException) -> str:
    """As `place`, of an error in code that AutoGraph has converted, which tells it."""
    found = _CONVERTED.findall(str(error))
    users = [one for one in found if not one[0].startswith(_FOREIGN)]
    if not users:
        return place(error.__traceback__)
    return "{}, line {}, in {}".format(*users[-1])


def marked(error: SourceError) -> Marked:
    """What to raise where TensorFlow passes on nothing but a text."""
    number = next(_numbers)
    _failures[number] = error
    _failures.pop(number - _MOST, None)
    return Marked(f"{_MARK}{number}: {error}")


def searched(dataset: tf.data.Dataset, search: Callable[[int], Found]) -> None:
    """Says how the failing example of a dataset of batches is found.

    Args:
      dataset: of them, for `search`.
      search: gives the error of the example that fails in the batch of a number.
    """
    _searches[dataset] = search


def search(dataset: tf.data.Dataset, number: int) -> Found:
    """The example that fails in the batch of a number, if that can be known."""
    known = _searches.get(dataset)
    return known(number) if known is not None else None


@contextlib.contextmanager
def told(failing: Callable[[], Found] = lambda: None) -> Iterator[None]:
    """Turns an op's error into that of the data that it is about, if it is.

    Args:
      failing: looks for the example that an op failed at, if it can be known.

    Raises:
      SourceError: an example can't be read or decoded.
      DataError: examples of unequal shapes were to be one batch.
    """
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(rf"{_MARK}(\d+)", str(error))
        known = _failures.get(int(found[1])) if found else None
        if known is not None:
            raise known from known.__cause__
        for pattern in _UNEQUAL:
            if said := pattern.search(str(error)):
                raise DataError(_unequal(said[0])) from None
        example = failing() if _IN_INPUT in str(error) else None
        if example is not None:
            raise example from error
        raise


def plain(error: tf.errors.OpError) -> str:
    """What an op says, without the names of nodes around it."""
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message.split("\n")[0]).strip()


def _unequal(text: str) -> str:
    shapes = " and ".join(_SHAPE.findall(text))
    return (
        f"examples of unequal shapes are to be one batch: {shapes}. Expected one "
        'shape. Fill them up, in the task: pad = {"tokens": 0} (by name), or cut or '
        "resize them in decode(self, example, seed). A tf.data.Dataset may make the "
        "batches itself: dataset.padded_batch(n)."
    )
