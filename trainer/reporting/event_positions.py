"""How long the event files were at a step, where no manifest says it any more.

Records are framed as in TFRecord files: length (8 bytes, little-endian), its checksum
(4), the event, its checksum (4),
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details.
"""

from __future__ import annotations

import pathlib
import struct

from trainer.compat.events import Event
from trainer.reporting import event_rollback

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


def sizes_at(directory: pathlib.Path, step: int) -> dict[str, int]:
    """As `event_rollback.sizes`, of what was written up to `step`."""
    found = {
        name: _size_at(directory / name, step)
        for name in event_rollback.sizes(directory)
    }
    return {name: size for name, size in found.items() if size}


def _size_at(path: pathlib.Path, step: int) -> int:
    """Where the first event of a later step begins; a torn record ends it, too."""
    raw = path.read_bytes()
    position = 0
    while position + _HEADER.size <= len(raw):
        length, _ = _HEADER.unpack_from(raw, position)
        begin = position + _HEADER.size
        end = begin + length + _FOOTER_BYTES
        if end > len(raw):
            break
        event = Event.FromString(raw[begin : begin + length])
        if event.step > step:
            break
        position = end
    return position
