"""The protos of TensorBoard's event files, and how one record of them is written.

All of `tensorboard` is private except its plugins' `api` modules. Reason: TensorFlow's
own writer leaves half a record on a full disk. Risk: a module moves; the format is
that of the files and stays. Public alternative: `tf.compat.v1.Event` is public, but
the metadata of the plugins, which say that a value is a scalar, are not.
"""

from __future__ import annotations

import io
from typing import Any

import tensorboard.plugins.histogram.metadata
import tensorboard.plugins.image.metadata
import tensorboard.plugins.scalar.metadata
import tensorboard.plugins.text.metadata
from tensorboard.backend.event_processing.event_accumulator import (
    TENSORS,
    EventAccumulator,
)
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

__all__ = ["TENSORS", "Event", "EventAccumulator", "record", "value"]


def value(plugin: str, tag: str, content: Any) -> Any:
    """A `Summary.Value` proto.

    Args:
      plugin: `scalar`, `image`, `text` or `histogram`.
      tag: its name.
      content: the array that the plugin expects.
    """
    module = getattr(tensorboard.plugins, plugin).metadata
    metadata = module.create_summary_metadata("", "")
    tensor = make_tensor_proto(content)
    return Summary.Value(tag=tag, tensor=tensor, metadata=metadata)


def record(event: Any) -> bytes:
    """An `Event` proto as a whole record of an event file."""
    buffer = io.BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
