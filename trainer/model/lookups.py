"""Names that a task looks up in a batch which has others.

>>> from trainer.model import lookups
>>> with lookups.told("Line.values()", {"x": 0}, "a batch of an evaluation"):
...     raise KeyError("y")
Traceback (most recent call last):
    ...
trainer.task.TaskError: Line.values() looks up 'y', which a batch of an evaluation ...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from trainer.data import failures
from trainer.task import TaskError


@contextlib.contextmanager
def told(method: str, batch: Mapping[str, Any], where: str) -> Iterator[None]:
    """While a method of a task computes with a batch.

    Args:
      method: of which task, for the message.
      batch: by name.
      where: what that batch is, for the message.

    Raises:
      TaskError: it looked up what isn't there.
    """
    try:
        yield
    except Exception as error:
        name = failures.looked_up(error)
        if not name or name in batch:
            raise
        line = failures.converted_place(error)
        raise TaskError(
            f"{method} looks up {name!r}, which {where} doesn't have"
            f"{f' ({line})' if line else ''}; it has {', '.join(map(str, batch))}. "
            "Expected one of these. Name it so in sources() or decode(), in each "
            f'split: {{"{name}": ...}}.'
        ) from error
