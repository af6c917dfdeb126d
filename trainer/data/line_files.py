r"""Lines of text files by number: `{"line": b"..."}` without its end.

>>> import pathlib
>>> from trainer import data
>>> _ = pathlib.Path("reviews.txt").write_text("good\nnot so good\n")
>>> data.lines("reviews.txt")[1]
{'line': b'not so good'}
"""

from __future__ import annotations

import codecs
import pathlib
from collections.abc import Iterable

import numpy as np

from trainer.data.offsets import Files, PathLike, Spans

_BLOCK = 16_000_000
_END = 10


def lines(
    paths: PathLike | Iterable[PathLike], index_dir: PathLike | None = None
) -> Files:
    """A source of the lines of text files.

    Args:
      paths: of the files, in the order that numbers the lines.
      index_dir: where the indices are kept; None: each beside its file.

    Raises:
      DataError: there is no such file.
    """
    return Files(paths, spans, name="line", index_dir=index_dir, end=b"\r\n")


def spans(path: pathlib.Path) -> Spans:
    """Where the lines of a file begin and how long they are, their ends included."""
    ends, place = [np.zeros(1, np.int64)], 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = np.flatnonzero(np.frombuffer(block, np.uint8) == _END)
            ends.append(found + place + 1)
            place += len(block)
    every = np.unique(np.concatenate([*ends, [place]])).astype(np.int64)
    begin, size = every[:-1].copy(), np.diff(every)
    if _is_marked(path):
        begin[0] += len(codecs.BOM_UTF8)
        size[0] -= len(codecs.BOM_UTF8)
    return begin, size


def _is_marked(path: pathlib.Path) -> bool:
    """Whether a text begins with a mark of its byte order, which is no part of it."""
    with path.open("rb") as file:
        return file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
