"""Numbers of two kinds in one operation, told by the names of the data.

Images are often uint8 and networks are float32; what TensorFlow says of the two names
an operation, and not the data that were meant.

>>> import tensorflow as tf
>>> from trainer.model import dtypes
>>> with dtypes.told("Line", {"x": tf.zeros([2], tf.uint8)}):
...     raise TypeError("'y' has type uint8 that does not match type float32 of 'x'")
Traceback (most recent call last):
    ...
trainer.task.TaskError: Line.values() computes with numbers of two kinds: ...
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from trainer.task import Batch, TaskError

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_FLOAT = r"(?:b?float\d*|half|double)"
# What TensorFlow says of a whole number, WHOLE, beside a float. What it says of other
# arguments, such as a depth or an axis that is no whole number, is not among it.
_MIXED = (
    rf"has type (?:WHOLE that does not match type {_FLOAT}|"
    rf"{_FLOAT} that does not match type WHOLE)\b",
    rf"same dtype, got tf\.(?:WHOLE != tf\.{_FLOAT}|{_FLOAT} != tf\.WHOLE)\b",
    rf"be an? (?:WHOLE tensor but is an? {_FLOAT}|{_FLOAT} tensor but is an? WHOLE) ",
    r"has DataType WHOLE not in list of allowed values: [^\n]*float",
    r"Expected WHOLE passed to parameter '[xy]' of op .* of type 'float'",
)


@contextlib.contextmanager
def told(name: str, batch: Batch) -> Iterator[None]:
    """While `values` of the task called `name` computes with a batch.

    Raises:
      TaskError: an operation was given whole numbers of the batch and floats.
    """
    try:
        yield
    except (TypeError, tf.errors.InvalidArgumentError) as error:
        reason = _COLORS.sub("", str(error))
        found = [(one, dtype) for one, dtype in _whole(batch) if _said(dtype, reason)]
        if not found:
            raise
        said = _said(found[0][1], reason)
        shown = ", ".join(f"{one} {dtype}" for one, dtype in found)
        first = "".join(f'["{part}"]' for part in found[0][0].split("/"))
        raise TaskError(
            f"{name}.values() computes with numbers of two kinds: {said.strip()} In "
            f"the batch are {shown}; expected floats wherever a network or a loss "
            f"computes. Cast them first: tf.cast(batch{first}, tf.float32)."
        ) from error


def _said(dtype: str, reason: str) -> str:
    """The line that tells of whole numbers of a dtype beside floats; empty: none."""
    patterns = [re.compile(one.replace("WHOLE", dtype)) for one in _MIXED]
    lines = reason.splitlines()
    return next((one for one in lines if any(p.search(one) for p in patterns)), "")


def _whole(batch: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The names of whole numbers in a batch, and their dtypes."""
    for name, one in batch.items():
        if isinstance(one, Mapping):
            yield from _whole(one, f"{above}{name}/")
        elif one.dtype.is_integer:
            yield f"{above}{name}", one.dtype.name
