"""Two checkpoints compared, tensor by tensor, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.checkpoint import catalog
from trainer.checkpoint.reader import Reader


def compare(one: catalog.Entry, other: catalog.Entry) -> Iterator[dict[str, Any]]:
    """One row a tensor of either checkpoint file; the position of a stream is none.

    Yields:
      `{"variable", "equal", "differ": how many elements, "max_difference"}`. Equal
      means the same bits, NaN included; what only one has, or has in another shape,
      differs in all elements. The largest difference is absolute, of numbers only.
    """
    readers = [Reader(str(entry.prefix)) for entry in (one, other)]
    names = {**readers[1].names, **readers[0].names}
    for key in sorted(readers[0].keys | readers[1].keys):
        values = [
            reader.value(key) if key in reader.keys else None for reader in readers
        ]
        yield {"variable": names.get(key, key), **_compare(*values)}


def _compare(one: Any, other: Any) -> dict[str, Any]:
    if one is None or other is None or one.shape != other.shape:
        size = max(array.size for array in (one, other) if array is not None)
        return {"equal": False, "differ": size, "max_difference": None}
    if one.dtype.kind in "OSU":
        differ, largest = int(np.sum(one != other)), None
    else:
        raw = [array.reshape(-1, 1).view(np.uint8) for array in (one, other)]
        differ = int(np.any(raw[0] != raw[1], axis=1).sum())
        far = np.abs(one.astype(np.float64) - other.astype(np.float64))
        largest = float(np.max(far, initial=0.0))
    equal = differ == 0 and one.dtype == other.dtype
    return {"equal": equal, "differ": differ, "max_difference": largest}
