"""The trial of a source at the start of a run: what it gives, and whether always.

A batch is a function of the seed and the step only if the source answers an index
always alike. That can't be proved, but it is tried on a few examples: twice, by two
threads in turns, and by several at once. A source that minds threads is read by one.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import numpy as np
import xxhash
from absl import logging

from trainer.data import records, turns
from trainer.data.failures import SourceError
from trainer.data.readers import Readers
from trainer.data.records import Path, Spec

READERS = 16
ALIKE = "Expected the same names, dtypes and shapes in every example"
_LOOKED_AT = 16
_THREADS = 4
_TRIAL_SECS = 0.5
_SWITCH_SECS = 1e-5
_SLOW_SECS = 1e-3

Row = dict[Path, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Outline:
    """What a few examples of a source tell of all.

    Attributes:
      spec: of one example, by path.
      digest: of these examples by value, and of what the source says of its files.
      example_bytes: the size of the largest of them.
      readers: how many threads may ask at once.
      waits: whether an example takes so long that many should be asked for at once.
      changing: the index of one that is another one when it is asked for again; None
        if there is none.
    """

    spec: Spec
    digest: str
    example_bytes: int
    readers: int
    waits: bool
    changing: int | None


def examine(
    given: Any,
    name: str,
    length: int,
    read: Callable[[list[int]], list[Row]],
    one: Readers,
) -> Outline:
    """Reads some examples, the first and the last among them.

    Args:
      given: the user's source.
      name: of the split.
      length: of it.
      read: the examples at some indices.
      one: a single thread.

    Raises:
      SourceError: one can't be read, or they are not alike.
    """
    began = time.monotonic()
    count = min(length, _LOOKED_AT)
    spread = np.unique(np.linspace(0, length - 1, count).round().astype(np.int64))
    indices = spread.tolist()
    (rows,) = one.ask(read, [indices])
    each = (time.monotonic() - began) / len(rows)
    readers, again, changing = _said(given), None, None
    if readers == 0:
        again = _in_threads(indices, rows, read)
        readers = READERS if again is None else 1
    if again is not None or _said(given):
        changing = _differing(rows, one.ask(read, [indices])[0], indices)
    if again is not None and changing is None:
        logging.info(
            "%s gives other examples when several threads ask it at once, so one reads "
            "it; open files in __getitem__, one per thread, to read it faster",
            type(given).__name__,
        )
    return Outline(
        spec=_spec(rows, indices, name),
        digest=_digest(given, rows),
        example_bytes=max(map(_bytes, rows)),
        readers=readers,
        waits=each > _SLOW_SECS,
        changing=changing,
    )


def digest(row: Mapping[Path, np.ndarray]) -> str:
    """Of one example: names, dtypes, shapes and values."""
    found = xxhash.xxh3_128()
    for path in sorted(row):
        array = row[path]
        found.update(f"{path} {array.dtype} {array.shape};".encode())
        if array.dtype == object:
            for text in array.flat:
                found.update(f"{len(text)} ".encode() + text)
        else:
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _said(given: Any) -> int:
    """What the source itself says of threads; 0: nothing."""
    said = getattr(given, "readers", 0)
    return said if isinstance(said, int) and 0 < said <= 1024 else 0


def _in_threads(
    indices: list[int], rows: list[Row], read: Callable[[list[int]], list[Row]]
) -> int | None:
    """The index of an example that is another one when threads ask at once."""
    digests = dict(zip(indices, map(digest, rows), strict=True))

    def again(index: int) -> str:
        (row,) = read([index])
        return digest(row)

    if (found := turns.differing(again, digests)) is not None:
        return found
    deadline = time.monotonic() + _TRIAL_SECS
    together = threading.Barrier(_THREADS)

    def look(thread: int) -> int | None:
        together.wait()
        for index in indices[thread:] + indices[:thread]:
            try:
                differs = again(index) != digests[index]
            except SourceError:
                return index
            if differs:
                return index
            if time.monotonic() > deadline:
                break
        return None

    before = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECS)
    try:
        with futures.ThreadPoolExecutor(_THREADS) as threads:
            looks = list(threads.map(look, range(_THREADS)))
    finally:
        sys.setswitchinterval(before)
    return next((one for one in looks if one is not None), None)


def _differing(rows: list[Row], again: list[Row], indices: list[int]) -> int | None:
    for index, row, other in zip(indices, rows, again, strict=True):
        if digest(row) != digest(other):
            return index
    return None


def _spec(rows: list[Row], indices: list[int], name: str) -> Spec:
    for index, row in zip(indices, rows, strict=True):
        if problem := records.difference(row, rows[0]):
            raise SourceError(
                f"example {index} of {name!r} {problem}. {ALIKE}. Convert, pad or cut "
                "it in __getitem__: np.asarray(value, np.float32)."
            )
    return records.spec(rows)


def _digest(given: Any, rows: list[Row]) -> str:
    files = getattr(given, "fingerprint", None)
    told = str(files()) if callable(files) and hasattr(given, "readers") else ""
    return xxhash.xxh3_128_hexdigest(" ".join([*map(digest, rows), told]).encode())


def _bytes(row: Row) -> int:
    return sum(
        sum(map(len, one.flat)) if one.dtype == object else one.nbytes
        for one in row.values()
    )
