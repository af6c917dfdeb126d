"""JSON files that notice their own damage, and can't be made to harm who reads them.

    >>> import pathlib
    >>> from trainer.storage import checked_json
    >>> path = pathlib.Path("a.json")
    >>> checked_json.write(path, {"step": 3})
    >>> checked_json.opened(checked_json.read(path, max_bytes=1 << 20))
    {'step': 3}

A digest of everything else that the file says is written into it. It is against
accidents, not against forgers.
"""

from __future__ import annotations

import json
import pathlib
import stat
from typing import Any

import xxhash

from trainer.storage import files

DIGEST = "xxh3_128"


def write(path: pathlib.Path, body: dict[str, Any]) -> None:
    """Writes a JSON object with its digest, atomically."""
    files.write_atomically(path, text(body))


def text(body: dict[str, Any]) -> str:
    """What `write` writes."""
    return json.dumps({**body, DIGEST: _digest(body)}, indent=1) + "\n"


def read(path: pathlib.Path, *, max_bytes: int) -> Any:
    """The JSON value of a regular file of limited size; nothing else is checked.

    Raises:
      ValueError: it is too large, not a regular file or not JSON.
      RecursionError: it is too deep.
      OSError: it can't be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"it is larger than {max_bytes} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


def opened(body: dict[str, Any]) -> dict[str, Any]:
    """The object without its digest.

    Raises:
      ValueError: it is not what was written.
      KeyError: it has no digest.
    """
    content = {name: value for name, value in body.items() if name != DIGEST}
    if body[DIGEST] != _digest(content):
        raise ValueError("it is not what was written")
    return content


def _digest(body: dict[str, Any]) -> str:
    content = json.dumps(body, sort_keys=True)
    return xxhash.xxh3_128_hexdigest(content.encode())
