"""What an author needs to give a task its examples.

    >>> import numpy as np
    >>> from trainer import data
    >>> len(data.Arrays({"x": np.zeros([5, 2]), "label": np.arange(5)}))
    5

`npz` reads arrays from a file, `Arrays` makes a source of them, and `uniform` draws the
random numbers of `Task.augment`.
"""

from __future__ import annotations

from trainer.data.failures import SourceError
from trainer.data.grouping import group_by_length
from trainer.data.image_folder import decode_image, images
from trainer.data.line_files import lines
from trainer.data.npy_files import memmap
from trainer.data.pipeline import Shuffled, ordered
from trainer.data.random import uniform
from trainer.data.record_files import tfrecords
from trainer.data.several import Several
from trainer.data.sources import Arrays, DataError, npz
from trainer.data.splits import split
from trainer.data.tables import table
from trainer.data.windowed import windows

__all__ = [
    "Arrays",
    "DataError",
    "Several",
    "Shuffled",
    "SourceError",
    "decode_image",
    "group_by_length",
    "images",
    "lines",
    "memmap",
    "npz",
    "ordered",
    "split",
    "table",
    "tfrecords",
    "uniform",
    "windows",
]
