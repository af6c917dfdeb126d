"""What a task shows in TensorBoard: images, texts, numbers, histograms.

    >>> import numpy as np
    >>> from trainer import figures
    >>> images, labels = np.zeros([3, 8, 8]), np.array([0, 1, 1])
    >>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    >>> sorted(figures.of_classification(images, labels, probabilities, ["cat", "dog"]))
    ['confusion', 'worst_mistakes']
    >>> figures.histogram([0.0, 0.5, 0.5, 1.0], buckets=2).buckets.tolist()
    [[0.0, 0.5, 1.0], [0.5, 1.0, 3.0]]

A task's `figures` returns by name: uint8 arrays `[H, W, 3]`, which are images and which
`of_classification` draws; texts, which are shown as Markdown; numbers; and histograms.
"""

from __future__ import annotations

from trainer.figures.classification import (
    Image,
    confusion_matrix,
    gallery,
    of_classification,
)
from trainer.figures.histograms import Histogram, histogram

__all__ = [
    "Histogram",
    "Image",
    "confusion_matrix",
    "gallery",
    "histogram",
    "of_classification",
]
