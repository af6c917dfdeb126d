"""What an interrupted save, promotion or deletion left in a directory.

Only what is known to be left over is deleted: TensorFlow's and our temporary names, and
files for which the mark of an unfinished act speaks. Data that nothing speaks for once
belonged to somebody: they are told, never deleted.
"""

from __future__ import annotations

import pathlib
import re

from absl import logging

from trainer.checkpoint import layout
from trainer.storage import files

_MARK = re.compile(r"ckpt-(0|[1-9]\d{0,17})(\.partial|\.deleting)", re.ASCII)
_TEMPORARY = re.compile(
    r"ckpt-\d{1,18}(_temp|\..*tempstate.*|\..*\.tmp)|checkpoint\.tmp.*", re.ASCII
)


def clean(directory: pathlib.Path) -> list[int]:
    """Deletes what is left over; a second time does nothing more.

    Returns:
      The steps of data files for which neither a manifest nor a mark speaks.
    """
    committed = set(layout.steps(directory))
    names = sorted(files.names(directory))
    marks = [mark for name in names if (mark := _MARK.fullmatch(name))]
    for step in {int(mark[1]) for mark in marks} - committed:
        for path in layout.data_files(directory, step):
            _delete(path)
    for name in names:
        if _TEMPORARY.fullmatch(name):
            _delete(directory / name)
    if marks:
        files.sync(directory)  # what they speak for is gone before them
    for mark in marks:
        _delete(directory / mark[0])
    found = (layout.DATA.fullmatch(name) for name in files.names(directory))
    return sorted({int(match[1]) for match in found if match} - committed)


def _delete(path: pathlib.Path) -> None:
    logging.info("removing what an interrupted save left: %s", path)
    files.delete(path)
