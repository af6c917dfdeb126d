"""Histograms for TensorBoard: how often the values of an array lie where.

>>> from trainer.figures import histograms
>>> histograms.histogram([1, 2, 2, 9, float("nan")], buckets=4).buckets[:, 2].tolist()
[3.0, 0.0, 0.0, 1.0]
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """How many values there are between which bounds.

    Attributes:
      buckets: float64 `[K, 3]`: the left and the right bound of each bucket, and how
        many values lie in it.
    """

    buckets: npt.NDArray[np.float64]


def histogram(values: Any, *, buckets: int = 30) -> Histogram:
    """The histogram of an array of any shape.

    Args:
      values: numbers; what is NaN or infinite lies in no bucket.
      buckets: of equal widths, between the smallest and the largest value.
    """
    flat = np.asarray(values, np.float64).ravel()
    finite = flat[np.isfinite(flat)]
    if not finite.size:
        return Histogram(np.zeros([0, 3]))
    counts, bounds = np.histogram(finite, bins=buckets)
    return Histogram(np.stack([bounds[:-1], bounds[1:], counts], axis=1))
