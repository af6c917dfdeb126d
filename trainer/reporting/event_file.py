"""Event files for TensorBoard, written whole record by whole record.

    >>> import pathlib, tempfile
    >>> from trainer.reporting import event_file
    >>> directory = pathlib.Path(tempfile.mkdtemp())
    >>> file = event_file.EventFile(directory)
    >>> file.add(20, [event_file.scalar("loss", 0.5)])
    >>> file.flush()
    >>> file.close()
    >>> len(list(directory.glob("events.out.tfevents.*")))
    1

TensorFlow's own writer leaves half a record where the disk is full, after which a
reader finds nothing more. Here a failed write is taken back, and what it was to write
is kept until there is room. The format is that of TFRecord files with `Event` protos,
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import io
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams.api import hparams_pb

from trainer import figures
from trainer.compat import events
from trainer.reporting import event_rollback
from trainer.storage import files

_VERSION = "brain.Event:2"


@final
class EventFile:
    """One event file below a directory; made when there is something to write."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._file: io.FileIO | None = None
        self._size = 0
        self._pending = b""

    def add(self, step: int, values: Sequence[Any]) -> None:
        """Takes `Summary.Value` protos; the next `flush` writes them."""
        event = events.Event(wall_time=time.time(), step=step)
        event.summary.value.extend(values)
        self._pending += events.record(event)

    def flush(self) -> None:
        """Hands everything to the operating system.

        Raises:
          OSError: it can't; what is on disk is as it was, and nothing is forgotten.
        """
        if not self._pending:
            return
        if self._file is None:
            self._file = self._create()
            version = events.Event(file_version=_VERSION)
            self._pending = events.record(version) + self._pending
        try:
            left = memoryview(self._pending)
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(self._pending)
        self._pending = b""

    def close(self) -> None:
        """Closes the file; what could not be written is dropped."""
        if self._file is not None:
            self._file.close()
        self._file, self._size, self._pending = None, 0, b""

    def _create(self) -> io.FileIO:
        """A file that sorts after all others: in this order they are read."""
        files.make_directory(self._directory)
        number = max(time.time_ns(), 1 + event_rollback.last_number(self._directory))
        name = f"{event_rollback.PREFIX}{number}"
        return open(self._directory / name, "xb", buffering=0)


def scalar(tag: str, value: float) -> Any:
    """A float32, as all of TensorBoard's scalars."""
    return events.value("scalar", tag, np.float32(value))


def image(tag: str, pixels: Any) -> Any:
    """uint8 `[H, W, 3]`."""
    height, width = pixels.shape[:2]
    content = [str(width), str(height), tf.io.encode_png(pixels).numpy()]
    return events.value("image", tag, np.array(content, object))


def text(tag: str, content: str) -> Any:
    """Markdown."""
    return events.value("text", tag, np.array(content.encode(), object))


def histogram(tag: str, buckets: Any) -> Any:
    """float64 `[K, 3]`: the bounds of each bucket, and how many values it has."""
    return events.value("histogram", tag, np.asarray(buckets, np.float64))


def shown(tag: str, value: Any) -> Any:
    """Of a text, a number, a `Histogram` or an image (uint8 `[H, W, C]`)."""
    if isinstance(value, str):
        return text(tag, value)
    if isinstance(value, float):
        return scalar(tag, value)
    if isinstance(value, figures.Histogram):
        return histogram(tag, value.buckets)
    return image(tag, value)


def hyperparameters(values: Mapping[str, Any], *, trial: str = "") -> list[Any]:
    """For TensorBoard's table of hyperparameters.

    Args:
      values: the columns, by name.
      trial: which row; runs with the same one are shown as one, with the average of
        their metrics. Without: as the values say.
    """
    known = {
        name: value if isinstance(value, bool | int | float) else str(value)
        for name, value in values.items()
    }
    return list(hparams_pb(known, trial_id=trial or None).value)
