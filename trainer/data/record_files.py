"""Records of TFRecord files by number.

    >>> import pathlib, tensorflow as tf
    >>> from trainer import data
    >>> with tf.io.TFRecordWriter("train.tfrecord") as writer:
    ...     writer.write(b"first")
    ...     writer.write(b"second")
    >>> data.tfrecords(sorted(pathlib.Path().glob("*.tfrecord")))[1]
    {'record': b'second'}

Each example is `{"record": bytes}`; `Task.decode` parses it, with
`tf.io.parse_single_example`. The format of the files: for each record its length
(uint64), a checksum of that (uint32), the bytes, a checksum of these (uint32).
"""

from __future__ import annotations

import mmap
import pathlib
import struct
from collections.abc import Iterable

import numpy as np

from trainer.data.offsets import Files, PathLike, Spans
from trainer.data.sources import DataError

_HEAD, _FOOT = 12, 4


def tfrecords(
    paths: PathLike | Iterable[PathLike], index_dir: PathLike | None = None
) -> Files:
    """A source of the records of uncompressed TFRecord files.

    Args:
      paths: of the files, in the order that numbers the records.
      index_dir: where the indices are kept; None: each beside its file. One that can't
        be written there is made anew at each start.

    Raises:
      DataError: there is no such file, or it is not made of records.
    """
    return Files(paths, spans, name="record", index_dir=index_dir)


def spans(path: pathlib.Path) -> Spans:
    """Where the records of a file begin and how long they are.

    Raises:
      DataError: it is not made of whole records.
    """
    total = path.stat().st_size
    begin, size = [], []
    if not total:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        unpack, place = struct.Struct("<Q").unpack_from, 0
        while place < total:
            length = unpack(content, place)[0] if place + _HEAD <= total else total
            after = place + _HEAD + length + _FOOT
            if after > total:
                compressed = content[:2] == b"\x1f\x8b"
                raise DataError(
                    f"{path} is not made of whole records: the one at byte {place} "
                    f"ends at {after} of {total}. Expected an uncompressed TFRecord "
                    "file. "
                    + (
                        "This one is compressed: write it again without compression."
                        if compressed
                        else "Write it again: it is cut off, or another kind of file."
                    )
                )
            begin.append(place + _HEAD)
            size.append(length)
            place = after
    return np.array(begin, np.int64), np.array(size, np.int64)
