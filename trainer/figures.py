"""Images for TensorBoard, drawn as plain arrays.

A task's `figures` returns what `of_classification` gives, or images of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
Image = npt.NDArray[np.uint8]
_CELL_PIXELS = 24
_LINE_PIXELS = 1
_WHITE = 255


def of_classification(images: Any, labels: Any, probabilities: Any) -> dict[str, Image]:
    """How well images are told apart: the confusion matrix and the worst mistakes.

    Args:
      images: `[N, H, W]` or `[N, H, W, 3]`; dark is low, of any range.
      labels: whole numbers `[N]`, the true classes from 0 on.
      probabilities: `[N, classes]`.
    """
    predicted = np.argmax(probabilities, axis=1)
    labels = np.asarray(labels).astype(int)
    of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    mistakes = np.flatnonzero(predicted != labels)
    worst_first = mistakes[np.argsort(of_label[mistakes], kind="stable")]
    classes = np.shape(probabilities)[1]
    return {
        "confusion": confusion_matrix(labels, predicted, classes),
        "worst_mistakes": gallery(images, worst_first),
    }


def confusion_matrix(labels: Array, predicted: Array, classes: int) -> Image:
    """Rows are the true classes, columns the predicted ones, from the top left.

    What is right is green and what is wrong red, each the stronger the larger its share
    of the row.

    Args:
      labels: whole numbers `[N]` from 0 to `classes - 1`.
      predicted: as `labels`.
      classes: how many there are.

    Returns:
      uint8 `[H, W, 3]`.
    """
    counts = np.zeros([classes, classes])
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # A single mistake among hundreds is to be seen, too.
    strength = np.sqrt(shares)[..., None]
    right = np.eye(classes, dtype=bool)[..., None]
    colour = np.where(right, [20, 140, 60], [200, 30, 30])
    cells = _WHITE + strength * (colour - _WHITE)
    return _tiles(cells[:, :, None, None], _CELL_PIXELS)


def gallery(images: Any, chosen: Array, *, count: int = 16) -> Image:
    """The first of the chosen images in a grid; white where there are fewer.

    Args:
      images: `[N, H, W]` or `[N, H, W, 3]`; dark is low, of any range.
      chosen: places in `images`, int `[M]`.
      count: how many to show at most.
    """
    every = np.asarray(images, np.float64)
    low, high = every.min(initial=0), every.max(initial=1)
    shown = (every[chosen[:count]] - low) / (high - low) * _WHITE
    if shown.ndim == 3:
        shown = np.repeat(shown[..., None], 3, axis=-1)
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = np.full([rows * columns, *shown.shape[1:]], float(_WHITE))
    grid[: len(shown)] = shown
    zoom = max(1, 2 * _CELL_PIXELS // shown.shape[1])
    return _tiles(grid.reshape(rows, columns, *shown.shape[1:]), zoom)


def _tiles(tiles: npt.NDArray[np.float64], zoom: int) -> Image:
    """Lays tiles `[rows, columns, H, W, 3]` out, each pixel `zoom` times as large."""
    rows, columns = tiles.shape[:2]
    large = tiles.repeat(zoom, axis=2).repeat(zoom, axis=3)
    edge = [[0, 0], [0, 0], [0, _LINE_PIXELS], [0, _LINE_PIXELS], [0, 0]]
    framed = np.pad(large, edge, constant_values=_WHITE * 0.8)
    height, width = framed.shape[2:4]
    joined = framed.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    return np.round(joined).astype(np.uint8)
