"""Numbers of two kinds in one operation, told by the names of the data.

Images are often uint8 and networks are float32; what TensorFlow says of the two names
an operation, and not the data that were meant.

>>> import tensorflow as tf
>>> from trainer.model import dtypes
>>> with dtypes.told("Line", {"x": tf.zeros([2], tf.uint8)}):
...     raise TypeError("Input 'y' of 'Sub' Op has type uint8, 'x' has float32.")
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
        found = [(one, dtype) for one, dtype in _whole(batch) if dtype in reason]
        if not found or "float" not in reason:
            raise
        said = next(line for line in reason.splitlines() if found[0][1] in line)
        shown = ", ".join(f"{one} {dtype}" for one, dtype in found)
        first = "".join(f'["{part}"]' for part in found[0][0].split("/"))
        raise TaskError(
            f"{name}.values() computes with numbers of two kinds: {said.strip()} In "
            f"the batch are {shown}; expected floats wherever a network or a loss "
            f"computes. Cast them first: tf.cast(batch{first}, tf.float32)."
        ) from error


def _whole(batch: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The names of whole numbers in a batch, and their dtypes."""
    for name, one in batch.items():
        if isinstance(one, Mapping):
            yield from _whole(one, f"{above}{name}/")
        elif one.dtype.is_integer:
            yield f"{above}{name}", one.dtype.name
